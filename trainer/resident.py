"""How much memory this process has held. Standard library only."""

import resource
import sys
from pathlib import Path


def peak_resident_mb() -> float:
    """The highest resident memory of this process, in MB.

    Of Linux's own count: `ru_maxrss` there begins with the peak of the process that started this one.
    """
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    unit = 2**20 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

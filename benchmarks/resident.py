"""The memory of this process, as Linux counts it.

Not `ru_maxrss`: a process inherits its parent's peak with that, so that a small one started by a large one looks large.
"""

import re
from pathlib import Path


def resident_mb(field: str, process: int | str = "self") -> float:
    """VmRSS: the process's resident memory now, in MB; VmHWM: its highest since it began or `reset_peak`."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def reset_peak() -> None:
    """VmHWM counts from here."""
    Path("/proc/self/clear_refs").write_text("5")

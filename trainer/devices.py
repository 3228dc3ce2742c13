"""Which device this machine computes on. Knows neither the database nor who else would like to have it."""

import os
from pathlib import Path

import torch

from trainer.recipes.program import DeviceMissing


def available_device(wanted: str) -> str:
    """The device, "cuda" or "cpu". wanted: "auto", "cpu" or "cuda".

    Raises DeviceMissing when a GPU is insisted on and there is none.
    """
    if wanted == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        raise DeviceMissing(wanted)
    return "cpu"


def memory_gb(device: str) -> float:
    """What the device has of memory, in GB (10^9 bytes): the GPU's, or as much of the machine's as we may use."""
    if device == "cuda":
        return float(torch.cuda.get_device_properties(0).total_memory) / 1e9
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")  # of a container
    allowed = limit.read_text(encoding="ascii").strip() if limit.is_file() else ""
    return (min(machine, int(allowed)) if allowed.isdigit() else machine) / 1e9

"""Processes as the kernel sees them, and waiting for them: what the fault tests share."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest

WAIT_S = 300  # a machine may have much else to do; what comes sooner is not waited for
GONE = (FileNotFoundError, ProcessLookupError)  # before its file was opened, or before it was read


def wait_for(happened: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not happened():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


def children_of(pid: int) -> list[int]:
    """The processes that a process, in any of its threads, has started."""
    if not list(Path("/proc/self/task").glob("*/children")):
        pytest.skip("this system does not say which processes are whose children")
    children: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(*GONE):  # a thread, or the process, that has ended meanwhile
            children += [int(child) for child in thread.read_text().split()]
    return children


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\x00", " ")
    except GONE:
        return ""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except GONE:
        return False

"""Processes that end while they are looked at."""

import subprocess
import sys

from tests.faults.processes import children_of, command_of, is_running


def test_a_process_that_has_ended_has_no_children_and_no_command() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert (children_of(process.pid), command_of(process.pid), is_running(process.pid)) == ([], "", False)

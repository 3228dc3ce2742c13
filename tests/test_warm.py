"""A program that begins warm is a process like any other."""

import signal
import sys
from pathlib import Path

import pytest

from tests import warm

TIDY = [sys.executable, "-m", "json.tool", "--compact"]  # reads what it is given to the end


@pytest.fixture
def program(tmp_path):
    with (tmp_path / "printed").open("wb") as printed:
        started = warm.Program(TIDY, stdin=warm.PIPE, stdout=printed, env={"PATH": "/usr/bin"})
        yield started
        started.kill()
        started.wait()
        started.stdin.close()


def test_it_reads_what_it_is_given_and_prints_where_it_is_told(program, tmp_path):
    assert program.poll() is None
    program.stdin.write(b'{"a": 1}')
    program.stdin.close()
    assert (program.wait(60), program.poll()) == (0, 0)
    assert (tmp_path / "printed").read_text() == '{"a":1}\n'


def test_its_end_is_told_as_of_any_process(program, tmp_path):
    program.stdin.write(b"no JSON")
    program.stdin.close()
    assert program.wait(60) == 1
    assert "Expecting value" in (tmp_path / "printed").read_text()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_is_ended_by_signals(program, number):
    assert Path(f"/proc/{program.pid}").exists()
    program.send_signal(number)
    assert program.wait(60) == -number
    assert not Path(f"/proc/{program.pid}").exists()
    program.send_signal(number)  # it is known to have ended


def test_another_one_keeps_none_of_its_streams_open(program, tmp_path):
    """Or it would never read the end of what it is given."""
    another = warm.run(TIDY, tmp_path)
    assert another.returncode == 1  # was given nothing
    program.stdin.write(b"[]")
    program.stdin.close()
    assert program.wait(60) == 0

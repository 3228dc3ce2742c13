"""Processes that start processes: a child that ends when its parent does, and a parent that starts it again.

A child's standard input is a pipe that only its parent holds: when the parent dies, even by kill -9, the pipe ends
and the child stops. That holds on every Unix, and leaves no orphan behind.
"""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

log = logging.getLogger(__name__)

PIPE_VARIABLE = "PODIUM_PARENT_PIPE"  # set for a child that must end when its standard input does
STOP_TIMEOUT_S = 30.0
GIVE_BACK_S = 5.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
STEADY_AFTER_S = 60.0  # a child that lived so long has earned a quick restart


def end_with_parent() -> None:
    """In a child: stop when the parent is gone, by the signal that asks for a clean stop, and hard if that hangs."""
    if os.environ.pop(PIPE_VARIABLE, None) is None:
        return

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        _end()

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def end_with_spawner() -> None:
    """The same in a process that multiprocessing spawned, as uvicorn does its workers: it has a pipe of its own.

    Without it they outlive a parent that was killed, and go on answering beside the workers of its successor.
    """
    if (parent := multiprocessing.parent_process()) is None:
        return

    def watch(parent: BaseProcess = parent) -> None:
        parent.join()
        _end()

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def leave_at_latest(timeout_s: float, give_back: Callable[[], None]) -> None:
    """End this process after timeout_s, whatever it is in the middle of; it may well end by itself before.

    give_back: releases what it has claimed, in a thread of its own, and gets GIVE_BACK_S.
    """

    def leave() -> None:
        time.sleep(timeout_s)
        log.warning("still at work %.0f s after it was asked to stop: what is claimed is given back", timeout_s)
        giving = threading.Thread(target=give_back, name="give-back", daemon=True)
        giving.start()
        giving.join(GIVE_BACK_S)
        logging.shutdown()
        os._exit(0)

    threading.Thread(target=leave, name="leave", daemon=True).start()


def _end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_TIMEOUT_S)
    os._exit(1)


@dataclass
class Child:
    """One process to keep running. log_file gets what it prints."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    log_file: Path
    pass_fds: tuple[int, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restart_at: float = 0.0
    pause_s: float = field(default=FIRST_PAUSE_S)

    def start(self) -> None:
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as output:
            self.process = subprocess.Popen(
                list(self.arguments),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment, PIPE_VARIABLE: "1"},
                pass_fds=self.pass_fds,
                start_new_session=True,  # Ctrl-C is the parent's to pass on, in its order
            )
        self.started_at = time.monotonic()

    def look_after(self, now: float) -> str | None:
        """Start the child again if it ended, after a pause that grows; returns a line to print when there is news."""
        if self.process is None:
            return self._start_again(now) if now >= self.restart_at else None
        status = self.process.poll()
        if status is None:
            return None
        self._forget()
        if now - self.started_at > STEADY_AFTER_S:
            self.pause_s = FIRST_PAUSE_S
        return self._put_off(now, f"{self.name} ended ({describe(status)})")

    def _start_again(self, now: float) -> str | None:
        try:
            self.start()
        except OSError as error:  # no memory, no room on the disk: it may be there the next time
            return self._put_off(now, f"{self.name} could not be started ({error.strerror})")
        return None

    def _put_off(self, now: float, what_happened: str) -> str:
        self.restart_at = now + self.pause_s
        message = f"{what_happened}; starting it again in {self.pause_s:.0f} s, see {self.log_file}"
        self.pause_s = min(2 * self.pause_s, LONGEST_PAUSE_S)
        return message

    def ask_to_stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def wait_or_kill(self, timeout_s: float) -> None:
        if self.process is None:
            return
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            log.warning("%s did not stop within %.0f s and is killed", self.name, timeout_s)
            self.process.kill()
            self.process.wait()
        self._forget()

    def _forget(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
        self.process = None


def describe(status: int) -> str:
    """An exit status in words, as Popen gives it."""
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit code {status}"

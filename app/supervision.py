"""Processes that start processes: a child that ends when its parent does, and a parent that starts it again.

A child's standard input is a pipe that only its parent holds: when the parent dies, even by kill -9, the pipe ends
and the child stops. That holds on every Unix, and leaves no orphan behind.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

log = logging.getLogger(__name__)

PIPE_VARIABLE = "PODIUM_PARENT_PIPE"  # set for a child that must end when its standard input does
STOP_TIMEOUT_S = 30.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
STEADY_AFTER_S = 60.0  # a child that lived so long has earned a quick restart


def end_with_parent() -> None:
    """In a child: stop when the parent is gone, by the signal that asks for a clean stop, and hard if that hangs."""
    if os.environ.pop(PIPE_VARIABLE, None) is None:
        return

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(STOP_TIMEOUT_S)
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


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
            if now >= self.restart_at:
                self.start()
            return None
        status = self.process.poll()
        if status is None:
            return None
        self._forget()
        if now - self.started_at > STEADY_AFTER_S:
            self.pause_s = FIRST_PAUSE_S
        self.restart_at = now + self.pause_s
        message = (
            f"{self.name} ended ({describe(status)}); starting it again in {self.pause_s:.0f} s, see {self.log_file}"
        )
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

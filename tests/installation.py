"""A real `podium up` in a home of its own, as a test's stage: what it prints, its processes, its database."""

import contextlib
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from app import embedded_postgres
from tests.faults.processes import children_of, command_of


@dataclass
class Installation:
    """A running `podium up`."""

    home: Path
    process: "subprocess.Popen[str]"
    lines: "queue.Queue[str]"
    address: str = ""

    def line(self, beginning: str) -> str:
        """The next line it prints that begins so."""
        while True:
            line = self.lines.get(timeout=120)
            assert line is not None, "podium up ended"
            if line.startswith(beginning):
                return line

    def child(self, words: str) -> int:
        """The process id of the child whose command has these words."""
        return next(pid for pid in children_of(self.process.pid) if words in command_of(pid))

    def answers(self, path: str = "/readyz") -> bool:
        try:
            return httpx.get(self.address + path, timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    @property
    def database_url(self) -> str:
        return embedded_postgres.start(self.home / "postgres")

    @property
    def postmaster(self) -> int:
        return int((self.home / "postgres" / "data" / "postmaster.pid").read_text().split()[0])


@pytest.fixture
def installation() -> Iterator[Installation]:
    home = Path(tempfile.mkdtemp(prefix="podium up "))
    kept = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "up", "--port", "0"],
        env={**kept, "PODIUM_HOME": str(home), "PODIUM_DEVICE": "cpu", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=lambda: [lines.put(line.strip()) for line in process.stdout or ()])
    reader.start()
    running = Installation(home, process, lines)
    try:
        running.address = running.line("Podium is at ").removeprefix("Podium is at ")
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        process.kill()
        process.wait()
        reader.join()
        assert process.stdout is not None
        process.stdout.close()
        embedded_postgres.stop(home / "postgres")
        shutil.rmtree(home, ignore_errors=True)

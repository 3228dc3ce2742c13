"""A recipe as a process of its own: started, followed, stopped, and its end explained. Knows no database.

The recipe reads a pipe that only this process holds, so it dies with it; what it prints goes into the round folder.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from trainer.recipes.program import EXIT_LOCKED, EXIT_NAMED, EXIT_TERMINATED
from trainer.round_folder import BrokenRoundFolder, RoundFolder, read_json

NICENESS = 10  # labelers come before a round
NUM_LAST_LINES = 20
LOG_BYTES_READ = 20_000
SHUTDOWN_S = 100  # several processes are ended after this, when asked to stop
CHECKED_BYTES = 64  # before the position of a tail: the file was cut back and written anew if they differ

__all__ = [
    "EXIT_LOCKED",
    "EXIT_NAMED",
    "EXIT_TERMINATED",
    "Positions",
    "RecipeProcess",
    "Tail",
    "explain",
    "is_worth_another_try",
]


class RecipeProcess:
    """One run of a recipe on a folder."""

    def __init__(self, recipe: str, folder: RoundFolder, *, ids: str = "") -> None:
        """ids: what its log is about, "stage=12 attempt=1"; each of its lines that has a time carries them."""
        self.log_file = folder.path / "recipe.log"
        with self.log_file.open("ab") as output:
            self._process = subprocess.Popen(
                command(recipe, folder),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    "PODIUM_WORKER_PIPE": "1",
                    "PODIUM_LOG_IDS": ids,
                    "TOKENIZERS_PARALLELISM": "false",
                    "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SHUTDOWN_S),
                },
                start_new_session=True,  # Ctrl-C is for the worker, which passes on what it wants
            )
        os.setpriority(os.PRIO_PROCESS, self._process.pid, NICENESS)

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def ask_to_stop(self) -> None:
        """It saves a checkpoint at the next step's border and ends with EXIT_TERMINATED."""
        if self.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it now; its last checkpoint stands."""
        if self.poll() is None:
            self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """After its end: let the pipe go."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def last_lines(self) -> str:
        """The end of what it printed."""
        with self.log_file.open("rb") as file:
            file.seek(max(0, self.log_file.stat().st_size - LOG_BYTES_READ))
            text = file.read().decode(errors="replace").replace("\x00", "")
        return "\n".join(text.splitlines()[-NUM_LAST_LINES:])


def command(recipe: str, folder: RoundFolder) -> list[str]:
    """What starts the recipe: itself, or the launcher of as many processes as the stage asks for."""
    module = f"trainer.recipes.{recipe}"
    num_processes = getattr(folder.read_stage().config, "num_processes", 1)
    if num_processes == 1:
        return [sys.executable, "-m", module, str(folder.path)]
    return [sys.executable, "-m", "trainer.launch", str(num_processes), recipe, str(folder.path)]


def is_worth_another_try(status: int) -> bool:
    """Whether a signal ended it: somebody's kill, or memory that another process took; the checkpoint stands."""
    return status < 0 or status == EXIT_TERMINATED


def explain(status: int, folder: RoundFolder, last_lines: str) -> dict[str, Any]:
    """Why a recipe failed, as the stage stores it: {"code", "message", "advice", "last_lines"}."""
    if status == EXIT_NAMED:
        try:
            return {**read_json(folder.path / "error.json"), "last_lines": last_lines}
        except BrokenRoundFolder:  # a full disk may have left no room for it
            message = last_lines.splitlines()[-1] if last_lines else "the recipe failed"
            advice = "look at the last lines, make room on the disk, and resume the round"
            return {"code": "recipe_failed", "message": message, "advice": advice, "last_lines": last_lines}
    if status == -signal.SIGKILL:
        return {
            "code": "killed",
            "message": "the recipe was killed, most likely because the machine's memory ran out",
            "advice": "stop what else runs there and resume, or retry the stage with lower micro_batch_tokens",
            "last_lines": last_lines,
        }
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with exit code {status}"
    return {
        "code": "recipe_crashed",
        "message": f"the recipe {how}",
        "advice": "look at the last lines; resume the round once their cause is gone",
        "last_lines": last_lines,
    }


class Tail:
    """Reads a growing file of JSON lines; notices when it was cut back, and then reads it again from its start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0
        self._before = b""  # the last bytes before the position

    def read(self) -> list[dict[str, Any]]:
        """The whole lines that are new since the last call."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return []
        with file:
            file.seek(self._position - len(self._before))
            if file.read(len(self._before)) != self._before:
                self._position, self._before = 0, b""
                file.seek(0)
            new = file.read()
        new = new[: new.rfind(b"\n") + 1]
        self._position += len(new)
        self._before = (self._before + new)[-CHECKED_BYTES:]
        return [json.loads(line) for line in new.splitlines()]


class Positions:
    """Numbers the sample rows of each step, across reads."""

    def __init__(self) -> None:
        self._step: int | None = None
        self._next = 0

    def number(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for row in rows:
            if row["step"] != self._step:
                self._step, self._next = row["step"], 0
            row["position"] = self._next
            self._next += 1
        return rows

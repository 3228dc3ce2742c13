"""Starts a recipe in several processes on this machine, by torch's elastic launcher, and ends as they end.

    python -m trainer.launch <processes> <recipe> <folder>

torchrun does the same and always ends with 1. Here the exit status is that of the process that failed first, and a
signal is passed on as one: the worker tells by it a stage that failed from one that was killed.
"""

import os
import signal
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from trainer.recipes.program import EXIT_LOCKED, EXIT_NAMED, EXIT_TERMINATED


def launch(num_processes: int, recipe: str, folder: str) -> int:
    """The exit status, negative for a signal."""
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_processes,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    error_before = error_written_at(folder)
    try:
        elastic_launch(config, sys.executable)("-m", f"trainer.recipes.{recipe}", folder)
    except ChildFailedError as error:
        statuses = [failure.exitcode for failure in error.failures.values()]
        if error_written_at(folder) not in (None, error_before):
            # Whoever named the failure is not among those that ended: the others noticed that it was on its way out.
            statuses.append(EXIT_NAMED)
        return cause_among(statuses)
    except SignalException:
        return EXIT_TERMINATED
    return 0


def error_written_at(folder: str) -> int | None:
    """When a recipe last wrote why it failed, in nanoseconds; None where there is no such file."""
    try:
        return (Path(folder) / "error.json").stat().st_mtime_ns
    except FileNotFoundError:
        return None


def cause_among(statuses: Sequence[int]) -> int:
    """The status that says why: a named failure or a kill, not what the others made of it when they were alone.

    Those that wait for one which failed are ended: by SIGTERM, and by SIGKILL where they do not heed it.
    """
    named = [status for status in statuses if status in (EXIT_NAMED, EXIT_LOCKED)]
    kills = [status for status in statuses if status < 0 and status != -signal.SIGTERM]
    return (named or kills or list(statuses))[0]


def main() -> None:
    number, recipe, folder = sys.argv[1:]
    status = launch(int(number), recipe, folder)
    if status < 0:
        os.kill(os.getpid(), -status)
    sys.exit(status)


if __name__ == "__main__":
    main()

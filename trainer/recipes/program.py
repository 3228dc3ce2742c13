"""The shell around every recipe: one folder as argument, one exit code, one way to fail.

Exit codes: 0 the result is there; 1 an error nobody foresaw (the traceback is on stderr); 2 wrong arguments; 3 failed
for a named reason (error.json); 4 another process runs this stage; 143 stopped by SIGTERM, a checkpoint saved.
"""

import dataclasses
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

import torch

from trainer import team
from trainer.errors import StageError
from trainer.memory import advice_on, estimate, shape_of
from trainer.round_folder import DiskFull, FolderLocked, RoundFolder, Stage, disk_errors
from trainer.settings import ConfigError

EXIT_USAGE, EXIT_NAMED, EXIT_LOCKED, EXIT_TERMINATED = 2, 3, 4, 143


class OutOfMemory(StageError):
    """The machine or the device has no memory left for this model and batch."""

    code = "out_of_memory"

    def __init__(self, device: str, needed_gb: float | None = None, advice: str = "") -> None:
        """needed_gb: an estimate, where one could be made."""
        estimate = "" if needed_gb is None else f"; it needs about {needed_gb:.1f} GB"
        super().__init__(
            f"the recipe ran out of memory on {device}{estimate}",
            advice=advice or "lower micro_batch_tokens, which changes nothing else, or use a smaller model",
        )


class DeviceMissing(StageError):
    """The stage asks for a device that this machine does not have."""

    code = "device_missing"

    def __init__(self, device: str) -> None:
        super().__init__(
            f"this machine has no {device} device", advice="run the stage on the CPU or on another machine"
        )


class TooFewDevices(StageError):
    """The stage is to run in more processes than this machine has GPUs."""

    code = "too_few_devices"

    def __init__(self, num_processes: int, num_devices: int) -> None:
        super().__init__(
            f"the stage is to run in {num_processes} processes on this machine, which has {num_devices} GPUs",
            advice="lower num_processes to the number of GPUs",
        )


class Interrupted(Exception):
    """The recipe was asked to stop and has saved what it needs to go on."""


class Interrupt:
    """Whether somebody asked the recipe to stop: it looks at the border of each step."""

    def __init__(self) -> None:
        self.requested = False

    def listen(self) -> None:
        """From now on SIGTERM asks."""
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        self.requested = True


Recipe = Callable[[RoundFolder, Stage, Interrupt], None]


def run_recipe(recipe: Recipe) -> NoReturn:
    """Run a recipe on the folder named on the command line, and leave with its exit code."""
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "stage.json").is_file():
        print(
            f"usage: python -m trainer.recipes.<name> <round folder with a stage.json>; got {sys.argv[1:]}",
            file=sys.stderr,
        )
        sys.exit(EXIT_USAGE)
    interrupt = Interrupt()
    interrupt.listen()
    log_with_ids(os.environ.get("PODIUM_LOG_IDS", ""))
    if os.environ.get("PODIUM_WORKER_PIPE") == "1":
        die_with_worker()
    sys.exit(run_in_folder(recipe, RoundFolder(sys.argv[1], is_writer=team.is_first()), interrupt))


def log_with_ids(ids: str) -> None:
    """Every line that is logged from now on says of which stage it is, and when: several tries share one recipe.log."""
    known = "".join(f" {word}" for word in ids.replace("%", "%%").split())
    logging.basicConfig(level=logging.WARNING, format=f"%(asctime)s %(levelname)s %(name)s %(message)s{known}")
    logging.getLogger("trainer").setLevel(logging.INFO)
    logging.getLogger(__name__).info("the recipe starts, pid=%s", os.getpid())


def run_in_folder(recipe: Recipe, folder: RoundFolder, interrupt: Interrupt) -> int:
    """Run the recipe, turn its errors into error.json, and return the exit code. A finished stage is left as it is."""
    try:
        with folder.locked():
            if folder.is_finished:
                return 0
            if folder.is_writer:
                folder.clear_error()
            return run_locked(recipe, folder, interrupt)
    except FolderLocked as error:
        print(error.message, file=sys.stderr)
        return EXIT_LOCKED


def run_locked(recipe: Recipe, folder: RoundFolder, interrupt: Interrupt) -> int:
    stage = None
    try:
        stage = folder.read_stage()
        prepare_torch(stage)
        with disk_errors(folder.path):
            recipe(folder, stage, interrupt)
    except Interrupted:
        return EXIT_TERMINATED
    except ConfigError as error:
        return fail(folder, error.code, str(error), "retry the stage with that setting changed")
    except StageError as error:
        return fail(folder, error.code, error.message, error.advice)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        named = OutOfMemory("this machine") if stage is None else out_of_memory(stage)
        return fail(folder, named.code, named.message, named.advice)
    return 0


def out_of_memory(stage: Stage) -> OutOfMemory:
    """With an estimate and the setting to lower, where the model's configuration can be read."""
    described = Path(next(iter(stage.models.values()), "")) / "config.json"
    try:
        shape = shape_of(json.loads(described.read_text()))
    except (OSError, ValueError, KeyError):
        return OutOfMemory(stage.device)
    settings = dataclasses.asdict(stage.config)
    from trainer.reward_store import is_ensemble

    by_ensemble = is_ensemble(Path(stage.models.get("reward_model", "")))
    needed = estimate(stage.recipe, shape, settings, device=stage.device, by_ensemble=by_ensemble)
    return OutOfMemory(stage.device, needed.total, advice_on(stage.recipe, settings, needed))


def fail(folder: RoundFolder, code: str, message: str, advice: str) -> int:
    print(f"{message}; {advice}", file=sys.stderr)
    try:
        folder.write_error(code, message, advice)
    except DiskFull as error:  # then stderr has to do
        print(error.message, file=sys.stderr)
    return EXIT_NAMED


def is_out_of_memory(error: BaseException) -> bool:
    known = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, known) or "not enough memory" in str(error) or "can't allocate memory" in str(error)


def prepare_torch(stage: Stage) -> None:
    """Threads, seed and deterministic kernels: on the CPU the same stage gives the same bits. Raises DeviceMissing."""
    if stage.device == "cuda" and not torch.cuda.is_available():
        raise DeviceMissing(stage.device)
    if stage.device == "cuda" and torch.cuda.device_count() < team.size_here():
        raise TooFewDevices(team.size_here(), torch.cuda.device_count())
    team.join(stage.device)
    torch.set_num_threads(max(1, stage.num_threads // team.size_here()))
    torch.use_deterministic_algorithms(stage.device == "cpu")
    torch.manual_seed(stage.seed)


def die_with_worker() -> None:
    """Leave at once when the worker's end of stdin closes: nobody would take the result."""

    def wait_for_end() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        os._exit(1)

    threading.Thread(target=wait_for_end, daemon=True, name="worker pipe").start()

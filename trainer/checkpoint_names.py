"""What checkpoints are called, for who writes them and for who only looks how far a stage has come.

Apart from `trainer.checkpoints`, which loads torch: a worker that looks does not.
"""

from pathlib import Path

OF_STEP = "step-"  # the step follows in eight digits, so that names sort


def checkpoint_name(step: int) -> str:
    """The folder's name of what is saved after so many steps."""
    return f"{OF_STEP}{step:08d}"


def step_of(checkpoint: Path) -> int:
    """After how many steps the checkpoint was written."""
    return int(checkpoint.name.removeprefix(OF_STEP))


def saved_checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints in the folder, the newest last."""
    return sorted(folder.glob(f"{OF_STEP}????????"))

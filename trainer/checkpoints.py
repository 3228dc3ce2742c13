"""Resumable state of a recipe: tensors in safetensors, everything else in JSON, never a pickle.

A checkpoint is written aside, brought to the disk and renamed, so a folder with its final name is whole whatever
happened; the last two are kept. Knows nothing of what the tensors mean.
"""

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trainer import team
from trainer.checkpoint_names import checkpoint_name, saved_checkpoints, step_of
from trainer.errors import StageError
from trainer.parts import divided_like, gathered
from trainer.round_folder import disk_errors, sync

KEPT = 2


class NotFinite(StageError):
    """A loss, a score or a gradient is NaN or infinite: what would be learned from here on is nothing."""

    code = "not_finite"

    def __init__(self, what: str, step: int) -> None:
        super().__init__(
            f"{what} became NaN or infinite at step {step}",
            advice="retry the stage with a lower learning rate; the last good checkpoint is kept",
        )


def require_finite(step: int, **values: float | Tensor) -> None:
    """Raises NotFinite for the first value that is NaN or infinite."""
    for name, value in values.items():
        finite = bool(torch.isfinite(value).all()) if isinstance(value, Tensor) else math.isfinite(value)
        if not finite:
            raise NotFinite(name.replace("_", " "), step)


@dataclass(frozen=True)
class Checkpoint:
    """What was saved after a step: named tensors and JSON values."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one stage."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        if not team.is_first():
            return
        for aside in folder.glob("*.tmp"):  # what a killed run had begun
            shutil.rmtree(aside)

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Keep everything under this step, and drop the oldest.

        Of the processes of one stage the first writes, for all, and the others wait: one that ended meanwhile, as it
        was asked to stop, would have the launcher end the first too. What they hold in parts is written whole, so that
        any number of them may go on from it.
        Raises DiskFull, having removed what was written: the checkpoint before it stands.
        """
        tensors = gathered(tensors, keep=team.is_first())
        if team.is_first():
            self._write(step, tensors, state)
        team.wait()

    def _write(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        final = self.folder / checkpoint_name(step)
        aside = final.with_suffix(".tmp")
        try:
            with disk_errors(final):
                aside.mkdir()
                save_file(
                    {name: tensor.contiguous() for name, tensor in tensors.items()},
                    aside / "tensors.safetensors",
                )
                (aside / "state.json").write_text(json.dumps(dict(state), allow_nan=False), encoding="utf-8")
                for path in (aside / "tensors.safetensors", aside / "state.json", aside):
                    sync(path)
                if final.exists():  # the same step again, after a resume: same bits
                    shutil.rmtree(final)
                aside.rename(final)
                sync(self.folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        for old in self.saved()[:-KEPT]:
            shutil.rmtree(old)

    def load_latest(self) -> Checkpoint | None:
        """The last checkpoint, or None at the start of a stage."""
        saved = self.saved()
        if not saved:
            return None
        return Checkpoint(
            step=step_of(saved[-1]),
            tensors=load_file(saved[-1] / "tensors.safetensors"),
            state=json.loads((saved[-1] / "state.json").read_text(encoding="utf-8")),
        )

    def saved(self) -> list[Path]:
        return saved_checkpoints(self.folder)


def model_tensors(model: nn.Module, prefix: str) -> dict[str, Tensor]:
    """The parameters that a model learns, tied ones once; a frozen trunk is saved by nobody who sits on it."""
    return {f"{prefix}.{name}": parameter.detach() for name, parameter in learned_parameters(model)}


def divided_as_learned(model: nn.Module, tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Saved parameters, of which each process keeps the part that it has of the model's; others stay where they are."""
    learned = model_tensors(model, prefix)
    return {name: divided_like(learned[name], tensor) for name, tensor in tensors.items()}


def load_model_tensors(model: nn.Module, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Copy saved parameters into the model, in place."""
    with torch.no_grad():
        for name, parameter in learned_parameters(model):
            parameter.copy_(divided_like(parameter, tensors[f"{prefix}.{name}"]))


def learned_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Name and parameter of what is not frozen."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """An optimiser's state of each parameter; what its groups hold (rates) is a function of the step and not saved."""
    return {
        f"{prefix}.{index}.{name}": value
        for index, slots in optimizer.state_dict()["state"].items()
        for name, value in slots.items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Give an optimiser over the same parameters the state it was saved with."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(f"{prefix}."):
            index, name = key.removeprefix(f"{prefix}.").split(".")
            parameter = parameters[int(index)]
            is_of_each_number = value.shape == parameter.shape  # Adam's moments, and not its number of steps
            slots.setdefault(int(index), {})[name] = divided_like(parameter, value) if is_of_each_number else value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})

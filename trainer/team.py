"""The processes that run one stage together, one a GPU: each does its share of the work and hears of the others'.

Every process reads the same folder and makes the same plans from the same seeds, so there is nothing to hand out. What
one has computed is gathered, gradients are added up, and all go on with the same numbers, to the bit; only the first
writes. Alone, nothing here does anything. The collectives are Accelerate's; torchrun starts the processes.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from trainer.parts import is_part

Item = TypeVar("Item")
Result = TypeVar("Result")

# How long the others wait for one of them: NCCL's ten minutes would end a stage whose first process writes a large
# checkpoint or waits for a rollout server. Who fails ends the others through its launcher, at once.
PATIENCE = timedelta(hours=6)


def size() -> int:
    """How many processes run the stage. torchrun tells each by its environment."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Whether this process writes what the stage leaves."""
    return rank() == 0


def size_here() -> int:
    """How many of them run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def join(device: str) -> None:
    """Meet the other processes: NCCL between GPUs, of which each process takes its own, gloo between CPUs."""
    if size() > 1:
        from accelerate import PartialState

        PartialState(cpu=device == "cpu", timeout=PATIENCE)


def share(work: Iterable[Item]) -> list[Item]:
    """This process's part of the work: every so many-th, so that parts in order of size are dealt out evenly."""
    return [item for item, is_own in turns(work) if is_own]


def turns(work: Iterable[Item]) -> list[tuple[Item, bool]]:
    """Its part of the work in as many turns as every other process takes: (item, whether it is its own).

    All compute a sharded model at once or none does. Who has nothing left does an item of another's again: that must
    count nothing.
    """
    items = list(work)
    places = range(rank(), -(-len(items) // size()) * size(), size())
    return [(items[place], True) if place < len(items) else (items[-1], False) for place in places]


def each(work: Iterable[Item], measure: Callable[[Item], Result]) -> list[Result]:
    """What `measure` makes of each item, in their order: the processes share the work, in as many turns each."""
    measured = [(measure(item), is_own) for item, is_own in turns(work)]
    return collect([result for result, is_own in measured if is_own])


def collect(mine: Sequence[Item]) -> list[Item]:
    """What all processes made of their shares, in the order of the work that was shared."""
    if size() == 1:
        return list(mine)
    from accelerate.utils import gather_object

    gathered: list[Any] = gather_object([list(enumerate(mine))])
    numbered = [(place * size() + who, item) for who, own in enumerate(gathered) for place, item in own]
    return [item for _, item in sorted(numbered, key=lambda pair: pair[0])]


def add_up(values: Tensor) -> Tensor:
    """The sum over the processes, element by element."""
    if size() == 1:
        return values
    from accelerate.utils import reduce

    summed: Tensor = reduce(values, reduction="sum")
    return summed


def add_numbers(*numbers: float) -> list[float]:
    """Each number's sum over the processes."""
    if size() == 1:
        return list(numbers)
    from accelerate import PartialState

    return add_up(torch.tensor(numbers, dtype=torch.float64, device=PartialState().device)).tolist()


def add_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Make every process's gradients the sum of all: each had added those of its share.

    Those of parameters that are sharded were added up as they came.
    """
    if size() == 1:
        return
    for parameter in parameters:
        if is_part(parameter):
            continue
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        parameter.grad = add_up(gradient)


def any_of(claim: bool) -> bool:
    """Whether it holds in any process: all must agree to stop."""
    return add_numbers(float(claim))[0] > 0


def wait() -> None:
    """Until all processes are here."""
    if size() > 1:
        from accelerate.utils import wait_for_everyone

        wait_for_everyone()

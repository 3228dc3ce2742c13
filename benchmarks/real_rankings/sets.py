"""What is measured: which prompts are held out together, from which trunk, and the ways to fit that are tried."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.real_rankings.base import Shape
from benchmarks.real_rankings.fits import Variant
from benchmarks.real_rankings.sources import JudgedPrompt, read_convarg, read_qa_feedback

NUM_FOLDS = 5
NUM_MEMBERS = 2  # reward models of a fold, each with another fold to stop by

WORDS = Shape()


@dataclass(frozen=True)
class JudgedSet:
    """Judged prompts; those of one group are held out together."""

    read: Callable[[Path], list[JudgedPrompt]]
    shape: Shape
    variants: Sequence[Variant]


def read_convarg_by_side(folder: Path) -> list[JudgedPrompt]:
    """A side of a debate is held out alone: the other may be learned from."""
    return [dataclasses.replace(prompt, group=prompt.text) for prompt in read_convarg(folder)]


ARGUMENTS = [
    Variant(
        "reward alone",
        {"learning_rate": 2e-4, "batch_size": 32, "num_epochs": 1, "evaluations_per_epoch": 10, "patience": 4},
    ),
]
QUESTIONS = [
    Variant(
        "reward alone",
        {"learning_rate": 1e-4, "batch_size": 16, "num_epochs": 4, "evaluations_per_epoch": 2, "patience": 4},
    ),
]
SETS = {
    "qa_feedback": JudgedSet(read_qa_feedback, WORDS, QUESTIONS),
    "convarg": JudgedSet(read_convarg, WORDS, ARGUMENTS),
    "convarg by side": JudgedSet(read_convarg_by_side, WORDS, ARGUMENTS),
}

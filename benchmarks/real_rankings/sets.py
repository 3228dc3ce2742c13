"""What is measured: which prompts are held out together, from which trunk and by which settings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.real_rankings.base import Shape, make_reader, make_speller
from benchmarks.real_rankings.sources import JudgedPrompt, read_convarg, read_qa_feedback
from trainer.settings import Value

NUM_FOLDS = 5

Prose = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class JudgedSet:
    """Judged prompts; those of one group are held out together."""

    read: Callable[[Path], list[JudgedPrompt]]
    base: Callable[[Path, Prose], str]  # makes the policy to start from in a folder of stages
    settings: Mapping[str, Value]  # of the reward stage, over the preset `small`
    num_members: int  # reward models of a fold, each with another of the other folds to stop by


def reader(work: Path, prose: Prose) -> str:
    return make_reader(work, prose, Shape(), seed=0)


def speller(work: Path, prose: Prose) -> str:
    return make_speller(work, Shape(vocabulary=261, width=64, layers=1, context=1280), seed=0)


# What docs/science.md says of the tries these come from.
ARGUMENTS = {
    "learning_rate": 1.2e-3,
    "batch_size": 96,
    "num_epochs": 1,
    "warmup": 0.1,
    "evaluations_per_epoch": 13,
    "patience": 4,
}
QUESTIONS = {"learning_rate": 1e-4, "num_epochs": 4, "evaluations_per_epoch": 2, "patience": 4}
SETS = {
    "convarg": JudgedSet(read_convarg, speller, ARGUMENTS, num_members=4),
    "qa_feedback": JudgedSet(read_qa_feedback, reader, QUESTIONS, num_members=2),
}

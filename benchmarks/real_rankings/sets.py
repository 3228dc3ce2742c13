"""What is measured: which prompts are held out together, and by which settings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.real_rankings.sources import JudgedPrompt, read_convarg, read_qa_feedback
from trainer.settings import Value

NUM_FOLDS = 5
NUM_MEMBERS = 4  # reward models of a fold, each with another of the other folds to stop by


@dataclass(frozen=True)
class JudgedSet:
    """Judged prompts; those of one group are held out together."""

    read: Callable[[Path], list[JudgedPrompt]]
    settings: Mapping[str, Value]  # of the reward stage, over the preset `small`


# What docs/science.md says of the tries these come from.
ARGUMENTS = {
    "tuning": "lora",
    "learning_rate": 1e-3,
    "batch_size": 96,
    "num_epochs": 2,
    "warmup": 0.1,
    "evaluations_per_epoch": 13,
    "patience": 10,
}
QUESTIONS = {"tuning": "lora", "learning_rate": 3e-4, "num_epochs": 4, "evaluations_per_epoch": 4, "patience": 8}
SETS = {"convarg": JudgedSet(read_convarg, ARGUMENTS), "qa_feedback": JudgedSet(read_qa_feedback, QUESTIONS)}

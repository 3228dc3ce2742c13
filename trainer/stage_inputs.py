"""What policy recipes read from their round folder: prompts that fit the context, and the unit of the scores."""

import math
from pathlib import Path

from transformers import PreTrainedModel

from trainer.errors import StageError
from trainer.round_folder import PromptRow, RoundFolder, Split, read_json


class NoPrompts(StageError):
    """A split that the recipe needs has no prompt."""

    code = "no_prompts"

    def __init__(self, split: str, num_too_long: int) -> None:
        super().__init__(
            f"the {split} split has no prompt that fits into the policy's context ({num_too_long} are too long)",
            advice="import more prompts, or allow shorter completions, and start the round again",
        )


class FlatScores(StageError):
    """The reward model gives every completion the same score."""

    code = "flat_scores"

    def __init__(self, path: str) -> None:
        super().__init__(
            f"the reward model at {path} gives every completion the same score: there is nothing to learn from it",
            advice="fit a reward model to more rankings first",
        )


def prompts_that_fit(
    folder: RoundFolder, model: PreTrainedModel, max_completion_tokens: int, split: Split
) -> tuple[list[PromptRow], int]:
    """The split's prompts that leave room for a completion, and how many do not: they are counted, never cut.

    Raises NoPrompts if none is left.
    """
    context = getattr(model.config, "max_position_embeddings", None)
    room = math.inf if context is None else context - max_completion_tokens
    rows = [row for row in folder.read_prompts() if row.split == split]
    fitting = [row for row in rows if len(row.prompt_ids) <= room]
    if not fitting:
        raise NoPrompts(split, num_too_long=len(rows))
    return fitting, len(rows) - len(fitting)


def score_std_of(reward_model: str) -> float:
    """The standard deviation of the reference policy's scores, by which scores are divided. Raises FlatScores.

    The reward recipe measured it. A reward model from elsewhere is taken as it is: 1.
    """
    described = Path(reward_model) / "result.json"
    score_std = float(read_json(described)["score_std"]) if described.is_file() else 1.0
    if not score_std > 0:
        raise FlatScores(reward_model)
    return score_std

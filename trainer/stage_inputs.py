"""What policy recipes read from their round folder: prompts that fit the context."""

import math

from transformers import PreTrainedModel

from trainer.errors import StageError
from trainer.round_folder import PromptRow, RoundFolder, Split


class NoPrompts(StageError):
    """A split that the recipe needs has no prompt."""

    code = "no_prompts"

    def __init__(self, split: str, num_too_long: int) -> None:
        super().__init__(
            f"the {split} split has no prompt that fits into the policy's context ({num_too_long} are too long)",
            advice="import more prompts, or allow shorter completions, and start the round again",
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

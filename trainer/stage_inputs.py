"""What policy recipes read from their round folder: prompts that fit the context, models that speak one language."""

import math
from pathlib import Path

from transformers import PreTrainedModel

from trainer.classifier_heads import is_encoder
from trainer.encoders import ReadsPairs
from trainer.errors import StageError
from trainer.models import load_tokenizer, tokenizer_hash
from trainer.round_folder import PromptRow, RoundFolder, Split, Stage


class NoPrompts(StageError):
    """A split that the recipe needs has no prompt."""

    code = "no_prompts"

    def __init__(self, split: str, num_too_long: int) -> None:
        super().__init__(
            f"the {split} split has no prompt that fits into the policy's context ({num_too_long} are too long)",
            advice="import more prompts, or allow shorter completions, and start the round again",
        )


class OtherTokenizer(StageError):
    """Two models of the stage read different tokens: what one wrote would mean something else to the other."""

    code = "other_tokenizer"

    def __init__(self, name: str, path: str, policy_path: str) -> None:
        super().__init__(
            f"the {name.replace('_', ' ')} at {path} has another tokenizer than the policy at {policy_path}",
            advice="fit a reward model to this policy in the same round: choose the stage reward too"
            if name == "reward_model"
            else "give the round policies of one tokenizer: what was made from one policy keeps its tokenizer",
        )


class NoRewardModel(StageError):
    """The stage is to be judged by a score and has nothing that gives one."""

    code = "no_reward_model"

    def __init__(self, recipe: str) -> None:
        super().__init__(
            f"the stage {recipe} is to be judged by a reward model and has none",
            advice="fit one in an earlier round, or choose sft.select_by=loss",
        )


def require_one_tokenizer(stage: Stage) -> None:
    """Compare the tokenizers of all models of the stage, before anything slow: ids pass between them as they are.

    The first model is what the others are compared with.
    Raises ReadsPairs, OtherTokenizer, ModelNotFound, UnsupportedModel.
    """
    for path in stage.models.values():
        if Path(path).is_dir() and is_encoder(Path(path)):
            raise ReadsPairs(path)
    (_, first), *others = stage.models.items()
    expected = tokenizer_hash(load_tokenizer(first))
    for name, path in others:
        if path != first and tokenizer_hash(load_tokenizer(path)) != expected:
            raise OtherTokenizer(name, path, first)


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

"""PPO-ptx: beside its updates the policy goes on learning the text it was pretrained on (InstructGPT, eq. 2 and C.4).

Knows the round folder's rows and no recipe.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from transformers import PreTrainedModel

from trainer import team
from trainer.draws import passes
from trainer.errors import StageError
from trainer.fitting import autocast
from trainer.imitation import Example, batches_of, count_learned, logprobs_of
from trainer.round_folder import BrokenRoundFolder, PretrainingRow, RoundFolder
from trainer.settings import PPOConfig
from trainer.shared_prompt import context_tokens


class NoPretrainingText(StageError):
    """The stage is to learn pretraining text beside PPO, and there is none."""

    code = "no_pretraining_text"

    def __init__(self, coef: float) -> None:
        super().__init__(
            f"ppo.ptx_coef={coef:g} asks for pretraining text, and data/pretraining.parquet has none",
            advice="name a text to learn from in the trainer's settings, or set ppo.ptx_coef=0, and start a new round",
        )


@dataclass(frozen=True)
class PretrainingMix:
    """The texts, and how much of them an update learns."""

    examples: list[Example]
    config: PPOConfig
    seed: int

    def add_gradients(self, policy: PreTrainedModel, num_episodes: int, update: int) -> dict[str, float]:
        """Add the gradient of one update's texts, weighted; ptx_ratio of them for each episode of the update.

        update: its number in the stage, which says the texts. The loss is their mean over tokens, as that of PPO is.
        """
        count = self.config.ptx_ratio * num_episodes
        drawn = passes(len(self.examples), update * count, count, "pretraining", self.seed)
        examples = [self.examples[i] for i in drawn]
        num_learned, loss = count_learned(examples), 0.0
        for batch, is_own in team.turns(batches_of(examples, self.config.micro_batch_tokens)):
            with autocast(policy.device):
                part = is_own * -logprobs_of(policy, batch).sum() / num_learned
            (self.config.ptx_coef * part).backward()  # type: ignore[no-untyped-call]
            loss += part.item()
        return {"ptx_loss": team.add_numbers(loss)[0]}


def read_pretraining_mix(
    folder: RoundFolder, policy: PreTrainedModel, config: PPOConfig, seed: int
) -> PretrainingMix | None:
    """The stage's mix; None where it is to learn none. Raises NoPretrainingText."""
    if not config.ptx_coef:
        return None
    try:
        rows = folder.read_pretraining()
    except BrokenRoundFolder as error:
        raise NoPretrainingText(config.ptx_coef) from error
    examples = list(examples_of(rows, context_tokens(policy)))
    if not examples:
        raise NoPretrainingText(config.ptx_coef)
    return PretrainingMix(examples, config, seed)


def examples_of(rows: Iterable[PretrainingRow], context: float) -> Iterable[Example]:
    """Every token of a text is learned but its first, which nothing stands before. Longer texts come in pieces."""
    for row in rows:
        length = int(min(context, len(row.token_ids)))
        for start in range(0, len(row.token_ids) - 1, max(1, length)):
            piece = row.token_ids[start : start + length]
            if len(piece) > 1:
                yield Example(prompt_ids=piece[:1], completion_ids=piece[1:])

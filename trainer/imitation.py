"""Learning to write given completions: what supervised fine-tuning and rejection sampling share. Knows no recipe.

The loss counts the tokens that are learned from and no other; a batch's is the mean over all of them, micro-batched or
not, so that a long completion counts for its length.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainer import team
from trainer.fitting import autocast
from trainer.scoring import micro_batches, packed_logprobs
from trainer.shared_prompt import pack
from trainer.throughput import learning_passes, operations_of


@dataclass(frozen=True, kw_only=True)
class Example:
    """Tokens to learn from, after tokens that are only read."""

    prompt_ids: list[int]
    completion_ids: list[int]
    is_learned: list[bool] | None = None  # of the completion's tokens; None: all of them

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)

    @property
    def num_learned(self) -> int:
        return len(self.completion_ids) if self.is_learned is None else sum(self.is_learned)


def add_gradients(model: PreTrainedModel, examples: Sequence[Example], micro_batch_tokens: int) -> dict[str, float]:
    """Add the gradient of a batch's loss: the mean over all its learned tokens, however it is cut up."""
    num_learned = count_learned(examples)
    loss = 0.0
    for batch, is_own in team.turns(batches_of(examples, micro_batch_tokens)):
        with autocast(model.device):
            part = is_own * -logprobs_of(model, batch).sum() / num_learned
        part.backward()  # type: ignore[no-untyped-call]
        loss += part.item()
    tokens, forward = operations_of(model, [e.prompt_ids for e in examples], [[e.completion_ids] for e in examples])
    return {
        "loss": team.add_numbers(loss)[0],
        "num_tokens": num_learned,
        "tokens": tokens,
        "operations": forward * learning_passes(model),
    }


@torch.no_grad()
def mean_loss(model: PreTrainedModel, examples: Sequence[Example], micro_batch_tokens: int) -> float:
    """Nats a learned token."""
    batches = team.turns(batches_of(examples, micro_batch_tokens))
    total = sum(is_own * -logprobs_of(model, batch).double().sum().item() for batch, is_own in batches)
    return team.add_numbers(total)[0] / count_learned(examples)


def count_learned(examples: Sequence[Example]) -> int:
    return sum(example.num_learned for example in examples)


def batches_of(examples: Sequence[Example], micro_batch_tokens: int) -> list[list[Example]]:
    costs = [example.num_tokens for example in examples]
    return [[examples[i] for i in batch] for batch in micro_batches(costs, micro_batch_tokens)]


def logprobs_of(model: PreTrainedModel, examples: Sequence[Example]) -> Tensor:
    """(T,) nats of the learned tokens, each example by itself in the packed row. With gradients."""
    prompts, completions = [e.prompt_ids for e in examples], [[e.completion_ids] for e in examples]
    logprobs = packed_logprobs(model, pack(prompts, completions, model.device))
    if all(example.is_learned is None for example in examples):
        return logprobs
    learned = [flag for e in examples for flag in (e.is_learned or [True] * len(e.completion_ids))]
    return logprobs[torch.tensor(learned, device=logprobs.device)]

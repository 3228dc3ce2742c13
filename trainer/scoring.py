"""Scores and log probabilities of completions, each prompt read once (trainer.shared_prompt). Knows no recipe.

Everything comes in the order prompt, completion, token: M completions, T completion tokens in all.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainer import team
from trainer.losses import accumulation_dtype, token_logprobs
from trainer.models import output_layer, score_weight
from trainer.sharding import with_whole_weights
from trainer.shared_prompt import PackedSlates, pack, packed_hidden_states

MICRO_BATCH_TOKENS = 16_384

Prompts = Sequence[Sequence[int]]
Completions = Sequence[Sequence[Sequence[int]]]  # for each prompt, its completions' token ids


@with_whole_weights
def packed_scores(reward_model: PreTrainedModel, packed: PackedSlates) -> Tensor:
    """(M,) fp32 score of each completion, read at its last token: its EOS when it finished. With gradients."""
    hidden = packed_hidden_states(reward_model, packed, rows=packed.last_index)
    last, head = (
        values.to(accumulation_dtype(hidden.dtype))
        for values in (hidden[packed.last_index], score_weight(reward_model))
    )
    return (last * head).sum(dim=1)  # not a matrix product: autocast would round the scores to bf16


@with_whole_weights
def packed_logprobs(policy: PreTrainedModel, packed: PackedSlates, *, temperature: float = 1.0) -> Tensor:
    """(T,) fp32 log probability of each completion token, in nats. With gradients."""
    hidden = packed_hidden_states(policy, packed, rows=packed.read_index)
    weight, bias = output_layer(policy)
    return token_logprobs(
        hidden[packed.previous_index], weight, packed.completion_ids, output_bias=bias, temperature=temperature
    )


@torch.no_grad()
def score_completions(
    reward_model: PreTrainedModel,
    prompts: Prompts,
    completions: Completions,
    *,
    max_tokens: int = MICRO_BATCH_TOKENS,
) -> Tensor:
    """(M,) score of each completion. max_tokens: computed at once."""
    return over_batches(
        lambda packed: packed_scores(reward_model, packed), reward_model, prompts, completions, max_tokens
    )


@torch.no_grad()
def last_states(
    reward_model: PreTrainedModel,
    prompts: Prompts,
    completions: Completions,
    *,
    max_tokens: int = MICRO_BATCH_TOKENS,
) -> Tensor:
    """(M, D) the hidden state that each completion's score is read from. max_tokens: computed at once."""

    @with_whole_weights
    def states(model: PreTrainedModel, packed: PackedSlates) -> Tensor:
        return packed_hidden_states(model, packed, rows=packed.last_index)[packed.last_index]

    return over_batches(lambda packed: states(reward_model, packed), reward_model, prompts, completions, max_tokens)


@torch.no_grad()
def completion_logprobs(
    policy: PreTrainedModel,
    prompts: Prompts,
    completions: Completions,
    *,
    temperature: float = 1.0,
    max_tokens: int = MICRO_BATCH_TOKENS,
) -> Tensor:
    """(T,) log probability of each completion token, in nats. max_tokens: computed at once."""

    def logprobs(packed: PackedSlates) -> Tensor:
        return packed_logprobs(policy, packed, temperature=temperature)

    return over_batches(logprobs, policy, prompts, completions, max_tokens)


def over_batches(
    measure: Callable[[PackedSlates], Tensor],
    model: PreTrainedModel,
    prompts: Prompts,
    completions: Completions,
    max_tokens: int,
) -> Tensor:
    """What `measure` gives for packed rows of at most max_tokens, one after another; a longer slate stands alone.

    Processes of one stage share the rows.
    """
    costs = [slate_tokens(prompt, own) for prompt, own in zip(prompts, completions, strict=True)]

    def measured(batch: list[int]) -> Tensor:
        values = measure(pack([prompts[i] for i in batch], [completions[i] for i in batch], model.device))
        return values if team.size() == 1 else values.cpu()  # it would come back on the GPU of who sent it

    return torch.cat([values.to(model.device) for values in team.each(micro_batches(costs, max_tokens), measured)])


def slate_tokens(prompt: Sequence[int], completions: Sequence[Sequence[int]]) -> int:
    """Tokens that a slate costs: its prompt once, and its completions."""
    return len(prompt) + sum(len(completion) for completion in completions)


def micro_batches(costs: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Indices 0, 1, ... in as few runs of at most max_tokens as can be, and these as even as can be.

    What costs more than max_tokens stands alone.
    """
    fewest = len(_runs(costs, max_tokens))
    limit = bisect_left(range(max_tokens), True, key=lambda limit: len(_runs(costs, limit)) <= fewest)
    return _runs(costs, limit)


def _runs(costs: Sequence[int], limit: int) -> list[list[int]]:
    """Each run takes what still fits."""
    runs: list[list[int]] = []
    tokens = 0
    for index, cost in enumerate(costs):
        if not runs or tokens + cost > limit:
            runs.append([])
            tokens = 0
        runs[-1].append(index)
        tokens += cost
    return runs

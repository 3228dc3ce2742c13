"""Shared-prompt computation: a prompt is read once, and all its completions attend to it.

K completions of a prompt cost P + K*C tokens instead of K*(P + C), exactly and with gradients. Prompts and completions
lie one after another in a single packed row without padding; positions are explicit, and an attention function
registered with Transformers lets each completion see its prompt and itself. Works for every decoder that takes its
attention from Transformers' `AttentionInterface`. Knows nothing of rewards or of policies.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from trainer.errors import StageError
from trainer.last_layer import is_last_layer, reading
from trainer.packed_attention import Slate, attend

ATTENTION = "podium_shared_prompt"  # models are loaded with it; without a packed row it is Transformers' own sdpa


class SequenceTooLong(StageError):
    """A prompt and a completion together are longer than the model's context."""

    code = "sequence_too_long"

    def __init__(self, num_tokens: int, limit: int) -> None:
        super().__init__(
            f"a prompt with its completion has {num_tokens} tokens; the model reads at most {limit}",
            advice="leave out prompts this long, or use a model with a longer context",
        )


@dataclass(frozen=True)
class PackedSlates:
    """Prompts and their completions in one row: prompt 1, its completions, prompt 2, its completions, and so on.

    Completion tokens are counted in that order too: T is their number over all prompts, M the number of completions.
    """

    input_ids: Tensor  # (1, N) int64
    position_ids: Tensor  # (1, N) int64; every completion starts where its prompt ended
    slates: tuple[Slate, ...]
    token_index: Tensor  # (T,) where in the row each completion token lies
    previous_index: Tensor  # (T,) where the token before it lies: the prompt's last token for a completion's first
    read_index: Tensor  # (R,) previous_index with each place once, ascending
    completion_lengths: Tensor  # (M,) int64

    @property
    def completion_ids(self) -> Tensor:
        """(T,) the completions' tokens, one completion after another."""
        return self.input_ids[0, self.token_index]

    @property
    def last_index(self) -> Tensor:
        """(M,) where in the row each completion's last token lies."""
        return self.token_index[self.completion_lengths.cumsum(0) - 1]


def pack(
    prompts: Sequence[Sequence[int] | Tensor],
    completions: Sequence[Sequence[Sequence[int] | Tensor]],
    device: torch.device | str = "cpu",
) -> PackedSlates:
    """Lay prompts and their completions out in one row.

    prompts: B sequences of token ids.  completions: for each prompt its completions' token ids.
    Raises ValueError for an empty prompt, an empty completion, or a prompt without completions.
    """
    ids: list[int] = []
    positions: list[int] = []
    token_index: list[int] = []
    previous_index: list[int] = []
    read_index: list[int] = []
    slates: list[Slate] = []
    for prompt, own in zip(prompts, completions, strict=True):
        if len(prompt) == 0 or len(own) == 0 or any(len(completion) == 0 for completion in own):
            raise ValueError("every prompt needs at least one token and one completion, every completion one token")
        slates.append(Slate(len(prompt), tuple(len(completion) for completion in own)))
        ids += as_list(prompt)
        positions += range(len(prompt))
        prompt_end = len(ids) - 1
        read_index.append(prompt_end)
        for completion in own:
            start = len(ids)
            ids += as_list(completion)
            positions += range(len(prompt), len(prompt) + len(completion))
            token_index += range(start, len(ids))
            previous_index += [prompt_end, *range(start, len(ids) - 1)]
            read_index += range(start, len(ids) - 1)
    return PackedSlates(
        input_ids=torch.tensor([ids], device=device),
        position_ids=torch.tensor([positions], device=device),
        slates=tuple(slates),
        token_index=torch.tensor(token_index, device=device),
        previous_index=torch.tensor(previous_index, device=device),
        read_index=torch.tensor(read_index, device=device),
        completion_lengths=torch.tensor(
            [length for slate in slates for length in slate.completion_lengths], device=device
        ),
    )


def as_list(ids: Sequence[int] | Tensor) -> list[int]:
    return ids.tolist() if isinstance(ids, Tensor) else list(ids)


def context_tokens(model: PreTrainedModel) -> float:
    """How many tokens the model can read at once; infinite where its configuration names no limit."""
    return getattr(model.config, "max_position_embeddings", None) or math.inf


def packed_hidden_states(model: PreTrainedModel, packed: PackedSlates, *, rows: Tensor | None = None) -> Tensor:
    """(N, D) the trunk's final hidden state at every token of the row, with gradients where they are enabled.

    model: a causal LM or a sequence classifier loaded with our attention (trainer.models does).
    rows: (R,) int64, the tokens whose states will be read, each once, no token of a prompt but its last; those of
    others are then not computed to the end (trainer.last_layer). None: all.
    Raises SequenceTooLong when a position lies beyond the model's context.
    """
    limit = context_tokens(model)
    longest = max(slate.prompt_length + max(slate.completion_lengths) for slate in packed.slates)
    if longest > limit:
        raise SequenceTooLong(longest, int(limit))
    if model.config._attn_implementation != ATTENTION:
        raise ValueError(f"the model computes attention by {model.config._attn_implementation}, not by {ATTENTION}")
    # A mask of four dimensions passes through Transformers untouched, so no N x N mask is built; nobody reads it.
    no_mask = packed.input_ids.new_zeros((1, 1, 1, 1))
    output = model.base_model(
        input_ids=packed.input_ids,
        position_ids=packed.position_ids,
        attention_mask=no_mask,
        use_cache=False,
        packed_slates=packed.slates,
        read_rows=rows,
    )
    hidden: Tensor = output.last_hidden_state[0]
    return hidden


def shared_prompt_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packed_slates: tuple[Slate, ...] | None = None,
    read_rows: Tensor | None = None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention over a packed row, in the form Transformers calls it.

    query: (1, H, N, D).  key, value: (1, G, N, D) with H a multiple of G.  Returns (1, N, H, D).
    """
    reading.rows = read_rows
    if packed_slates is None:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
        return output, None
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:  # grouped queries
        key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    skips_prompts = read_rows is not None and is_last_layer(module)
    return attend(query, key, value, packed_slates, scale, skips_prompts=skips_prompts), None


AttentionInterface.register(ATTENTION, shared_prompt_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)

"""What PPO samples in a step, and its numbers a token in one layout, (B, T). Knows no recipe and no model.

A batch is G prompts with n completions each; completion b belongs to prompt b // n. Flat tensors hold the completions'
tokens one completion after another, which is the order of a (B, T) tensor read row by row where its mask is True.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.decoding import SampledCompletion
from trainer.scoring import slate_tokens
from trainer.shared_prompt import PackedSlates, pack


@dataclass(frozen=True)
class Rollouts:
    """Completions of G prompts, n of each; B = G * n."""

    prompts: list[list[int]]  # G token id lists
    completions: list[list[list[int]]]  # G lists of n token id lists, EOS included where it was sampled
    is_finished: Tensor  # (B,) bool: ended with a stop token
    sampler_logprobs: Tensor  # (B, T) nats, from the sampler's own forward; 0 outside the mask, NaN where it told none
    mask: Tensor  # (B, T) bool

    @property
    def lengths(self) -> Tensor:
        """(B,) tokens of each completion."""
        return self.mask.sum(dim=1)

    @property
    def num_samples(self) -> int:
        """Completions a prompt."""
        return len(self.completions[0])

    def num_tokens_of_prompts(self) -> list[int]:
        """(G,) tokens that each prompt costs with all its completions, the prompt counted once."""
        return [slate_tokens(prompt, own) for prompt, own in zip(self.prompts, self.completions, strict=True)]

    def by_row(self, flat: Tensor) -> Tensor:
        """(B, T) fp32 of all completions' tokens, (tokens,); 0 outside the mask."""
        return torch.zeros(self.mask.shape).masked_scatter(self.mask, flat.float().cpu())

    def part(self, prompts: Sequence[int]) -> "Part":
        """The prompts of these indices with all their completions."""
        rows = torch.tensor([g * self.num_samples + k for g in prompts for k in range(self.num_samples)])
        return Part(
            prompts=[self.prompts[g] for g in prompts],
            completions=[self.completions[g] for g in prompts],
            rows=rows,
            mask=self.mask[rows],
        )


@dataclass(frozen=True)
class Part:
    """Some of the rollouts' prompts: what one forward pass reads."""

    prompts: list[list[int]]
    completions: list[list[list[int]]]
    rows: Tensor  # (b,) of the completions in the whole batch
    mask: Tensor  # (b, T)

    def flat(self, values: Tensor) -> Tensor:
        """(tokens,) this part's numbers of a whole batch's (B, T)."""
        return values[self.rows][self.mask]

    @property
    def num_tokens(self) -> int:
        """Completion tokens."""
        return int(self.mask.sum())

    def packed(self, device: torch.device) -> PackedSlates:
        return pack(self.prompts, self.completions, device)


def gather_rollouts(prompts: Sequence[list[int]], sampled: Sequence[Sequence[SampledCompletion]]) -> Rollouts:
    """Lay sampled completions out for learning. Their ids are those sampled: nothing is decoded and encoded again."""
    flat = [completion for slate in sampled for completion in slate]
    lengths = torch.tensor([len(completion.token_ids) for completion in flat])
    mask = torch.arange(int(lengths.max()))[None, :] < lengths[:, None]
    untold = [math.nan]
    logprobs = torch.tensor(
        [value for each in flat for value in each.logprobs or untold * len(each.token_ids)], dtype=torch.float32
    )
    return Rollouts(
        prompts=list(prompts),
        completions=[[completion.token_ids for completion in slate] for slate in sampled],
        is_finished=torch.tensor([completion.finish_reason == "stop" for completion in flat]),
        sampler_logprobs=logprobs.new_zeros(mask.shape).masked_scatter(mask, logprobs),
        mask=mask,
    )

"""Ranked slates as a reward model learns from them: batches by tokens, scores, the loss of all their rankings.

The element of a batch is one prompt with all its completions and all their rankings: pairs of it in several batches
overfit within an epoch (InstructGPT, arXiv:2203.02155, 3.5). Knows no files and no schedule.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainer.losses import kwise_loss
from trainer.reward_report import Judged
from trainer.round_folder import RankingRow
from trainer.scoring import micro_batches, packed_scores, slate_tokens
from trainer.settings import RewardConfig
from trainer.shared_prompt import pack


@dataclass(frozen=True)
class Slate:
    """One prompt's completions with all their rankings: the element of a batch."""

    prompt_id: int
    prompt_ids: list[int]
    completion_ids: list[list[int]]
    rankings: list[RankingRow]

    @property
    def key(self) -> tuple[int, tuple[tuple[int, ...], ...]]:
        """What makes it the slate it is, in every process: its prompt and its completions."""
        return self.prompt_id, tuple(tuple(ids) for ids in self.completion_ids)


def longest_tokens(row: RankingRow) -> int:
    """Tokens of the prompt with the longest completion: what the model has to read at once."""
    return len(row.prompt_ids) + max(len(ids) for ids in row.completion_ids)


def slates_of(rows: Sequence[RankingRow]) -> list[Slate]:
    """Rankings of the same completions together: they are computed once."""
    slates: dict[object, Slate] = {}
    for row in rows:
        slate = Slate(row.prompt_id, row.prompt_ids, row.completion_ids, [])
        slates.setdefault(slate.key, slate).rankings.append(row)
    return list(slates.values())


@dataclass(frozen=True)
class SlatesOfStage:
    """What a reward stage learns from and is judged by; the test split, which judges policies, is none of it."""

    train: list[Slate]
    validation: list[Slate]
    held_out: list[Slate]  # by labelers nobody learns from
    num_too_long: int  # rankings with more tokens than the model can read
    num_all_ties: int  # rankings that place no completion above another


def share_out(rows: Sequence[RankingRow], limit: float) -> SlatesOfStage:
    """limit: tokens that the model reads at once, infinite where it says none."""
    rows = [row for row in rows if row.split != "test"]
    fitting = [row for row in rows if longest_tokens(row) <= limit]
    usable = [row for row in fitting if len(set(row.ranks)) > 1]
    return SlatesOfStage(
        train=slates_of([row for row in usable if row.split == "train" and not row.held_out_labeler]),
        validation=slates_of([row for row in usable if row.split == "validation" and not row.held_out_labeler]),
        held_out=slates_of([row for row in usable if row.held_out_labeler]),
        num_too_long=len(rows) - len(fitting),
        num_all_ties=len(fitting) - len(usable),
    )


@dataclass(frozen=True)
class Reading:
    """What has to be read for some slates: each prompt once, and once each of its completions.

    Judgements of the pairs of one prompt come as slates of two that share their completions.
    """

    prompts: list[list[int]]
    completions: list[list[list[int]]]  # of each prompt, the distinct ones
    places: list[int]  # for each completion of the slates, in their order, where among all of these it is

    @property
    def costs(self) -> list[int]:
        """Tokens of each prompt with its completions."""
        return [slate_tokens(prompt, own) for prompt, own in zip(self.prompts, self.completions, strict=True)]


def read_once(slates: Sequence[Slate]) -> Reading:
    """Prompts and completions in the order in which they first come up."""
    found: dict[tuple[int, ...], dict[tuple[int, ...], int]] = {}  # prompt -> completion -> its place in the prompt's
    seen = []
    for slate in slates:
        prompt = tuple(slate.prompt_ids)
        own = found.setdefault(prompt, {})
        seen += [(prompt, own.setdefault(tuple(ids), len(own))) for ids in slate.completion_ids]
    starts = dict(zip(found, accumulate(map(len, found.values()), initial=0), strict=False))
    return Reading(
        prompts=[list(prompt) for prompt in found],
        completions=[[list(ids) for ids in own] for own in found.values()],
        places=[starts[prompt] + place for prompt, place in seen],
    )


def batches_of_slates(slates: Sequence[Slate], config: RewardConfig) -> list[list[Slate]]:
    """Slates that are computed at once: those of one prompt together, and each text that they share is read once."""
    limit = config.micro_batch_tokens
    parts = [part for own in slates_by_prompt(slates) for part in within(own, limit)]
    costs = [sum(read_once(part).costs) for part in parts]
    return [[slate for i in batch for slate in parts[i]] for batch in micro_batches(costs, limit)]


def slates_by_prompt(slates: Sequence[Slate]) -> list[list[Slate]]:
    found: dict[tuple[int, ...], list[Slate]] = {}
    for slate in slates:
        found.setdefault(tuple(slate.prompt_ids), []).append(slate)
    return list(found.values())


def within(slates: Sequence[Slate], limit: int) -> list[list[Slate]]:
    """The slates of one prompt in parts that read at most `limit` tokens; a longer slate stands alone."""
    parts: list[list[Slate]] = [[]]
    tokens, known = 0, set[tuple[int, ...]]()
    for slate in slates:
        new = {tuple(ids) for ids in slate.completion_ids} - known
        if parts[-1] and tokens + sum(map(len, new)) > limit:
            parts.append([])
            tokens, known, new = 0, set(), {tuple(ids) for ids in slate.completion_ids}
        tokens += sum(map(len, new)) + (0 if parts[-1] else len(slate.prompt_ids))
        known |= new
        parts[-1].append(slate)
    return parts


def scores_of(model: PreTrainedModel, slates: Sequence[Slate]) -> Tensor:
    """(M,) the scores of all completions of the slates, with gradients. What slates share is computed once."""
    reading = read_once(slates)
    scores = packed_scores(model, pack(reading.prompts, reading.completions, model.device))
    return scores.index_select(0, torch.tensor(reading.places, device=scores.device))


def mean_scores_of(models: Sequence[PreTrainedModel], slates: Sequence[Slate]) -> Tensor:
    """(M,) the members' mean score of each completion of the slates."""
    return torch.stack([scores_of(model, slates) for model in models]).mean(dim=0)


def loss_of(scores: Tensor, slates: Sequence[Slate], config: RewardConfig, total_weight: float) -> Tensor:
    """What the slates' rankings add to the mean over total_weight. scores: (M,) of all their completions."""
    rankings = [row for slate in slates for row in slate.rankings]
    longest = max(len(row.ranks) for row in rankings)
    padded_scores = scores.new_zeros(len(rankings), longest)
    rows = iter(range(len(rankings)))
    for slate, own in zip(slates, split_by_slate(scores, slates), strict=True):
        for _ in slate.rankings:
            padded_scores[next(rows), : len(own)] = own
    ranks = torch.tensor([row.ranks + [0] * (longest - len(row.ranks)) for row in rankings], device=scores.device)
    weights = scores.new_tensor([row.weight for row in rankings])
    margins = scores.new_tensor([row.margin or 0.0 for row in rankings]) if config.use_margins else None
    picks = torch.tensor([row.is_pick for row in rankings], device=scores.device)
    return kwise_loss(
        padded_scores,
        ranks,
        margins=margins,
        label_weights=weights,
        total_weight=total_weight,
        ties=cast(Literal["skip", "half"], config.ties),
        picks=picks,
    )


def split_by_slate(scores: Tensor, slates: Sequence[Slate]) -> tuple[Tensor, ...]:
    return torch.split(scores, [len(slate.completion_ids) for slate in slates])


def judged_slates(scores: Tensor, slates: Sequence[Slate]) -> list[Judged]:
    return [
        Judged(
            prompt_id=slate.prompt_id,
            slate=slate.key,
            labeler=row.labeler,
            margin=row.margin,
            ranks=row.ranks,
            scores=own.tolist(),
            lengths=[len(ids) for ids in slate.completion_ids],
            is_pick=row.is_pick,
        )
        for slate, own in zip(slates, split_by_slate(scores, slates), strict=True)
        for row in slate.rankings
    ]

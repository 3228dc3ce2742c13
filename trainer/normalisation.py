"""Where the zero and the unit of a reward model's scores are put, after the fit (InstructGPT, arXiv:2203.02155, 3.5).

The zero is the mean score of demonstrations; the unit, which policy stages divide by, the spread of the scores of what
the reference policy writes. Differences of scores stay what they were fitted as.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from transformers import PreTrainedModel

from trainer.decoding import LocalEngine, SampleRequest, sample_together
from trainer.models import Policy, shift_scores
from trainer.ranked_slates import Slate, read_once
from trainer.round_folder import RoundFolder
from trainer.scoring import last_states, score_completions
from trainer.settings import RewardConfig

MOST_RANKED = 1024  # slates over which the shift is measured: a mean and a covariance need no more
MIN_DEMONSTRATIONS = 50  # fewer, and their mean score is too uncertain to be the zero


@dataclass(frozen=True)
class Texts:
    """Prompts and, for each, completions; token ids."""

    prompts: list[list[int]]
    completions: list[list[list[int]]]


@dataclass(frozen=True)
class Yardstick:
    """What scores are normalised on; the same for all members of an ensemble."""

    source: Literal["demonstrations", "reference completions", "ranked completions"]  # of the zero
    zero: Texts  # their mean score becomes 0
    unit: Texts  # the spread of their scores becomes the unit
    ranked: Texts  # over which differences of scores are to stay


@dataclass(frozen=True)
class Normalisation:
    """Where one reward model's zero was put, and its unit."""

    shift: float  # what was taken off every score
    shift_error: float  # standard deviation, over completions, of what the shift did beyond that; 0 where it is exact
    score_std: float


def find_yardstick(
    folder: RoundFolder,
    config: RewardConfig,
    slates: Sequence[Slate],
    reference: Callable[[], Policy],
    *,
    seed: int,
    limit: float,
) -> Yardstick:
    """Demonstrations of the validation split for the zero, completions of the reference policy for the unit.

    With fewer than 50 demonstrations the completions give the zero too, and where no prompt leaves room for one, the
    completions that were ranked.  reference: opens it, if there is a prompt to sample from.  limit: tokens that the
    model reads at once.
    """
    some = slates[:: math.ceil(len(slates) / MOST_RANKED)]
    reading = read_once(some)
    ranked = Texts(reading.prompts, reading.completions)
    prompts = prompts_with_room(folder, config, ranked, limit)
    unit = sample_reference(reference(), prompts, config, seed) if prompts else ranked
    rows = [
        row
        for row in folder.read_demonstrations()
        if row.split == "validation" and len(row.prompt_ids) + len(row.completion_ids) <= limit
    ]
    if len(rows) >= MIN_DEMONSTRATIONS:
        zero = Texts([row.prompt_ids for row in rows], [[row.completion_ids] for row in rows])
        return Yardstick("demonstrations", zero, unit, ranked)
    return Yardstick("reference completions" if prompts else "ranked completions", unit, unit, ranked)


def normalise(model: PreTrainedModel, yardstick: Yardstick) -> Normalisation:
    """Shift the model's scores to their zero, and measure their unit."""
    zero, unit, ranked = yardstick.zero, yardstick.unit, yardstick.ranked
    anchors = last_states(model, zero.prompts, zero.completions)  # (A, D)
    seen = torch.cat([anchors, last_states(model, ranked.prompts, ranked.completions)])
    shift, shift_error = shift_scores(model, anchors, seen)
    score_std = score_completions(model, unit.prompts, unit.completions).std().item()
    return Normalisation(shift, shift_error, score_std)


def prompts_with_room(folder: RoundFolder, config: RewardConfig, ranked: Texts, limit: float) -> list[list[int]]:
    """Prompts of the validation split that leave room for a completion.

    A project too small to have any uses those of its rankings.
    """
    ours = [row.prompt_ids for row in folder.read_prompts() if row.split == "validation"]
    fitting = [ids for ids in ours or ranked.prompts if len(ids) + config.max_completion_tokens <= limit]
    return fitting[: config.num_normalisation_completions]


def sample_reference(policy: Policy, prompts: list[list[int]], config: RewardConfig, seed: int) -> Texts:
    """What the policy writes now, dealt out over the prompts."""
    seeds: list[list[int]] = [[] for _ in prompts]
    for number in range(config.num_normalisation_completions):
        seeds[number % len(prompts)].append(seed + number)
    requests = [
        SampleRequest(prompt_ids=prompt, seeds=own, max_completion_tokens=config.max_completion_tokens)
        for prompt, own in zip(prompts, seeds, strict=True)
    ]
    sampled = sample_together(LocalEngine(policy.model, policy.tokenizer), requests)
    return Texts(prompts, [[completion.token_ids for completion in slate] for slate in sampled])

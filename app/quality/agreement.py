"""How alike people rank: pair agreement, Krippendorff's alpha, Kendall's tau-b, with bootstrap intervals.

Pure NumPy, no table and no loop over rankings. What cannot be said is said so: `Estimate.value` is None with a reason.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]  # what is in an array is told by its name here, and checked by the tests: NumPy's operators
Ints = NDArray[Any]  # return types that no annotation of ours could hold
Bools = NDArray[Any]
Distances = Callable[[Floats], Floats]
Picks = tuple[Bools, Bools] | None  # (P,), (P,); None: there are none

RESAMPLES = 1000
MOST_BLOCKS = 500  # prompts are resampled one by one up to here, beyond in so many random blocks of equal size
FEWEST_PROMPTS = 5  # fewer say nothing about how the next ones would differ
SEED = 20220304  # the same rankings get the same interval


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95 % interval. value None: undefined, and why. low, high None: too few prompts to tell."""

    value: float | None
    low: float | None = None
    high: float | None = None
    num: int = 0  # comparisons, or pairs of rankings, that it rests on
    reason: str = ""


def ordered_alike(first: Ints, second: Ints, picks: Picks = None) -> tuple[Floats, Ints]:
    """How many of the comparisons two rankings order alike, and of how many; per pair of rankings.

    first, second: (P, K) ranks, 1 is best, equal ranks are ties, 0 is padding.  A tie in one of the two counts one
    half; a tie in both is agreement.  That is one minus the Kendall distance with penalty ½ of Fagin et al. 2004,
    "Comparing and aggregating rankings with ties": equal rankings agree on everything, whoever ties all gets one half.
    picks: which of the first and of the second compare one completion with the others alone; what both compare counts.
    """
    alike = np.zeros(len(first))
    num = np.zeros(len(first), dtype=np.int64)
    for one, other, valid in _comparisons(first, second, picks):
        alike += np.where(valid, 1 - np.abs(one - other) / 2, 0)
        num += valid
    return alike, num


def kendall_tau_b(first: Ints, second: Ints, picks: Picks = None) -> tuple[Floats, Bools]:
    """Kendall's tau-b of each pair of rankings, and where it is defined: not where one of the two ties everything.

    picks: as above.
    """
    score = np.zeros(len(first))
    untied_first, untied_second = np.zeros(len(first)), np.zeros(len(first))
    for one, other, valid in _comparisons(first, second, picks):
        score += np.where(valid, one * other, 0)
        untied_first += valid & (one != 0)
        untied_second += valid & (other != 0)
    scale = np.sqrt(untied_first * untied_second)
    is_defined = scale > 0
    return np.divide(score, scale, out=np.zeros_like(score), where=is_defined), is_defined


def _comparisons(first: Ints, second: Ints, picks: Picks) -> Any:
    """For each two completions: the sign that either ranking gives them, and whether both compare them."""
    num_completions = first.shape[1]
    a, b = first.astype(np.int16), second.astype(np.int16)  # signed, and small: this is where the time goes
    for i in range(num_completions):
        for j in range(i + 1, num_completions):
            valid = (a[:, i] > 0) & (a[:, j] > 0) & (b[:, i] > 0) & (b[:, j] > 0)
            one, other = np.sign(a[:, i] - a[:, j]), np.sign(b[:, i] - b[:, j])
            if picks is not None:
                valid &= ~(picks[0] & (one == 0)) & ~(picks[1] & (other == 0))
            yield one, other, valid


# Krippendorff's alpha: "Computing Krippendorff's Alpha-Reliability" (2011), from coincidences of values.


def nominal_distances(marginals: Floats) -> Floats:
    """(…, V) how often each value occurs -> (…, V, V): 1 where values differ."""
    num_values = marginals.shape[-1]
    return np.broadcast_to(1.0 - np.eye(num_values), (*marginals.shape, num_values))


def ordinal_distances(marginals: Floats) -> Floats:
    """(…, V, V): the square of how many occurrences lie between two values, half of their own included."""
    total = np.cumsum(marginals, axis=-1)
    middle = total - marginals / 2  # occurrences up to the middle of a value: between c and k lie middle_k - middle_c
    between: Floats = middle[..., :, None] - middle[..., None, :]
    return between**2


def interval_distances(marginals: Floats) -> Floats:
    """(…, V, V): the squared difference, for values 1, 2, 3 …"""
    values = np.arange(marginals.shape[-1])
    return np.broadcast_to((values[:, None] - values[None, :]) ** 2.0, (*marginals.shape, marginals.shape[-1]))


def coincidences(values: Ints, num_values: int) -> Floats:
    """(V, V) how often two observers of one unit gave these two values, each unit by one over its values less one.

    values: (units, observers), from 1 to V, 0 where there is none.  Units with a single value have no pair to count.
    """
    counts = np.zeros((len(values), num_values))
    units, observers = np.nonzero(values)
    np.add.at(counts, (units, values[units, observers] - 1), 1)
    num = counts.sum(axis=1)
    counts, num = counts[num > 1], num[num > 1]
    weighted = counts / (num - 1)[:, None]
    found: Floats = weighted.T @ counts - np.diag(weighted.sum(axis=0))
    return found


def disagreement(pairs: Floats, distances: Distances) -> tuple[Floats, Floats]:
    """Observed and expected disagreement, both times the number of values; alpha is one minus their quotient.

    pairs: (…, V, V) coincidences, symmetric.  distances: of the three above, the metric of the values.
    Ordinal distances grow with the square of the number of values: they are taken per squared value, so that the
    disagreement of slates with different K can be added up.
    """
    marginals = pairs.sum(axis=-1)
    num = marginals.sum(axis=-1)[..., None, None]
    safe = np.maximum(num, 2)
    delta = distances(marginals) / safe**2
    observed = (pairs * delta).sum(axis=(-1, -2))
    chance = marginals[..., :, None] * marginals[..., None, :] * delta
    return observed, chance.sum(axis=(-1, -2)) / (safe[..., 0, 0] - 1)


def krippendorff_alpha(values: Ints, distances: Distances) -> float | None:
    """Alpha of reliability data (units, observers); None where nobody's values differ or no unit has two."""
    if not values.size:
        return None
    observed, expected = disagreement(coincidences(values, int(values.max(initial=1))), distances)
    return None if expected <= 0 else float(1 - observed / expected)


# Bootstrap


@dataclass(frozen=True)
class Blocks:
    """Prompts in the blocks that are resampled, and how often each resample drew each block."""

    of_prompt: Ints  # (prompts,) the block of each
    draws: Floats  # (RESAMPLES, blocks)

    @property
    def num(self) -> int:
        return int(self.draws.shape[1])


def make_blocks(num_prompts: int) -> Blocks:
    """Whole prompts are resampled: rankings of one prompt stand or fall together.

    Beyond MOST_BLOCKS prompts it is random blocks of them. The sums of blocks vary as those of prompts do, so the
    interval stays what it was (its width is known to about 3 %) and costs the same for ten thousand and ten million.
    """
    rng = np.random.default_rng(SEED)
    num_blocks = max(1, min(num_prompts, MOST_BLOCKS))
    of_prompt = rng.permutation(num_prompts) % num_blocks
    draws = rng.multinomial(num_blocks, np.full(num_blocks, 1 / num_blocks), size=RESAMPLES)
    return Blocks(of_prompt, draws.astype(np.float32))


def block_sums(block: Ints, group: Ints, weights: Floats, num_blocks: int, num_groups: int) -> Floats:
    """(blocks, groups): the weights added up; group -1 belongs to none."""
    inside = group >= 0
    cells = block[inside] * num_groups + group[inside]
    sums = np.bincount(cells, weights=weights[inside], minlength=num_blocks * num_groups)
    return sums.reshape(num_blocks, num_groups)


def ratio_estimates(
    block: Ints, group: Ints, parts: Floats, wholes: Floats, blocks: Blocks, num_prompts: Ints, reason: str
) -> list[Estimate]:
    """sum(parts) / sum(wholes) in each group, with the percentile interval over resampled prompts.

    block: that of each row's prompt; num_prompts: of each group, as num_prompts_of counts them.
    """
    num_groups = len(num_prompts)
    part = block_sums(block, group, parts, blocks.num, num_groups)
    whole = block_sums(block, group, wholes, blocks.num, num_groups)
    with np.errstate(invalid="ignore", divide="ignore"):  # a resample without the group: left out of its interval
        resampled = (blocks.draws @ part.astype(np.float32)) / (blocks.draws @ whole.astype(np.float32))
    return [
        _estimate(part[:, g].sum(), whole[:, g].sum(), resampled[:, g], int(num_prompts[g]), reason)
        for g in range(num_groups)
    ]


def num_prompts_of(prompt: Ints, group: Ints, num_groups: int) -> Ints:
    """How many different prompts each group has."""
    inside = group >= 0
    both = np.unique(group[inside].astype(np.int64) * (int(prompt.max(initial=0)) + 1) + prompt[inside])
    return np.bincount(both // (int(prompt.max(initial=0)) + 1), minlength=num_groups)


def _estimate(part: float, whole: float, resampled: Floats, num_prompts: int, reason: str) -> Estimate:
    if whole <= 0:
        return Estimate(None, reason=reason)
    low, high = interval_of(resampled, num_prompts)
    return Estimate(float(part / whole), low, high, num=round(float(whole)))


def interval_of(resampled: Floats, num_prompts: int) -> tuple[float | None, float | None]:
    """The middle 95 % of the resamples in which the statistic is defined."""
    defined = resampled[np.isfinite(resampled)]
    if num_prompts < FEWEST_PROMPTS or len(defined) < RESAMPLES / 2:
        return None, None
    low, high = np.percentile(defined, (2.5, 97.5))
    return float(low), float(high)

"""Two reward models on the same comparisons: which is better, by how much, and how alike they judge. Pure NumPy."""

import math
from dataclasses import dataclass

import numpy as np

from app.quality.agreement import Bools, Estimate, Floats, block_sums, interval_of, make_blocks
from app.reward_models.measures import Comparisons, mean_of, mean_over_prompts, numbered
from app.reward_models.tables import ScoredRankings


@dataclass(frozen=True)
class Difference:
    """Two models on the same comparisons. gain: the second's accuracy less the first's, over prompts.

    only_first, only_second: comparisons that one alone orders rightly.  p_value: McNemar's, exact.
    same_choice: how often both choose the same completion.  correlation: Pearson's, of scores less their slate's mean.
    """

    first: Estimate
    second: Estimate
    gain: Estimate
    only_first: int
    only_second: int
    p_value: float | None
    same_choice: Estimate
    correlation: Estimate


def difference(first: Comparisons, second: Comparisons) -> Difference:
    """Both hold the same comparisons, in the same order."""
    only_first = int(((first.lead > 0) & (second.lead < 0)).sum())
    only_second = int(((first.lead < 0) & (second.lead > 0)).sum())
    return Difference(
        first=mean_over_prompts(first, first.right),
        second=mean_over_prompts(second, second.right),
        gain=mean_over_prompts(first, second.right - first.right),
        only_first=only_first,
        only_second=only_second,
        p_value=mcnemar(only_first, only_second),
        same_choice=mean_of(first, (np.sign(first.lead) == np.sign(second.lead)).astype(float)),
        correlation=correlation_within_slates(first.rankings, second.rankings),
    )


def mcnemar(only_first: int, only_second: int) -> float | None:
    """The exact two-sided p-value: of the comparisons on which one alone is right, each is as likely to be either's.

    McNemar 1947. None without such comparisons.
    """
    num, least = only_first + only_second, min(only_first, only_second)
    if num == 0:
        return None
    # The chance of exactly `least`, then of fewer: each from the one before, as factorials of millions would overflow.
    chance = math.exp(math.lgamma(num + 1) - math.lgamma(least + 1) - math.lgamma(num - least + 1) - num * math.log(2))
    total = 0.0
    for k in range(least, -1, -1):
        total += chance
        chance *= k / (num - k + 1)
    return min(1.0, 2 * total)


def correlation_within_slates(first: ScoredRankings, second: ScoredRankings) -> Estimate:
    """Of what scores say within a slate: each less its slate's mean, as only differences of a slate mean anything.

    Several rankings of a slate carry the same scores; each slate counts once.
    """
    seen: dict[tuple[int, bytes], int] = {}
    for row, (prompt, scores) in enumerate(zip(first.prompts.tolist(), first.scores, strict=True)):
        seen.setdefault((prompt, scores.tobytes()), row)
    rows = np.array(list(seen.values()), dtype=np.int64)
    valid = first.ranks[rows] > 0
    one, other = centred(first.scores[rows], valid), centred(second.scores[rows], valid)
    group = numbered(first.groups)[rows]
    blocks = make_blocks(int(group.max(initial=0)) + 1)
    cells = np.zeros(len(rows), dtype=np.int64)
    products = [(a * b).sum(axis=1) for a, b in ((one, other), (one, one), (other, other))]
    sums = [block_sums(blocks.of_prompt[group], cells, values, blocks.num, 1)[:, 0] for values in products]
    both, square, other_square = (float(values.sum()) for values in sums)
    if square <= 0 or other_square <= 0:
        return Estimate(None, reason="one of the two gives every completion of a slate the same score")
    drawn = [blocks.draws @ values for values in sums]
    with np.errstate(invalid="ignore", divide="ignore"):
        again = drawn[0] / np.sqrt(drawn[1] * drawn[2])
    low, high = interval_of(again, len(np.unique(group)))
    return Estimate(both / math.sqrt(square * other_square), low, high, num=int(valid.sum()))


def centred(scores: Floats, valid: Bools) -> Floats:
    """Scores less their row's mean over what is no padding, which becomes 0."""
    mean = (scores * valid).sum(axis=1) / np.maximum(valid.sum(axis=1), 1)
    found: Floats = np.where(valid, scores - mean[:, None], 0.0)
    return found

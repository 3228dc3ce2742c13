"""How well scores order what people ordered: accuracies with intervals, calibration, the ceiling. Pure NumPy.

Ties never count as right or wrong. A score tie on an untied comparison counts one half. Intervals are percentiles over
resampled prompt groups: comparisons of a slate, and slates of a conversation, stand or fall together.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from app.quality.agreement import (
    Blocks,
    Estimate,
    Floats,
    Ints,
    make_blocks,
    num_prompts_of,
    ratio_estimates,
)
from app.quality.pairs import pairs_of
from app.reward_models.tables import ScoredRankings

NUM_BINS = 10  # of confidence, from 1/2 to 1
NOTHING = "there is no comparison of this kind"
NO_OVERLAP = "no slate was ranked by two people"


@dataclass(frozen=True)
class Comparisons:
    """C untied comparisons of N rankings.

    ranking: (C,) row of the ranking.  better, worse: (C,) positions.  lead: (C,) how far the better one's score leads.
    """

    rankings: ScoredRankings
    ranking: Ints
    better: Ints
    worse: Ints
    lead: Floats

    def __len__(self) -> int:
        return len(self.ranking)

    @cached_property
    def right(self) -> Floats:
        """(C,) 1 where the better completion scores higher, 1/2 where both score the same."""
        return half_step(self.lead)

    @cached_property
    def longer(self) -> Floats:
        """(C,) 1 where the better completion is the longer text, 1/2 where both are as long."""
        characters = self.rankings.characters
        return half_step(characters[self.ranking, self.better] - characters[self.ranking, self.worse])

    @cached_property
    def distance(self) -> Ints:
        """(C,) ranks between the two."""
        ranks = self.rankings.ranks
        found: Ints = ranks[self.ranking, self.worse] - ranks[self.ranking, self.better]
        return found

    @cached_property
    def group(self) -> Ints:
        """(C,) number of the prompt group."""
        return numbered(self.rankings.groups)[self.ranking]

    @cached_property
    def prompt(self) -> Ints:
        """(C,) number of the prompt."""
        return numbered(self.rankings.prompts.tolist())[self.ranking]

    @cached_property
    def blocks(self) -> Blocks:
        """What is resampled together."""
        return make_blocks(int(self.group.max(initial=0)) + 1)

    @cached_property
    def block(self) -> Ints:
        """(C,)"""
        found: Ints = self.blocks.of_prompt[self.group]
        return found


def half_step(difference: Floats) -> Floats:
    """1 above 0, 1/2 at 0, 0 below."""
    found: Floats = (np.sign(difference) + 1) / 2
    return found


def numbered(keys: Sequence[Hashable]) -> Ints:
    """Each key's number, by first appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def comparisons_of(rankings: ScoredRankings) -> Comparisons:
    """Every pair of which the ranking places one above the other."""
    found: list[tuple[Ints, int, int]] = []
    width = rankings.ranks.shape[1]
    for better in range(width):
        for worse in range(width):
            above = (rankings.ranks[:, better] > 0) & (rankings.ranks[:, better] < rankings.ranks[:, worse])
            if (rows := np.nonzero(above)[0]).size:
                found.append((rows, better, worse))
    empty = [np.zeros(0, dtype=np.int64)]
    ranking = np.concatenate([rows for rows, _, _ in found] or empty)
    better_at = np.concatenate([np.full(len(rows), better) for rows, better, _ in found] or empty)
    worse_at = np.concatenate([np.full(len(rows), worse) for rows, _, worse in found] or empty)
    lead = rankings.scores[ranking, better_at] - rankings.scores[ranking, worse_at]
    return Comparisons(rankings, ranking, better_at, worse_at, lead)


def num_ties(rankings: ScoredRankings) -> int:
    """Pairs that were judged to be equally good: what a pick leaves uncompared was not judged."""
    whole = rankings.at(np.nonzero(~rankings.is_pick)[0])
    ranks = whole.ranks
    first, second = np.triu_indices(ranks.shape[1], k=1)
    return int(((ranks[:, first] == ranks[:, second]) & (ranks[:, first] > 0)).sum())


def mean_of(comparisons: Comparisons, values: Floats) -> Estimate:
    """The mean over the comparisons."""
    return ratio(comparisons, values, np.ones(len(comparisons)))


def ratio(comparisons: Comparisons, parts: Floats, wholes: Floats) -> Estimate:
    """sum(parts) / sum(wholes), with its interval over prompt groups."""
    everything = np.zeros(len(comparisons), dtype=np.int64)
    num_groups = num_prompts_of(comparisons.group, everything, 1)
    return ratio_estimates(comparisons.block, everything, parts, wholes, comparisons.blocks, num_groups, NOTHING)[0]


def mean_over_prompts(comparisons: Comparisons, values: Floats) -> Estimate:
    """Each prompt's mean counts the same, however many completions were ranked and by how many people."""
    num_of_prompt = np.bincount(comparisons.prompt, minlength=1)
    weights = 1 / num_of_prompt[comparisons.prompt] if len(comparisons) else np.zeros(0)
    found = ratio(comparisons, values * weights, weights)
    return Estimate(found.value, found.low, found.high, len(comparisons), found.reason)


@dataclass(frozen=True)
class Slice:
    """The comparisons of one key: the model's accuracy, and how often the longer text is the better one."""

    key: str
    accuracy: Estimate
    longer: Estimate


def slices(comparisons: Comparisons, key_of: Sequence[Hashable | None]) -> list[Slice]:
    """One for each key, in the order of the keys. key_of: (C,) of each comparison; None belongs to none."""
    names = sorted({key for key in key_of if key is not None}, key=sortable)
    place = {name: number for number, name in enumerate(names)}
    group = np.array([-1 if key is None else place[key] for key in key_of], dtype=np.int64)
    num_groups = num_prompts_of(comparisons.group, group, len(names))
    ones = np.ones(len(comparisons))

    def estimates(values: Floats) -> list[Estimate]:
        return ratio_estimates(comparisons.block, group, values, ones, comparisons.blocks, num_groups, NOTHING)

    both = zip(names, estimates(comparisons.right), estimates(comparisons.longer), strict=True)
    return [Slice(str(name), accuracy, longer) for name, accuracy, longer in both]


def sortable(key: Hashable) -> tuple[int, float, str]:
    """Numbers by size, then words."""
    return (0, float(key), "") if isinstance(key, int | float) else (1, 0.0, str(key))


# Calibration


@dataclass(frozen=True)
class Bin:
    """Comparisons of which the model was about as sure. low, high: its limits.  confidence: their mean."""

    low: float
    high: float
    confidence: float
    accuracy: Estimate


@dataclass(frozen=True)
class Calibration:
    """How sure the model was of its choices, and how often it was right.

    error: expected calibration error (arXiv:1706.04599, eq. 3).  by_chance: what that would be on average for a model
    that is calibrated perfectly, were its comparisons independent: few of them look uncalibrated by chance.
    """

    bins: list[Bin]
    error: float | None
    by_chance: float | None


def calibration(comparisons: Comparisons) -> Calibration:
    """Confidence is the larger of the two probabilities that scores stand for, sigmoid(|lead|) (Bradley-Terry)."""
    if not len(comparisons):
        return Calibration([], None, None)
    confidence = 1 / (1 + np.exp(-np.minimum(np.abs(comparisons.lead), 700.0)))  # beyond 700 exp overflows
    place = np.minimum(((confidence - 0.5) * 2 * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    num_groups = num_prompts_of(comparisons.group, place, NUM_BINS)
    accuracy = ratio_estimates(
        comparisons.block, place, comparisons.right, np.ones(len(place)), comparisons.blocks, num_groups, NOTHING
    )
    count = np.bincount(place, minlength=NUM_BINS)
    total = np.bincount(place, weights=confidence, minlength=NUM_BINS)
    variance = np.bincount(place, weights=confidence * (1 - confidence), minlength=NUM_BINS)
    right = np.bincount(place, weights=comparisons.right, minlength=NUM_BINS)
    bins = [
        Bin(0.5 + number / 20, 0.5 + (number + 1) / 20, float(total[number] / count[number]), accuracy[number])
        for number in range(NUM_BINS)
        if count[number]
    ]
    # The mean absolute value of a normal variable is sqrt(2/pi) of its deviation; a bin's sum of outcomes is about one.
    by_chance = float(math.sqrt(2 / math.pi) * np.sqrt(variance).sum() / len(comparisons))
    return Calibration(bins, float(np.abs(total - right).sum() / len(comparisons)), by_chance)


# The ceiling


@dataclass(frozen=True)
class Ceiling:
    """What one more person would reach in the model's place, on the comparisons that several people judged.

    people: how often another person orders a comparison as its labeler did, a tie of theirs counting one half.
    model: the model's accuracy on the same comparisons.  share: model over people; above 1 where the model foresees
    people better than they foresee each other.
    """

    people: Estimate
    model: Estimate
    share: Estimate
    num_slates: int


def ceiling(rankings: ScoredRankings, slate_of: Sequence[Hashable]) -> Ceiling:
    """Each person takes the model's place and is asked about every other person's comparisons: the same rule.

    Labeler-to-labeler agreement as Stiennon et al. 2020 (arXiv:2009.01325, C.5) and InstructGPT (arXiv:2203.02155,
    section 3.4) report it, ties of the one who is asked counting half. A comparison that n others judged counts once,
    not n times.  slate_of: (N,)
    """
    slate, labeler = numbered(slate_of), numbered(rankings.labelers)
    group = numbered(rankings.groups)
    blocks = make_blocks(int(group.max(initial=0)) + 1)
    pairs = pairs_of(slate, labeler, group, rankings.ranks, rankings.is_pick)
    num_of_slate = np.bincount(slate, minlength=1)
    parts: list[tuple[Ints, Floats, Floats, Floats]] = []  # group, weight, people right, model right
    for asked, judged in ((pairs.first, pairs.second), (pairs.second, pairs.first)):
        ranks, other, scores = rankings.ranks[judged], rankings.ranks[asked], rankings.scores[judged]
        weight = 1 / np.maximum(num_of_slate[slate[judged]] - 1, 1)
        for better in range(ranks.shape[1]):
            for worse in range(ranks.shape[1]):
                valid = (ranks[:, better] > 0) & (ranks[:, better] < ranks[:, worse])
                difference = other[:, worse] - other[:, better]
                valid &= ~(rankings.is_pick[asked] & (difference == 0))  # who picked did not compare those two
                rows = np.nonzero(valid)[0]
                model = half_step(scores[rows, better] - scores[rows, worse])
                parts.append((group[judged[rows]], weight[rows], half_step(difference[rows]), model))
    of_group, weights, people, model = (np.concatenate(part) for part in zip(*parts, strict=True))
    everything = np.zeros(len(weights), dtype=np.int64)
    num_groups = num_prompts_of(of_group, everything, 1)

    def estimate(values: Floats, wholes: Floats) -> Estimate:
        found = ratio_estimates(blocks.of_prompt[of_group], everything, values, wholes, blocks, num_groups, NO_OVERLAP)
        return Estimate(found[0].value, found[0].low, found[0].high, round(float(weights.sum())), found[0].reason)

    return Ceiling(
        people=estimate(people * weights, weights),
        model=estimate(model * weights, weights),
        share=estimate(model * weights, people * weights),
        num_slates=len(np.unique(slate[pairs.first])),
    )

"""How well scores agree with rankings: the figures of a reward model's report. Plain numbers; knows no model.

Ties never count as right or wrong; they are counted apart. A score tie on an untied comparison counts one half.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

NUM_BINS = 10


@dataclass(frozen=True)
class Judged:
    """One ranking and the scores of its completions, in the same order."""

    prompt_id: int
    slate: Hashable  # rankings of one slate share it
    labeler: str
    margin: float | None
    ranks: Sequence[int]
    scores: Sequence[float]
    lengths: Sequence[int]  # tokens
    is_pick: bool = False  # the others than the best were not compared with each other

    def compares(self, i: int, j: int) -> bool:
        return not (self.is_pick and self.ranks[i] == self.ranks[j])


@dataclass(frozen=True)
class Comparison:
    """One untied comparison: by how much the better completion's score leads."""

    judged: Judged
    rank_distance: int
    lead: float

    @property
    def correctness(self) -> float:
        return 1.0 if self.lead > 0 else 0.5 if self.lead == 0 else 0.0


def comparisons_of(judged: Judged) -> list[Comparison]:
    pairs = [(i, j) for i in range(len(judged.ranks)) for j in range(len(judged.ranks))]
    return [
        Comparison(judged, judged.ranks[j] - judged.ranks[i], judged.scores[i] - judged.scores[j])
        for i, j in pairs
        if judged.ranks[i] < judged.ranks[j]
    ]


def num_ties(judged: Judged) -> int:
    ranks = judged.ranks
    return sum(
        ranks[i] == ranks[j] and judged.compares(i, j) for i in range(len(ranks)) for j in range(i + 1, len(ranks))
    )


def mean(values: Iterable[float]) -> float | None:
    """None, not 0, for no values."""
    values = list(values)
    return math.fsum(values) / len(values) if values else None


def figures(rankings: Sequence[Judged]) -> dict[str, float | None]:
    """The headline numbers. accuracy is averaged over prompts, pair_accuracy over comparisons."""
    comparisons = [comparison for judged in rankings for comparison in comparisons_of(judged)]
    by_prompt = grouped(comparisons, lambda comparison: comparison.judged.prompt_id)
    agreement = labeler_agreement(rankings)
    accuracy = mean(group["accuracy"] for group in by_prompt.values())
    return {
        "accuracy": accuracy,
        "pair_accuracy": mean(comparison.correctness for comparison in comparisons),
        "num_rankings": len(rankings),
        "num_comparisons": len(comparisons),
        "num_ties": sum(num_ties(judged) for judged in rankings),
        "length_correlation": length_correlation(rankings),
        "expected_calibration_error": expected_calibration_error(comparisons),
        "labeler_agreement": agreement,
        "accuracy_over_agreement": accuracy / agreement if accuracy is not None and agreement else None,
    }


def tables(rankings: Sequence[Judged]) -> dict[str, object]:
    """Accuracy over comparisons by K, rank distance, labeler and strength, and the calibration curve."""
    comparisons = [comparison for judged in rankings for comparison in comparisons_of(judged)]
    with_margin = [comparison for comparison in comparisons if comparison.judged.margin is not None]
    return {
        "by_k": grouped(comparisons, lambda comparison: len(comparison.judged.ranks)),
        "by_rank_distance": grouped(comparisons, lambda comparison: comparison.rank_distance),
        "by_labeler": grouped(comparisons, lambda comparison: comparison.judged.labeler),
        "by_strength": grouped(with_margin, lambda comparison: comparison.judged.margin or 0.0),
        "calibration": calibration_curve(comparisons),
    }


def grouped(
    comparisons: Iterable[Comparison], key: Callable[[Comparison], str | int | float]
) -> dict[str, dict[str, float]]:
    """Key -> its comparisons' accuracy and count, in the order of the keys."""
    groups: dict[str | int | float, list[float]] = {}
    for comparison in comparisons:
        groups.setdefault(key(comparison), []).append(comparison.correctness)
    return {
        str(name): {"accuracy": math.fsum(values) / len(values), "count": len(values)}
        for name, values in sorted(groups.items(), key=lambda item: item[0])
    }


def calibration_curve(comparisons: Sequence[Comparison]) -> list[dict[str, float]]:
    """Ten bins of confidence from 1/2 to 1: how sure the model was of its choice, and how often it was right."""
    bins: list[list[tuple[float, float]]] = [[] for _ in range(NUM_BINS)]
    for comparison in comparisons:
        confidence = 1 / (1 + math.exp(-min(abs(comparison.lead), 700.0)))  # beyond 700 exp overflows
        bins[min(int((confidence - 0.5) * 2 * NUM_BINS), NUM_BINS - 1)].append((confidence, comparison.correctness))
    return [
        {
            "confidence": math.fsum(confidence for confidence, _ in bin) / len(bin),
            "accuracy": math.fsum(correctness for _, correctness in bin) / len(bin),
            "count": len(bin),
        }
        for bin in bins
        if bin
    ]


def expected_calibration_error(comparisons: Sequence[Comparison]) -> float | None:
    """Mean distance of confidence and accuracy over the bins, each weighed by its count (arXiv:1706.04599)."""
    if not comparisons:
        return None
    curve = calibration_curve(comparisons)
    return math.fsum(bin["count"] * abs(bin["confidence"] - bin["accuracy"]) for bin in curve) / len(comparisons)


def length_correlation(rankings: Sequence[Judged]) -> float | None:
    """Pearson correlation of score and length in tokens, each completion once. None where one of them never varies."""
    slates = {judged.slate: judged for judged in rankings}
    scores = [score for judged in slates.values() for score in judged.scores]
    lengths = [float(length) for judged in slates.values() for length in judged.lengths]
    return pearson(scores, lengths)


def pearson(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    if len(xs) < 2:
        return None
    mean_x, mean_y = math.fsum(xs) / len(xs), math.fsum(ys) / len(ys)
    covariance = math.fsum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    spread_x = math.fsum((x - mean_x) ** 2 for x in xs)
    spread_y = math.fsum((y - mean_y) ** 2 for y in ys)
    return covariance / math.sqrt(spread_x * spread_y) if spread_x > 0 and spread_y > 0 else None


def labeler_agreement(rankings: Sequence[Judged]) -> float | None:
    """Share of pairs that two labelers of a slate both compared and order alike, a tie of one counting 1/2.

    None without overlap.
    """
    by_slate: dict[Hashable, list[Judged]] = {}
    for judged in rankings:
        by_slate.setdefault(judged.slate, []).append(judged)
    agreements = [
        pair_agreement(first.ranks[i] - first.ranks[j], second.ranks[i] - second.ranks[j])
        for own in by_slate.values()
        for a, first in enumerate(own)
        for second in own[a + 1 :]
        for i in range(len(first.ranks))
        for j in range(i + 1, len(first.ranks))
        if first.compares(i, j) and second.compares(i, j)
    ]
    return mean(agreements)


def pair_agreement(first: int, second: int) -> float:
    if first == 0 and second == 0:
        return 1.0
    if first == 0 or second == 0:
        return 0.5
    return 1.0 if (first > 0) == (second > 0) else 0.0

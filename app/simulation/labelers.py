"""Simulated labelers: they read texts, follow the gold preference, and err like people do.

A labeler's order of a slate is drawn from a Mallows distribution around the gold order (Mallows 1957): neighbours are
confused often, the best and the worst seldom. Its spread is solved for each K so that the labeler disagrees with the
gold on the stated share of the comparisons, a tie counting one half, whatever the policy that wrote the completions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from app.simulation.gold import gold_utility

NOISE = 0.25  # share of comparisons: people agree with each other on 73 to 77 % (Stiennon 2020, Ouyang 2022)


@dataclass(frozen=True)
class Judgement:
    """What a labeler submits for a slate, in the order the completions were given."""

    ranks: list[int]  # 1 is best, equal ranks are ties
    qualities: list[int]  # 1 to 7


@dataclass(frozen=True)
class SimulatedLabeler:
    """A labeler who judges the same slate the same way, whatever the order shown and whatever came before."""

    seed: int
    noise: float = NOISE

    def judge(self, prompt: str, texts: Sequence[str]) -> Judgement:
        order = sorted(range(len(texts)), key=lambda i: texts[i])
        by_text = [texts[i] for i in order]
        rng = Random("\0".join([str(self.seed), prompt, *by_text]))  # noqa: S311  (a simulation, not a secret)
        ranks = rank_slate(rng, prompt, by_text, self.noise)
        qualities = rate_slate(rng, prompt, by_text, ranks)
        shown = [order.index(i) for i in range(len(texts))]
        return Judgement([ranks[place] for place in shown], [qualities[place] for place in shown])


def rank_slate(rng: Random, prompt: str, texts: Sequence[str], noise: float = NOISE) -> list[int]:
    """The rank of each text, 1 is best; with probability `noise` one pair of neighbours is tied.

    noise: the expected share of the slate's comparisons on which the ranking and the gold differ, from 0 to 0.5; a tie
    counts one half. Comparisons on which the gold itself is undecided come out at random.
    """
    if not 0 <= noise <= 0.5:
        raise ValueError(f"noise={noise} must lie between 0 and 0.5")
    utilities = [gold_utility(prompt, text) for text in texts]
    best_first = sorted(range(len(texts)), key=lambda i: (-utilities[i], rng.random()))
    order: list[int] = []
    dispersion = dispersion_for(len(texts), noise)
    for index in best_first:  # repeated insertion: each goes last, or `places` before last, by dispersion ** places
        places = rng.choices(range(len(order) + 1), [dispersion**places for places in range(len(order) + 1)])[0]
        order.insert(len(order) - places, index)
    tied_with_next = rng.randrange(len(order) - 1) if len(order) > 1 and rng.random() < noise else None
    ranks = [0] * len(texts)
    rank = 1
    for position, index in enumerate(order):
        ranks[index] = rank
        rank += position != tied_with_next
    return ranks


def rate_slate(rng: Random, prompt: str, texts: Sequence[str], ranks: Sequence[int]) -> list[int]:
    """Quality from 1 to 7 for each text: the gold utility, blurred, and never against the labeler's own ranking."""
    impressions = [2.0 + gold_utility(prompt, text) + rng.gauss(0, 0.7) for text in texts]
    best_first = sorted((max(1, min(7, round(impression))) for impression in impressions), reverse=True)
    quality_of_rank: dict[int, int] = {}
    for rank, quality in zip(sorted(ranks), best_first, strict=True):
        quality_of_rank.setdefault(rank, quality)
    return [quality_of_rank[rank] for rank in ranks]


@lru_cache
def dispersion_for(k: int, noise: float) -> float:
    """The Mallows dispersion, 0 to 1, at which a ranking of k errs on `noise` of its comparisons."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if expected_disagreement(k, middle, noise) < noise else (low, middle)
    return (low + high) / 2


def expected_disagreement(k: int, dispersion: float, tie_probability: float) -> float:
    """The share of comparisons that differ from the gold order, a tie counting one half.

    An item inserted `places` before the end errs on as many comparisons. Two neighbours in the final order stand the
    wrong way round with probability dispersion / (1 + dispersion), which a tie turns into one half.
    """
    if k < 2:
        return 0.0
    errors = 0.0
    for num_placed in range(1, k):
        weights = [dispersion**places for places in range(num_placed + 1)]
        errors += sum(places * weight for places, weight in enumerate(weights)) / sum(weights)
    errors += tie_probability * (0.5 - dispersion / (1 + dispersion))
    return errors / (k * (k - 1) / 2)

"""Which comparisons of a ranking are written, and with which labels and weights. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Literal

from app.datasets.rows import RankingRow

Ties = Literal["drop", "keep", "halve"]


def compared_places(row: RankingRow, ties: Ties) -> Iterator[tuple[int, int, bool]]:
    """Positions of the better and the worse completion, from the best downwards, and whether the two tie.

    ties: whether pairs of equal rank are left out, there once, or there both ways: who reads both, each with half the
    weight, is told that neither is better.
    """
    order = [position for _, position in row.places]
    for place, better in enumerate(order):
        for worse in order[place + 1 :]:
            if row.ranks[better] < row.ranks[worse]:
                yield better, worse, False
            elif ties != "drop" and row.is_tie(better, worse):
                yield better, worse, True
                if ties == "halve":
                    yield worse, better, True


def with_reliability(rows: Iterable[RankingRow]) -> Iterator[RankingRow]:
    """The rankings, each weighing what its labeler's reliability makes of it."""
    return (replace(row, weight=row.weight * row.reliability_weight) for row in rows)


def with_decisions(rows: Iterable[RankingRow]) -> Iterator[RankingRow]:
    """The rankings, but for a slate that a researcher decided the decision alone, where its first ranking would be."""
    for row in rows:
        if row.decision is None:
            yield row
        elif row.is_first_of_decided:
            yield replace(row, ranks=row.decision.ranks, is_decision=True, is_pick=False, strength=None, weight=1.0)

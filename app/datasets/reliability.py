"""How far labelers agree, slate by slate and person by person, written down when a snapshot is frozen.

The agreement of two rankings is the quality page's: the share of comparisons that both order alike, a tie in one of
them a half (one minus the Kendall distance with penalty ½ of Fagin et al. 2004). A slate's is the mean over its pairs
of rankings, a labeler's over the pairs of one of theirs with somebody else's.

With few pairings that mean says little, so a labeler's reliability is drawn to the mean of all: as if they had
PRIOR_PAIRINGS more, of average agreement (the posterior mean under a conjugate prior; Efron & Morris 1975).

Where labelers err independently with probability 1 - p, two agree with a = p q + (1 - p)(1 - q), so that
2 a - 1 = (2 p - 1)(2 q - 1): what exceeds chance is proportional to 2 p - 1 (the one-coin model of Dawid & Skene 1979).
That is the weight here, and to first order the log odds by which Snow et al. 2008 weigh votes. Who agrees no more than
by chance weighs nothing. The weights' mean over the rankings of a snapshot is 1.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import func, insert, select, text
from sqlalchemy.orm import Session

from app.datasets.models import SnapshotLabeler, SnapshotRanking, SnapshotSlate
from app.quality.pairs import pairs_of

PRIOR_PAIRINGS = 10  # a labeler with so many pairings is believed by half
RANKINGS_AT_ONCE = 5_000  # compared together: bounds the memory

SHARED_SLATES = """
WITH chosen AS MATERIALIZED (
    SELECT ranking.id, ranking.slate_id, ranking.is_pick, snapshot_ranking.pseudonym
    FROM snapshot_ranking JOIN ranking ON ranking.id = snapshot_ranking.ranking_id
    WHERE snapshot_ranking.snapshot_id = :snapshot_id
), shared AS (
    SELECT slate_id FROM chosen GROUP BY slate_id HAVING count(DISTINCT pseudonym) > 1
)
SELECT chosen.slate_id, chosen.pseudonym, chosen.is_pick,
       (SELECT array_agg(item.rank ORDER BY item.completion_id)
        FROM ranking_item AS item WHERE item.ranking_id = chosen.id) AS ranks
FROM chosen JOIN shared USING (slate_id)
ORDER BY chosen.slate_id, chosen.id
"""


@dataclass(frozen=True)
class SharedRanking:
    """A ranking of a slate that others ranked too. ranks: in an order that all rankings of the slate have in common."""

    slate_id: UUID
    pseudonym: str
    is_pick: bool
    ranks: Sequence[int]


@dataclass
class Tally:
    """Pairings of one's rankings with others': how many, and the sum of their agreement."""

    num: int = 0
    agreement: float = 0.0

    def add(self, agreement: float) -> None:
        self.num += 1
        self.agreement += agreement

    @property
    def mean(self) -> float | None:
        return self.agreement / self.num if self.num else None


def freeze_reliability(session: Session, snapshot_id: int) -> int:
    """Write down the agreement of the snapshot's slates and the reliability and weight of who ranked them.

    Returns how many slates two or more people compared: where there is none, nobody's reliability is known.
    """
    labelers: dict[str, Tally] = defaultdict(Tally)
    num_slates = 0
    for some in whole_slates(shared_rankings(session, snapshot_id)):
        slates = compared(some, labelers)
        num_slates += len(slates)
        if slates:
            session.execute(
                insert(SnapshotSlate),
                [
                    {"snapshot_id": snapshot_id, "slate_id": slate_id, "agreement": tally.mean}
                    for slate_id, tally in slates.items()
                ],
            )
    freeze_labelers(session, snapshot_id, labelers)
    return num_slates


def freeze_labelers(session: Session, snapshot_id: int, labelers: dict[str, Tally]) -> None:
    """labelers: their pairings, by pseudonym; who ranked and is not among them has none."""
    num_rankings = dict(
        session.execute(
            select(SnapshotRanking.pseudonym, func.count())
            .where(SnapshotRanking.snapshot_id == snapshot_id)
            .group_by(SnapshotRanking.pseudonym)
        ).all()
    )
    if not num_rankings:
        return
    reliabilities = shrunk(labelers, num_rankings)
    weights = weights_of(reliabilities, num_rankings)
    session.execute(
        insert(SnapshotLabeler),
        [
            {
                "snapshot_id": snapshot_id,
                "pseudonym": pseudonym,
                "num_rankings": num,
                "num_pairings": labelers[pseudonym].num,
                "agreement": labelers[pseudonym].mean,
                "reliability": reliabilities[pseudonym],
                "weight": weights[pseudonym],
            }
            for pseudonym, num in sorted(num_rankings.items())
        ],
    )


def shared_rankings(session: Session, snapshot_id: int) -> Iterator[SharedRanking]:
    """Those of slates that two or more people ranked, the same slate's one after the other."""
    options = {"stream_results": True, "yield_per": 1_000}
    with session.execute(text(SHARED_SLATES), {"snapshot_id": snapshot_id}, execution_options=options) as rows:
        for row in rows:
            yield SharedRanking(*row)


def compared(some: Sequence[SharedRanking], labelers: dict[str, Tally]) -> dict[UUID, Tally]:
    """Every two rankings of one slate by different people: the slates' tallies; the labelers' are added to theirs.

    some: at least one, all of each slate's.
    """
    slates: dict[UUID, Tally] = defaultdict(Tally)
    pairs = pairs_of(
        numbered([ranking.slate_id for ranking in some]),
        numbered([ranking.pseudonym for ranking in some]),
        np.zeros(len(some), dtype=np.int64),
        padded([ranking.ranks for ranking in some]),
        np.array([ranking.is_pick for ranking in some]),
    )
    for first, second, alike, num in zip(pairs.first, pairs.second, pairs.alike, pairs.num, strict=True):
        if num:  # two picks may compare nothing in common
            share = float(alike) / int(num)
            slates[some[first].slate_id].add(share)
            labelers[some[first].pseudonym].add(share)
            labelers[some[second].pseudonym].add(share)
    return slates


def whole_slates(rankings: Iterable[SharedRanking]) -> Iterator[list[SharedRanking]]:
    """The rankings in lists of about RANKINGS_AT_ONCE, no slate parted."""
    some: list[SharedRanking] = []
    for _, of_slate in groupby(rankings, key=lambda ranking: ranking.slate_id):
        some.extend(of_slate)
        if len(some) >= RANKINGS_AT_ONCE:
            yield some
            some = []
    if some:
        yield some


def numbered(names: Sequence[Any]) -> Any:
    """Each name as a number from 0. (N,)"""
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names])


def padded(ranks: Sequence[Sequence[int]]) -> Any:
    """(N, K) with K the largest; 0 is padding."""
    table = np.zeros((len(ranks), max(map(len, ranks))), dtype=np.int64)
    for row, given in zip(table, ranks, strict=True):
        row[: len(given)] = given
    return table


def shrunk(labelers: dict[str, Tally], everybody: Iterable[str]) -> dict[str, float | None]:
    """Each one's agreement, drawn to the mean of all pairings; None for all where there is no pairing."""
    total, num = sum(tally.agreement for tally in labelers.values()), sum(tally.num for tally in labelers.values())
    if not num:
        return dict.fromkeys(everybody)
    mean = total / num
    return {
        name: (labelers[name].agreement + PRIOR_PAIRINGS * mean) / (labelers[name].num + PRIOR_PAIRINGS)
        for name in everybody
    }


def weights_of(reliabilities: dict[str, float | None], num_rankings: dict[str, int]) -> dict[str, float]:
    """What exceeds chance, over its mean over all rankings; 1 for all where nobody's does or nobody's is known."""
    above = {name: max(0.0, 2 * (0.5 if value is None else value) - 1) for name, value in reliabilities.items()}
    mean = sum(above[name] * num for name, num in num_rankings.items()) / sum(num_rankings.values())
    return {name: value / mean if mean else 1.0 for name, value in above.items()}

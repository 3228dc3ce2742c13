"""Two reward models on the same rankings: both tables of scores cut to what they have in common."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sqlalchemy.orm import Session

from app.reward_models.contradictions import Contradictions, between_models
from app.reward_models.differences import Difference, difference
from app.reward_models.errors import NothingInCommon
from app.reward_models.judged import Judged, judged
from app.reward_models.kept import Kept
from app.reward_models.measures import comparisons_of
from app.reward_models.service import Evaluated
from app.reward_models.tables import ScoredRankings
from app.settings import Settings

MOST_BYTES_KEPT = 64 * 2**20  # in each web process; what both judged last stays, however large


@dataclass(frozen=True)
class SideBySide:
    """The rankings that both judged. first: with the first's scores.  second: the same ones with the second's.

    contradictions: where one alone agrees with people, "first" or "second".
    """

    first: Judged
    second: ScoredRankings
    num_comparisons: int
    difference: Difference
    contradictions: Mapping[str, Contradictions]

    @property
    def num_rankings(self) -> int:
        return len(self.second)

    @property
    def num_bytes(self) -> int:
        """About what they take in memory."""
        return self.first.num_bytes + self.second.num_bytes + sum(it.num_bytes for it in self.contradictions.values())


def compare(session: Session, settings: Settings, first: Evaluated, second: Evaluated) -> SideBySide:
    """Raises NoReportYet, NothingInCommon, ScoresMissing, ScoresAway."""
    one, other = (judged(session, settings, each) for each in (first, second))
    return _kept.get((one.name, other.name), f"{one.state} {other.state}", lambda: side_by_side(one, other))


_kept: Kept[SideBySide] = Kept(MOST_BYTES_KEPT)


def side_by_side(one: Judged, other: Judged) -> SideBySide:
    """What both judged. Raises NothingInCommon."""
    place = {id: row for row, id in enumerate(other.table.ids)}
    rows = [row for row, id in enumerate(one.table.ids) if id in place]
    if not rows:
        raise NothingInCommon
    common = one.at(np.array(rows, dtype=np.int64))
    second = other.table.at(np.array([place[id] for id in common.table.ids], dtype=np.int64))
    comparisons = comparisons_of(common.table), comparisons_of(second)
    return SideBySide(
        common,
        second,
        len(comparisons[0]),
        difference(*comparisons),
        {only: between_models(common, *comparisons, only=only) for only in ("first", "second")},
    )

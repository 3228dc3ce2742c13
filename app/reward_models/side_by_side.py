"""Two reward models on the same rankings: both tables of scores cut to what they have in common."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np
from sqlalchemy.orm import Session

from app.reward_models.contradictions import Contradiction, between_models, slates_of
from app.reward_models.differences import Difference, difference
from app.reward_models.errors import NoReportYet, NothingInCommon
from app.reward_models.measures import Comparisons, comparisons_of
from app.reward_models.service import Evaluated
from app.reward_models.tables import ScoredRankings, judged_by, scores_of
from app.rounds.models import StageState
from app.settings import Settings


@dataclass(frozen=True)
class SideBySide:
    """The same comparisons with the scores of both, in the same order."""

    first: Comparisons
    second: Comparisons
    difference: Difference
    slates: dict[str, tuple[UUID, bool]]

    def contradictions(self, only: str) -> list[Contradiction]:
        """Where one alone agrees with people. only: "first" or "second"."""
        return between_models(self.first, self.second, self.slates, only=only)

    @property
    def num_rankings(self) -> int:
        return len(self.first.rankings)


def compare(session: Session, settings: Settings, first: Evaluated, second: Evaluated) -> SideBySide:
    """Raises NoReportYet, NothingInCommon, ScoresMissing, ScoresAway."""
    one, other = (report_table(settings, each) for each in (first, second))
    place = {id: row for row, id in enumerate(other.ids)}
    rows = [row for row, id in enumerate(one.ids) if id in place]
    if not rows:
        raise NothingInCommon
    common = comparisons_of(one.at(at(rows))), comparisons_of(other.at(at([place[one.ids[row]] for row in rows])))
    return SideBySide(*common, difference(*common), slates_of(session, first.snapshot.id))


def report_table(settings: Settings, evaluated: Evaluated) -> ScoredRankings:
    """The rankings that the report is about, with their scores. Raises NoReportYet, ScoresMissing, ScoresAway."""
    evaluation = evaluated.evaluation
    if evaluation.state != StageState.SUCCEEDED:
        raise NoReportYet(evaluation.id, evaluation.state.value)
    return judged_by(evaluation, scores_of(settings, evaluation))


def at(rows: Sequence[int]) -> np.ndarray:
    return np.array(rows, dtype=np.int64)

"""Two reward models on the same rankings: both tables of scores cut to what they have in common."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy.orm import Session

from app.reward_models.contradictions import Contradiction, Slates, between_models, slates_of
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
    slates: Slates

    def contradictions(self, only: str) -> list[Contradiction]:
        """Where one alone agrees with people. only: "first" or "second"."""
        return between_models(self.first, self.second, self.slates, only=only)

    @property
    def num_rankings(self) -> int:
        return len(self.first.rankings)


def compare(session: Session, settings: Settings, first: Evaluated, second: Evaluated) -> SideBySide:
    """Raises NoReportYet, NothingInCommon, ScoresMissing, ScoresAway."""
    (one, slates), (other, _) = (report_table(session, settings, each) for each in (first, second))
    place = {id: row for row, id in enumerate(other.ids)}
    rows = [row for row, id in enumerate(one.ids) if id in place]
    if not rows:
        raise NothingInCommon
    common = comparisons_of(one.at(at(rows))), comparisons_of(other.at(at([place[one.ids[row]] for row in rows])))
    return SideBySide(*common, difference(*common), slates)


def report_table(session: Session, settings: Settings, evaluated: Evaluated) -> tuple[ScoredRankings, Slates]:
    """The rankings that the report is about, with their scores, and the slates of these rankings.

    What was erased since is left out, whatever the table still has.  Raises NoReportYet, ScoresMissing, ScoresAway.
    """
    evaluation = evaluated.evaluation
    if evaluation.state != StageState.SUCCEEDED:
        raise NoReportYet(evaluation.id, evaluation.state.value)
    table = judged_by(evaluation, scores_of(settings, evaluation))
    slates = slates_of(session, evaluated.snapshot.id, table.ids)
    return table.at(at([row for row, id in enumerate(table.ids) if id in slates])), slates


def at(rows: Sequence[int]) -> np.ndarray:
    return np.array(rows, dtype=np.int64)

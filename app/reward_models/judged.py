"""The rankings that a report is about, as the database still has them: with their scores and the slates they are of.

Which ranking is of which slate never changes, so it is kept beside the scores. What may change between two views (an
erasure took rankings out of the snapshot, people may be asked about a slate again) is asked for each time.
"""

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from uuid import UUID

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.batches import batches
from app.datasets.models import SnapshotRanking
from app.labeling.models import Ranking, Slate, SlateState
from app.reward_models.errors import NoReportYet
from app.reward_models.kept import Kept
from app.reward_models.service import Evaluated
from app.reward_models.tables import Bools, Ints, ScoredRankings, judged_by, scores_of
from app.rounds.models import StageState
from app.settings import Settings

RANKINGS_A_QUERY = 5_000
MOST_BYTES_KEPT = 128 * 2**20  # in each web process
BYTES_OF_A_SLATE = 250  # its id, in a list and as a key
OPEN = (SlateState.SAMPLING, SlateState.READY)


@dataclass(frozen=True)
class Judged:
    """N rankings of S slates with their scores.

    name: of the report, for what is kept of it.  state: the same as long as the rankings and the open slates are.
    slate: (N,) the place of each ranking's slate in slate_ids.  is_open: (S,) whether people may still be asked of it.
    """

    name: Hashable
    state: str
    table: ScoredRankings
    slate_ids: Sequence[UUID]
    slate: Ints
    is_open: Bools

    def at(self, rows: Ints) -> "Judged":
        """These rankings alone."""
        return replace(self, table=self.table.at(rows), slate=self.slate[rows])

    @cached_property
    def place_of(self) -> dict[UUID, int]:
        """Each slate's place in slate_ids."""
        return {id: place for place, id in enumerate(self.slate_ids)}

    @cached_property
    def num_bytes(self) -> int:
        """About what it takes in memory."""
        return self.table.num_bytes + self.slate.nbytes + BYTES_OF_A_SLATE * len(self.slate_ids)


def judged(session: Session, settings: Settings, evaluated: Evaluated) -> Judged:
    """The rankings that the report is about.

    What was erased since is left out, whatever the table still has.  Raises NoReportYet, ScoresMissing, ScoresAway.
    """
    evaluation = evaluated.evaluation
    if evaluation.state != StageState.SUCCEEDED:
        raise NoReportYet(evaluation.id, evaluation.state.value)
    table = scores_of(settings, evaluation)
    version = f"{evaluation.manifest_sha256} {num_left(session, evaluated)}"
    name = (settings.artifacts, evaluation.folder, evaluation.id)
    known = _kept.get(
        name, version, lambda: with_slates(session, evaluated, name, version, judged_by(evaluation, table))
    )
    return with_open_slates(session, known, evaluation.project_id)


_kept: Kept[Judged] = Kept(MOST_BYTES_KEPT)


def num_left(session: Session, evaluated: Evaluated) -> int:
    """How many rankings the snapshot has; counted where an erasure has taken some out of it."""
    if evaluated.snapshot.redaction is None:
        return evaluated.snapshot.num_rankings
    rows = select(func.count()).where(SnapshotRanking.snapshot_id == evaluated.snapshot.id)
    return session.scalars(rows).one()


def with_slates(session: Session, evaluated: Evaluated, name: Hashable, state: str, table: ScoredRankings) -> Judged:
    """Those rankings of the table that the snapshot still has, each with its slate; none of them open."""
    rankings = (
        select(Ranking.id, Ranking.slate_id)
        .join(SnapshotRanking, SnapshotRanking.ranking_id == Ranking.id)
        .where(SnapshotRanking.snapshot_id == evaluated.snapshot.id)
    )
    slate_of: dict[str, UUID] = {}
    for some in batches(table.ids, RANKINGS_A_QUERY):
        found = session.execute(rankings.where(Ranking.id.in_(map(UUID, some))))
        slate_of |= {str(id): slate_id for id, slate_id in found}
    left = [row for row, id in enumerate(table.ids) if id in slate_of]
    if len(left) < len(table):
        table = table.at(np.array(left, dtype=np.int64))
    places: dict[UUID, int] = {}
    slate = np.array([places.setdefault(slate_of[id], len(places)) for id in table.ids], dtype=np.int64)
    return Judged(name, state, table, list(places), slate, np.zeros(len(places), dtype=bool))


def with_open_slates(session: Session, known: Judged, project_id: int) -> Judged:
    """The same rankings, with those slates open that are so now."""
    are_open = select(Slate.id).where(Slate.project_id == project_id, Slate.state.in_(OPEN))
    places = sorted(known.place_of[id] for id in session.scalars(are_open) if id in known.place_of)
    if not places:
        return known
    is_open = known.is_open.copy()
    is_open[places] = True
    return replace(known, is_open=is_open, state=f"{known.state} {hashlib.sha256(repr(places).encode()).hexdigest()}")

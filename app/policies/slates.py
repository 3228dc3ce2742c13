"""One slate as a researcher reads it: who wrote what, how people ranked it, and where the rankings went."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets.models import Snapshot
from app.labeling.models import Completion, CompletionSource, Ranking, Slate, SlateState
from app.people.models import Labeler
from app.policies.errors import RankingUnknown, SlateNotFound
from app.policies.labels import Reached, judged_by, reached_by, snapshots_with
from app.policies.models import PolicyVersion
from app.projects.models import Project
from app.rounds.models import Round


@dataclass(frozen=True)
class Written:
    """A completion and who wrote it: a version, a person, an import. None: people still judge the slate blind."""

    completion: Completion
    version: PolicyVersion | None
    author: str | None


@dataclass(frozen=True)
class Judged:
    """A ranking with the policies that it reached."""

    ranking: Ranking
    labeler: str
    ranks: dict[UUID, int]
    snapshots: Sequence[Snapshot]
    reached: list[Reached]


@dataclass(frozen=True)
class SlateView:
    """All that a slate's page shows."""

    slate: Slate
    completions: list[Written]
    rankings: list[Judged]
    compares: tuple[Round, PolicyVersion] | None

    @property
    def is_blind(self) -> bool:
        return is_blind(self.slate)


def is_blind(slate: Slate) -> bool:
    """Whether somebody may yet be asked about it: whoever reads this may be a labeler too."""
    return slate.state not in (SlateState.DONE, SlateState.RETIRED)


def find_slate(session: Session, project: Project, slate_id: UUID) -> Slate:
    """Raises SlateNotFound, also for another project's."""
    slate = session.get(Slate, slate_id)
    if slate is None or slate.project_id != project.id:
        raise SlateNotFound
    return slate


def find_ranking(session: Session, project: Project, ranking_id: UUID) -> Ranking:
    """Raises RankingUnknown, also for another project's."""
    ranking = session.get(Ranking, ranking_id)
    if ranking is None or ranking.project_id != project.id:
        raise RankingUnknown
    return ranking


def slate_view(session: Session, project: Project, slate: Slate) -> SlateView:
    """The slate with its completions, its rankings in the order they came, and what became of them.

    While people judge it nothing is shown of who wrote what or how others ranked it.
    """
    blind = is_blind(slate)
    return SlateView(
        slate=slate,
        completions=[written(session, completion, blind) for completion in slate.completions],
        rankings=[] if blind else judged(session, project, slate),
        compares=None if blind else judged_by(session, slate),
    )


def written(session: Session, completion: Completion, blind: bool) -> Written:
    if blind:
        return Written(completion, None, None)
    if completion.source != CompletionSource.POLICY:
        by_person = completion.source == CompletionSource.DEMONSTRATION
        return Written(completion, None, "a person" if by_person else "imported")
    version = session.get_one(PolicyVersion, completion.policy_version_id)
    return Written(completion, version, f"version {version.number}")


def judged(session: Session, project: Project, slate: Slate) -> list[Judged]:
    rows = session.execute(
        select(Ranking, Labeler.pseudonym)
        .join(Labeler, Labeler.id == Ranking.labeler_id)
        .where(Ranking.slate_id == slate.id)
        .order_by(Ranking.submitted_at, Ranking.id)
    )
    return [
        Judged(
            ranking=ranking,
            labeler=pseudonym,
            ranks={item.completion_id: item.rank for item in ranking.items},
            snapshots=snapshots_with(session, ranking),
            reached=reached_by(session, project, ranking),
        )
        for ranking, pseudonym in rows
    ]

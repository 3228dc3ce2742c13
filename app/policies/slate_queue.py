"""A project's slates as the admin watches them: how many there are, what waits, who holds what, and each by a filter.

Reads only, and from indexes: a project of a year has a million slates, of which a few hundred are under way.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVarTuple
from uuid import UUID

from sqlalchemy import Select, func, select, tuple_
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import InstrumentedAttribute, Session, joinedload

from app.db import constant
from app.labeling.models import Completion, Lease, Ranking, Slate, SlateKind, SlateState, SlateVersion
from app.labeling.stretches import newest_of_each, newest_of_version
from app.people.models import Account, Labeler
from app.policies.models import PolicyVersion
from app.policies.slates import is_blind
from app.projects.models import Project
from app.prompts.models import Prompt

A_PAGE = 50
LEASES_SHOWN = 50
REASONS_SHOWN = 10
Columns = TypeVarTuple("Columns")
CLOSED = (SlateState.DONE, SlateState.RETIRED)  # nobody is asked about them any more


@dataclass(frozen=True)
class SlateFilter:
    """Which slates are asked for. version: one that wrote a completion of theirs.  before: the last of another page."""

    state: SlateState | None = None
    kind: SlateKind | None = None
    version: int | None = None
    before: UUID | None = None

    @property
    def states(self) -> Sequence[SlateState]:
        """Who wrote what is told of a slate when people are done with it, also by what a filter finds."""
        wanted = tuple(SlateState) if self.state is None else (self.state,)
        return wanted if self.version is None else [state for state in wanted if state in CLOSED]

    @property
    def kinds(self) -> Sequence[SlateKind]:
        return tuple(SlateKind) if self.kind is None else (self.kind,)

    @property
    def is_choice(self) -> bool:
        return (self.state, self.kind, self.version) != (None, None, None)


@dataclass(frozen=True)
class KindLine:
    """One kind's slates. num: by state.  waiting: the one that has been ready the longest."""

    kind: SlateKind
    num: dict[SlateState, int]
    waiting: tuple[UUID, datetime] | None


@dataclass(frozen=True)
class HeldSlate:
    """A lease that is open and has not run out."""

    lease: Lease
    slate: Slate
    pseudonym: str
    name: str | None


@dataclass(frozen=True)
class SlateLine:
    """A slate in the list. versions: the numbers of those that wrote it; None while people judge it blind."""

    slate: Slate
    num_rankings: int  # that count
    versions: Sequence[int] | None


def kind_lines(session: Session, project: Project) -> list[KindLine]:
    """The kinds that the project has slates of."""
    counted = session.execute(
        select(Slate.kind, Slate.state, func.count())
        .where(Slate.project_id == project.id)
        .group_by(Slate.kind, Slate.state)
    ).all()
    waiting = longest_waiting(session, project)
    return [
        KindLine(kind, {state: num for of, state, num in counted if of == kind}, waiting.get(kind))
        for kind in SlateKind
        if any(of == kind for of, _, _ in counted)
    ]


def longest_waiting(session: Session, project: Project) -> dict[SlateKind, tuple[UUID, datetime]]:
    """By kind: the slate that has been ready the longest, and since when."""
    since = func.coalesce(Slate.ready_at, Slate.created_at)
    rows = session.execute(
        select(Slate.kind, Slate.id, since)
        .ext(distinct_on(Slate.kind))
        .where(Slate.project_id == project.id, Slate.state == constant(SlateState.READY))
        .order_by(Slate.kind, since)
    )
    return {kind: (slate_id, ready_at) for kind, slate_id, ready_at in rows}


def held_slates(session: Session, project: Project, now: datetime) -> tuple[list[HeldSlate], int]:
    """The leases that labelers hold now, those that run out first before the others; and how many there are."""
    query = (
        select(Lease, Slate, Labeler.pseudonym, Account.name, func.count().over())
        .join(Labeler, Labeler.id == Lease.labeler_id)
        .join(Slate, Slate.id == Lease.slate_id)
        .outerjoin(Account, Account.id == Labeler.account_id)
        .where(Labeler.project_id == project.id, Lease.closed_at.is_(None), Lease.expires_at > now)
        .order_by(Lease.expires_at, Lease.id)
        .limit(LEASES_SHOWN)
        .options(joinedload(Slate.prompt))
    )
    rows = session.execute(query).all()
    return [HeldSlate(*row[:-1]) for row in rows], rows[0][-1] if rows else 0


def set_aside_prompts(session: Session, project: Project) -> list[tuple[str, int, datetime]]:
    """Why prompts are not sampled from any more: the reason, of how many, and when the last one was set aside."""
    num = func.count()
    rows = session.execute(
        select(Prompt.set_aside_reason, num, func.max(Prompt.set_aside_at))
        .where(Prompt.project_id == project.id, Prompt.set_aside_at.is_not(None))
        .group_by(Prompt.set_aside_reason)
        .order_by(num.desc(), Prompt.set_aside_reason)
        .limit(REASONS_SHOWN)
    )
    return [(reason, number, last) for reason, number, last in rows if reason is not None and last is not None]


def slate_lines(session: Session, project: Project, wanted: SlateFilter) -> tuple[list[SlateLine], bool]:
    """A page of slates, the newest first, and whether there are more."""
    ids = session.scalars(newest(session, project, wanted)).all()
    shown = ids[:A_PAGE]
    slates = session.scalars(
        select(Slate)
        .where(Slate.id.in_(shown))
        .order_by(Slate.created_at.desc(), Slate.id.desc())
        .options(joinedload(Slate.prompt))
    ).all()
    rankings, versions = num_rankings(session, shown), versions_of(session, shown)
    lines = [
        SlateLine(slate, rankings.get(slate.id, 0), None if is_blind(slate) else versions.get(slate.id, []))
        for slate in slates
    ]
    return lines, len(ids) > A_PAGE


def newest(session: Session, project: Project, wanted: SlateFilter) -> Select[UUID]:
    """The ids of a page and of one slate more."""
    if wanted.version is not None:
        return newest_by_version(project, wanted)
    page = before(select(Slate.id, Slate.created_at), wanted, Slate.created_at, Slate.id)
    page = page.where(Slate.project_id == project.id)
    return newest_of_each(page, wanted.states, wanted.kinds, limit=A_PAGE + 1)


def newest_by_version(project: Project, wanted: SlateFilter) -> Select[UUID]:
    """The same of those that a version wrote."""
    by = SlateVersion
    version_id = select(PolicyVersion.id).where(
        PolicyVersion.project_id == project.id, PolicyVersion.number == wanted.version
    )
    page = (
        select(by.slate_id, by.created_at)
        .join(Slate, Slate.id == by.slate_id)
        .where(by.policy_version_id == version_id.scalar_subquery(), Slate.state.in_(wanted.states))
    )
    page = before(page, wanted, by.created_at, by.slate_id)
    return newest_of_version(page, wanted.kinds, limit=A_PAGE + 1)


def before(
    query: Select[*Columns],
    wanted: SlateFilter,
    created_at: InstrumentedAttribute[datetime],
    slate_id: InstrumentedAttribute[UUID],
) -> Select[*Columns]:
    """The newest of them, on from where another page ended. created_at, slate_id: the query's columns of a slate."""
    query = query.order_by(created_at.desc(), slate_id.desc()).limit(A_PAGE + 1)
    if wanted.before is None:
        return query
    last = select(Slate.created_at, Slate.id).where(Slate.id == wanted.before)
    return query.where(tuple_(created_at, slate_id) < last.scalar_subquery())


def num_rankings(session: Session, slate_ids: Collection[UUID]) -> dict[UUID, int]:
    rows = session.execute(
        select(Ranking.slate_id, func.count())
        .where(Ranking.slate_id.in_(slate_ids), Ranking.counted, Ranking.retracted_at.is_(None))
        .group_by(Ranking.slate_id)
    )
    return dict(rows.all())


def versions_of(session: Session, slate_ids: Collection[UUID]) -> dict[UUID, list[int]]:
    """slate's id -> the numbers of the versions that wrote its completions."""
    rows = session.execute(
        select(Completion.slate_id, PolicyVersion.number)
        .join(PolicyVersion, PolicyVersion.id == Completion.policy_version_id)
        .where(Completion.slate_id.in_(slate_ids))
        .distinct()
        .order_by(PolicyVersion.number)
    )
    found: dict[UUID, list[int]] = {}
    for slate_id, number in rows:
        found.setdefault(slate_id, []).append(number)
    return found

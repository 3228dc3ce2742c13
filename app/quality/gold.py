"""Slates whose answer is known: a researcher ranks a copy of a slate and says why.

Gold slates are mixed silently into what labelers get; onboarding slates teach newcomers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import numpy as np
from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.orm import Session, aliased, joinedload, selectinload
from sqlalchemy.sql.elements import SQLCoreOperations

from app.db import constant
from app.labeling.models import Lease, Ranking, Slate, SlateKind, SlateState
from app.labeling.stretches import newest_of_each
from app.people.models import Account
from app.people.service import audit
from app.projects.models import Project
from app.quality.agreement import ordered_alike
from app.quality.copies import copy_slate
from app.quality.entry_errors import BadKnownAnswer, KnownAnswerNotFound
from app.quality.entry_models import ReferenceRanking

KINDS = (SlateKind.GOLD, SlateKind.ONBOARDING)
UNLIMITED = 32_767  # every labeler may rank it: the most that an overlap can say
LONGEST_REASON = 2_000  # characters
A_PAGE = 20


@dataclass(frozen=True)
class KnownAnswer:
    """A gold or onboarding slate with its answer and what labelers made of it."""

    slate: Slate
    reference: ReferenceRanking
    by: str
    num_rankings: int


# What may be copied. Slates of a round's comparison are left out: their candidate must stay on them alone.
KNOWABLE = (SlateKind.TRAINING, SlateKind.IMPORTED, SlateKind.PAIR)
SEEN = (SlateState.READY, SlateState.DONE)


def has_knowable_k() -> ColumnElement[bool]:
    """In SQL: whether a slate's K is what labelers see every day; or gold would not be silent."""
    return or_(Slate.kind == SlateKind.PAIR, Slate.k.between(4, 9))


def can_be_known() -> ColumnElement[bool]:
    """In SQL: whether a slate may be copied."""
    return and_(Slate.kind.in_(KNOWABLE), Slate.state.in_(SEEN), has_knowable_k())


def slates_to_choose_from(session: Session, project: Project, *, before: datetime | None) -> Sequence[Slate]:
    """Slates that may become known ones and have not yet, the newest first, a page of them."""
    copy = aliased(Slate)
    is_copied = exists().where(copy.repeats_id == Slate.id, copy.kind.in_(KINDS), copy.state != SlateState.RETIRED)
    page = select(Slate.id, Slate.created_at).where(Slate.project_id == project.id, has_knowable_k(), ~is_copied)
    if before is not None:
        page = page.where(Slate.created_at < before)
    page = page.order_by(Slate.created_at.desc(), Slate.id.desc()).limit(A_PAGE)
    ids = session.scalars(newest_of_each(page, SEEN, KNOWABLE, limit=A_PAGE)).all()
    query = select(Slate).where(Slate.id.in_(ids)).order_by(Slate.created_at.desc(), Slate.id.desc())
    return session.scalars(query.options(joinedload(Slate.prompt))).all()


def slate_to_rank(session: Session, project: Project, slate_id: UUID) -> Slate:
    """A slate that may become a known one, with its texts.  Raises KnownAnswerNotFound."""
    slate = session.scalar(
        select(Slate)
        .where(Slate.id == slate_id, Slate.project_id == project.id, can_be_known())
        .options(joinedload(Slate.prompt), selectinload(Slate.completions))
    )
    if slate is None:
        raise KnownAnswerNotFound
    return slate


def make_known(
    session: Session,
    project: Project,
    source: Slate,
    kind: SlateKind,
    *,
    ranks: Mapping[UUID, int],
    reason: str,
    account: Account,
    now: datetime,
) -> Slate:
    """Copy the slate as a gold or an onboarding one whose answer is `ranks`, of the source's completions.

    Raises BadKnownAnswer.
    """
    _check(source, ranks, reason)
    slate, new_ids = copy_slate(session, source, kind, overlap=UNLIMITED, now=now)
    session.add(
        ReferenceRanking(
            slate_id=slate.id,
            ranks={str(new_ids[completion_id]): rank for completion_id, rank in ranks.items()},
            reason=reason.strip(),
            account_id=account.id,
            created_at=now,
        )
    )
    session.flush()
    audit(session, account.id, "known_answer.make", f"slate:{slate.id}", project_id=project.id, kind=kind)
    return slate


def _check(source: Slate, ranks: Mapping[UUID, int], reason: str) -> None:
    if ranks.keys() != {completion.id for completion in source.completions}:
        raise BadKnownAnswer("gives each of the slate's completions one rank")
    if len(set(ranks.values())) < 2:
        raise BadKnownAnswer("places at least one completion above another")
    if not 0 < len(reason.strip()) <= LONGEST_REASON:
        raise BadKnownAnswer(f"says why, in 1 to {LONGEST_REASON} characters")


def known_answers(session: Session, project: Project) -> list[KnownAnswer]:
    """The known answers in use, the newest first."""
    num_rankings = (
        select(func.count()).where(Ranking.slate_id == Slate.id, Ranking.retracted_at.is_(None)).scalar_subquery()
    )
    rows = session.execute(
        select(Slate, ReferenceRanking, Account.name, num_rankings)
        .join(ReferenceRanking, ReferenceRanking.slate_id == Slate.id)
        .join(Account, Account.id == ReferenceRanking.account_id)
        .where(Slate.project_id == project.id, Slate.state == SlateState.READY)
        .order_by(ReferenceRanking.created_at.desc())
        .options(joinedload(Slate.prompt), selectinload(Slate.completions))
    )
    return [KnownAnswer(slate, reference, name, num) for slate, reference, name, num in rows]


def retire(session: Session, project: Project, slate_id: UUID, *, account: Account, now: datetime) -> None:
    """Give the slate to nobody any more; its answer and its rankings stay on record.  Raises KnownAnswerNotFound."""
    slate = session.get(Slate, slate_id, with_for_update=True)
    if slate is None or slate.project_id != project.id or slate.kind not in KINDS:
        raise KnownAnswerNotFound
    if slate.state is SlateState.READY:
        slate.state, slate.retired_at = SlateState.RETIRED, now
        audit(session, account.id, "known_answer.retire", f"slate:{slate.id}", project_id=project.id)


def is_gold_for(labeler_id: SQLCoreOperations[int], account_id: SQLCoreOperations[int]) -> ColumnElement[bool]:
    """In SQL: gold slates that tell something about this labeler.

    Left out are those they answered as a researcher, and copies of a slate they know.
    """
    is_own = exists().where(ReferenceRanking.slate_id == Slate.id, ReferenceRanking.account_id == account_id)
    is_known = exists().where(Lease.slate_id == Slate.repeats_id, Lease.labeler_id == labeler_id)
    return (Slate.kind == constant(SlateKind.GOLD)) & ~is_own & ~is_known


def held_against(reference: Mapping[str, int], ranks: Mapping[str, int]) -> tuple[float, int]:
    """How many pairs of completions are ordered as in the reference, and of how many; both by completion id.

    agreement.ordered_alike says how ties count.
    """
    ids = sorted(reference)
    theirs, ours = ([ranks_of[completion_id] for completion_id in ids] for ranks_of in (reference, ranks))
    agreed, num_pairs = ordered_alike(np.array([theirs]), np.array([ours]))
    return float(agreed[0]), int(num_pairs[0])

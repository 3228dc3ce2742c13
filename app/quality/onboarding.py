"""Newcomers rank slates whose answer is known, see it after each, and enter at the project's agreement.

A newcomer is a labeler with nothing that counts yet, in a project that has onboarding slates. A try is each of those
slates once, in an order of its own. Below the threshold after the last try, an admin decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, exists, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased
from sqlalchemy.sql.elements import SQLCoreOperations

from app.db import constant
from app.labeling.models import DECLINED, Draft, Lease, Ranking, RankingItem, Slate, SlateKind, SlateState
from app.people.models import Account, Labeler, Membership, Role
from app.people.service import audit
from app.projects.models import Project
from app.quality.entry_errors import LessonNotFound, NotANewcomer
from app.quality.entry_models import Onboarding, OnboardingAnswer, ReferenceRanking
from app.quality.gold import held_against


@dataclass(frozen=True)
class Lesson:
    """What a newcomer is shown after a submit: the researchers' answer, their reason, and where the try stands."""

    ranks: dict[UUID, int]
    reason: str
    agreement: float  # on this slate, share of its pairs
    outcome: str  # one sentence


@dataclass(frozen=True)
class Standing:
    """Where a newcomer stands in their current try."""

    try_number: int
    num_tries: int
    num_answered: int
    num_slates: int
    agreement: float | None  # so far; None before the first answer
    has_entered: bool
    waits: bool


@dataclass(frozen=True)
class Newcomer:
    """A newcomer as an admin sees them."""

    labeler: Labeler
    name: str
    standing: Standing
    waits_since: datetime | None


# In SQL, about the labeler of the row


def is_newcomer() -> ColumnElement[bool]:
    """Whether the labeler has to pass the onboarding slates first. Admins and researchers never have to."""
    is_labeler = exists().where(
        Membership.account_id == Labeler.account_id,
        Membership.project_id == Labeler.project_id,
        Membership.role == Role.LABELER,
        Account.id == Membership.account_id,
        ~Account.is_site_admin,
    )
    has_slates = exists().where(Slate.project_id == Labeler.project_id, is_in_use())
    has_entered = exists().where(Onboarding.labeler_id == Labeler.id, Onboarding.entered_at.is_not(None))
    has_counted = exists().where(Ranking.labeler_id == Labeler.id, Ranking.counted)
    return and_(has_slates, is_labeler, ~has_entered, ~has_counted)


def is_waiting() -> ColumnElement[bool]:
    """Whether the labeler waits for an admin."""
    return exists().where(Onboarding.labeler_id == Labeler.id, Onboarding.waits_since.is_not(None))


def is_in_use() -> ColumnElement[bool]:
    """Whether a slate is one of those that newcomers rank."""
    return and_(Slate.kind == constant(SlateKind.ONBOARDING), Slate.state == constant(SlateState.READY))


def is_left_for(labeler_id: SQLCoreOperations[int]) -> ColumnElement[bool]:
    """Whether an onboarding slate is still to be ranked in the labeler's current try, and not in their hands."""
    is_held = exists().where(Lease.slate_id == Slate.id, Lease.labeler_id == labeler_id, Lease.closed_at.is_(None))
    return and_(Slate.kind == constant(SlateKind.ONBOARDING), ~_is_answered_by(labeler_id), ~is_held)


def order_for(labeler_id: SQLCoreOperations[int]) -> tuple[SQLCoreOperations[Any], ...]:
    """Begun work first, what they skipped last, the rest in an order that differs by person and try."""
    has_draft = exists().where(Draft.slate_id == Slate.id, Draft.labeler_id == labeler_id)
    is_skipped = exists().where(Lease.slate_id == Slate.id, Lease.labeler_id == labeler_id, Lease.end.in_(DECLINED))
    number = select(Onboarding.try_number).where(Onboarding.labeler_id == labeler_id).scalar_subquery()
    shuffled = func.md5(func.concat(Slate.id, "/", labeler_id, "/", func.coalesce(number, 1)))
    return (has_draft.desc(), is_skipped, shuffled)


def _is_answered_by(labeler_id: SQLCoreOperations[int] | int) -> ColumnElement[bool]:
    current = select(Onboarding.try_number).where(Onboarding.labeler_id == labeler_id).scalar_subquery()
    return exists().where(
        OnboardingAnswer.labeler_id == labeler_id,
        OnboardingAnswer.slate_id == Slate.id,
        OnboardingAnswer.try_number == current,
    )


# What happens


def answer(session: Session, project: Project, ranking: Ranking, *, now: datetime) -> Lesson:
    """Hold a newcomer's ranking of an onboarding slate against the reference, and conclude the try after its last."""
    onboarding = _locked(session, ranking.labeler_id)
    agreed, num_pairs = _held_against_reference(session, ranking)
    session.execute(
        insert(OnboardingAnswer)
        .values(
            ranking_id=ranking.id,
            labeler_id=ranking.labeler_id,
            slate_id=ranking.slate_id,
            try_number=onboarding.try_number,
            num_agreed=agreed,
            num_pairs=num_pairs,
        )
        .on_conflict_do_nothing()  # a late second ranking of the slate teaches, and changes no result
    )
    conclude_if_complete(session, project, ranking.labeler_id, now=now)
    return lesson_of(session, project, ranking)


def lesson_of(session: Session, project: Project, ranking: Ranking) -> Lesson:
    """The lesson that belongs to a ranking of an onboarding slate, as things stand now."""
    reference = session.get_one(ReferenceRanking, ranking.slate_id)
    agreed, num_pairs = _held_against_reference(session, ranking)
    return Lesson(
        ranks={UUID(completion_id): rank for completion_id, rank in reference.ranks.items()},
        reason=reference.reason,
        agreement=agreed / num_pairs,
        outcome=_in_words(standing(session, project, ranking.labeler_id), project),
    )


def find_lesson(session: Session, project: Project, account: Account, ranking_id: UUID) -> tuple[Ranking, Lesson]:
    """The account's own onboarding ranking and its lesson.  Raises LessonNotFound."""
    ranking = session.scalar(
        select(Ranking)
        .join(Labeler, Labeler.id == Ranking.labeler_id)
        .join(Slate, Slate.id == Ranking.slate_id)
        .where(Ranking.id == ranking_id, Ranking.project_id == project.id)
        .where(Labeler.account_id == account.id, Slate.kind == SlateKind.ONBOARDING)
    )
    if ranking is None:
        raise LessonNotFound
    return ranking, lesson_of(session, project, ranking)


def conclude_if_complete(session: Session, project: Project, labeler_id: int, *, now: datetime) -> None:
    """End the current try once each slate in use is answered: they enter, try again, or wait for an admin."""
    onboarding = _locked(session, labeler_id)
    seen = standing(session, project, labeler_id)
    if seen.agreement is None or seen.num_answered < seen.num_slates or seen.has_entered or seen.waits:
        return
    if seen.agreement >= project.onboarding_threshold:
        onboarding.entered_at = now
        audit(session, None, "onboarding.enter", f"labeler:{labeler_id}", project_id=project.id)
    elif seen.try_number < seen.num_tries:
        onboarding.try_number += 1
    else:
        onboarding.waits_since = now
    session.flush()


def standing(session: Session, project: Project, labeler_id: int) -> Standing:
    """Where the labeler stands."""
    onboarding = session.get(Onboarding, labeler_id)
    number = onboarding.try_number if onboarding else 1
    in_use = select(func.count()).select_from(Slate).where(Slate.project_id == project.id, is_in_use())
    left = in_use.where(~_is_answered_by(labeler_id))
    agreed, num_pairs, num_answered = session.execute(
        select(func.sum(OnboardingAnswer.num_agreed), func.sum(OnboardingAnswer.num_pairs), func.count()).where(
            OnboardingAnswer.labeler_id == labeler_id, OnboardingAnswer.try_number == number
        )
    ).one()
    num_left = session.scalar(left) or 0
    return Standing(
        try_number=number,
        num_tries=project.onboarding_tries + (onboarding.extra_tries if onboarding else 0),
        num_answered=num_answered,
        num_slates=num_answered + num_left,
        agreement=float(agreed) / float(num_pairs) if num_pairs else None,
        has_entered=onboarding is not None and onboarding.entered_at is not None,
        waits=onboarding is not None and onboarding.waits_since is not None,
    )


def _in_words(seen: Standing, project: Project) -> str:
    goal = f"{100 * project.onboarding_threshold:.0f}\N{NO-BREAK SPACE}%"
    if seen.has_entered:
        return "You agree with the researchers well enough: from the next slate on, your rankings count."
    if seen.waits:
        return f"You stayed below {goal} agreement; an admin of the project decides how you go on."
    if seen.num_answered == 0:
        return f"You stayed below {goal} agreement. Now comes another try, with the same slates in a new order."
    done = f"{seen.num_answered} of {seen.num_slates} onboarding slates are done"
    return f"{done} in try\N{NO-BREAK SPACE}{seen.try_number}."


def _locked(session: Session, labeler_id: int) -> Onboarding:
    session.execute(insert(Onboarding).values(labeler_id=labeler_id).on_conflict_do_nothing())
    return session.get_one(Onboarding, labeler_id, with_for_update={"key_share": True}, populate_existing=True)


def _held_against_reference(session: Session, ranking: Ranking) -> tuple[float, int]:
    reference = session.get_one(ReferenceRanking, ranking.slate_id)
    items = select(RankingItem.completion_id, RankingItem.rank).where(RankingItem.ranking_id == ranking.id)
    return held_against(reference.ranks, {str(row.completion_id): row.rank for row in session.execute(items)})


# What an admin decides


def newcomers(session: Session, project: Project) -> Sequence[Newcomer]:
    """Who is on their way in, those who wait for an admin first."""
    rows = session.execute(
        select(Labeler, Account.name, Onboarding.waits_since)
        .join(Account, Account.id == Labeler.account_id)
        .join(Onboarding, Onboarding.labeler_id == Labeler.id)
        .where(Labeler.project_id == project.id, Onboarding.entered_at.is_(None))
        .order_by(Onboarding.waits_since.nulls_last(), Account.name)
    ).all()
    return [Newcomer(labeler, name, standing(session, project, labeler.id), since) for labeler, name, since in rows]


def num_waiting() -> ColumnElement[int]:
    """In SQL, correlated to the project: how many newcomers wait for its admins."""
    waiting = aliased(Labeler)
    return (
        select(func.count())
        .select_from(Onboarding)
        .join(waiting, waiting.id == Onboarding.labeler_id)
        .where(waiting.project_id == Project.id, Onboarding.waits_since.is_not(None))
        .correlate(Project)
        .scalar_subquery()
    )


def admit(session: Session, project: Project, labeler_id: int, *, by: Account, now: datetime) -> None:
    """Let a newcomer in, whatever their agreement.  Raises NotANewcomer."""
    onboarding = _newcomer(session, project, labeler_id)
    onboarding.waits_since, onboarding.entered_at, onboarding.admitted_by = None, now, by.id
    session.flush()
    audit(session, by.id, "onboarding.admit", f"labeler:{labeler_id}", project_id=project.id)


def allow_another_try(session: Session, project: Project, labeler_id: int, *, by: Account) -> None:
    """Let a newcomer who waits begin one more try.  Raises NotANewcomer."""
    onboarding = _newcomer(session, project, labeler_id)
    if onboarding.waits_since is None:
        raise NotANewcomer
    onboarding.waits_since = None
    onboarding.try_number += 1
    onboarding.extra_tries = max(onboarding.extra_tries, onboarding.try_number - project.onboarding_tries)
    session.flush()
    audit(session, by.id, "onboarding.another_try", f"labeler:{labeler_id}", project_id=project.id)


def _newcomer(session: Session, project: Project, labeler_id: int) -> Onboarding:
    onboarding = session.scalar(
        select(Onboarding)
        .join(Labeler, Labeler.id == Onboarding.labeler_id)
        .where(Onboarding.labeler_id == labeler_id, Labeler.project_id == project.id)
        .with_for_update(of=Onboarding)
    )
    if onboarding is None or onboarding.entered_at is not None:
        raise NotANewcomer
    return onboarding

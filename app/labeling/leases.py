"""Gives slates out, keeps them while a labeler works, and takes them back.

A lease ends by a submit, a skip, or by itself: whoever next looks for a free slot closes what has expired.
"""

from datetime import datetime, timedelta
from functools import lru_cache
from random import Random
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Executable,
    Select,
    bindparam,
    delete,
    exists,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.orm import Session, joinedload

from app.db import SAMPLER_CHANNEL, constant, notify, run_unflushed, table_of
from app.labeling.errors import LeaseEnded, LeaseNotFound, ProjectPaused
from app.labeling.lanes import Lane, Standing, candidate, lanes_for
from app.labeling.models import DECLINED, Completion, Draft, Lease, LeaseEnd, Ranking, Slate, SlateKind, SlateState
from app.labeling.slots import MOVE, Place, count_slots, moved, settle
from app.people.access import Access
from app.people.errors import MembershipPaused
from app.people.models import Labeler, Membership
from app.people.owners import OF_OWNER, Owner
from app.projects.models import Project
from app.quality import guidelines, onboarding
from app.quality.entry_errors import GuidelinesNotAccepted, OnboardingWaits
from app.rounds.models import Round, RoundState

FOR_EVERYONE = (SlateKind.GOLD, SlateKind.ONBOARDING)  # who skips one leaves it to those who come


def refuse_when_paused(access: Access) -> None:
    """Raises ProjectPaused or MembershipPaused: no slate is given out. A submit is never asked this."""
    if access.project.paused_at is not None:
        raise ProjectPaused
    if access.is_paused:
        raise MembershipPaused


def take_leases(
    session: Session, labeler: Labeler, project: Project, *, wanted: int, now: datetime, rng: Random
) -> list[UUID]:
    """Renew the labeler's open leases and grant more until `wanted` are open; returns the ids of all that are.

    Fewer come back when no slate is free for this labeler now; the sampler is woken then.
    Raises GuidelinesNotAccepted, OnboardingWaits.
    """
    standing = _lock_labeler(session, labeler.id)  # one labeler's tabs one after the other: no hoarding
    if standing.must_accept:
        raise GuidelinesNotAccepted(project.slug)
    if standing.is_newcomer and standing.is_waiting:
        raise OnboardingWaits(project.slug)
    deadline = now + timedelta(seconds=project.lease_duration_s)
    leases = list(run_unflushed(session, _RENEW_ALL, {"of_labeler": labeler.id, "deadline": deadline}).scalars())
    while len(leases) < wanted:
        lanes = lanes_for(session, labeler, project, standing, now=now, rng=rng)
        lease_id = _grant(session, labeler, lanes, deadline=deadline, now=now, rng=rng)
        if lease_id is None:
            if standing.is_newcomer and not leases:  # the slate that was missing has been retired
                onboarding.conclude_if_complete(session, project, labeler.id, now=now)
            notify(session, SAMPLER_CHANNEL)
            break
        leases.append(lease_id)
    return leases


def lease_again(
    session: Session, labeler_id: int, slate: Slate, deadline: datetime, now: datetime, rng: Random
) -> Lease | None:
    """Lease a slate to the labeler who just took their ranking of it back; None when no slot is free.

    The caller holds the slate's lock.
    """
    slots = count_slots(session, slate.id, slate.overlap, now)
    slot = slots.free_for(labeler_id)
    if slot is None:
        return None
    seen = session.scalars(
        select(Lease.order_shown)
        .where(Lease.slate_id == slate.id, Lease.labeler_id == labeler_id)
        .order_by(Lease.granted_at.desc())
        .limit(1)
    ).first()
    completion_ids = session.scalars(select(Completion.id).where(Completion.slate_id == slate.id)).all()
    order_shown = seen or rng.sample(sorted(completion_ids), k=len(completion_ids))
    lease = Lease(
        slate_id=slate.id,
        labeler_id=labeler_id,
        slot=slot,
        order_shown=order_shown,
        granted_at=now,
        expires_at=deadline,
    )
    session.add(lease)
    session.flush()
    settle(session, slate, now)
    session.flush()
    return lease


def renew(session: Session, owner: Owner, lease_id: UUID, now: datetime) -> datetime:
    """Keep a lease for another full duration; returns its new deadline.  Raises LeaseNotFound, LeaseEnded.

    A lease that is over its deadline but still open is renewed too: nobody has taken the slot.
    """
    bound = {"of_lease": lease_id, "now": now, **owner.bound()}
    renewed: datetime | None = session.scalar(renewing(OF_OWNER, NOW), bound)
    if renewed is None:
        raise LeaseEnded(str(find_lease(session, owner, lease_id).end))
    return renewed


def skip(session: Session, owner: Owner, lease_id: UUID, kind: LeaseEnd, reason: str, now: datetime) -> None:
    """Give a slate back for good: others get it, this labeler never again.  kind: skipped or cannot_rank.

    A second call finds the first and changes nothing.  Raises LeaseNotFound, LeaseEnded (it was submitted).
    """
    lease, slate = lock_slate_of(session, owner, lease_id)
    if lease.end in DECLINED:
        return
    if lease.end is LeaseEnd.SUBMITTED:
        raise LeaseEnded(lease.end)
    lease.end, lease.reason, lease.closed_at = kind, reason, lease.closed_at or now
    session.execute(delete(Draft).where(Draft.slate_id == slate.id, Draft.labeler_id == lease.labeler_id))
    session.flush()
    settle(session, slate, now)
    is_spent = slate.kind not in FOR_EVERYONE and not _has_possible_labeler(session, slate)
    if slate.state is SlateState.READY and is_spent:
        # A queue full of slates that everyone has declined would keep new ones from being sampled.
        slate.state, slate.retired_at = SlateState.RETIRED, now
        notify(session, SAMPLER_CHANNEL)
    session.flush()


def find_lease(session: Session, owner: Owner, lease_id: UUID) -> Lease:
    """The owner's lease as the database has it now.  Raises LeaseNotFound."""
    lease = session.scalar(
        select(Lease)
        .join(Labeler, Labeler.id == Lease.labeler_id)
        .where(Lease.id == lease_id, owner.is_labeler())
        .options(joinedload(Lease.ranking))  # in one round trip: a submit asks for it at once
        .execution_options(populate_existing=True)
    )
    if lease is None:
        raise LeaseNotFound(lease_id)
    return lease


def lock_slate_of(session: Session, owner: Owner, lease_id: UUID) -> tuple[Lease, Slate]:
    """Lock the slate of the owner's lease, then read the lease: what others changed while we waited is seen."""
    slate = session.scalar(
        select(Slate)
        .join(Lease, Lease.slate_id == Slate.id)
        .join(Labeler, Labeler.id == Lease.labeler_id)
        .where(Lease.id == lease_id, owner.is_labeler())
        .with_for_update(of=Slate, key_share=True)
        .execution_options(populate_existing=True)
    )
    if slate is None:
        raise LeaseNotFound(lease_id)
    return find_lease(session, owner, lease_id), slate


def _lock_labeler(session: Session, labeler_id: int) -> Standing:
    """Lock the labeler's row, and read their standing in the same round trip."""
    return Standing(*run_unflushed(session, _standing(), {"labeler_id": labeler_id}).one())


@lru_cache(maxsize=1)
def _standing() -> Select[bool, bool, bool, bool, bool]:
    """Built once: putting so long a query together would cost every labeler more than the database's answer."""
    is_leased = exists().where(
        Lease.slate_id == Draft.slate_id, Lease.labeler_id == Draft.labeler_id, Lease.closed_at.is_(None)
    )
    query = select(
        guidelines.must_accept(Labeler.account_id, Labeler.project_id),
        onboarding.is_newcomer(),
        onboarding.is_waiting(),
        exists().where(Draft.labeler_id == Labeler.id, ~is_leased),
        exists().where(Round.project_id == Labeler.project_id, Round.state == constant(RoundState.AWAITING_LABELS)),
    )
    return query.where(Labeler.id == bindparam("labeler_id")).with_for_update(of=Labeler, key_share=True)


def _grant(
    session: Session, labeler: Labeler, lanes: list[Lane], *, deadline: datetime, now: datetime, rng: Random
) -> UUID | None:
    """Lease the first slate that has a slot free for the labeler; None when there is none."""
    who = {"labeler_id": labeler.id, "account_id": labeler.account_id, "project_id": labeler.project_id, "now": now}
    for lane in lanes:
        passed_over: list[UUID] = []
        while slate := run_unflushed(session, candidate(lane), {**who, "passed_over": passed_over}).one_or_none():
            slots = count_slots(session, slate.id, slate.overlap, now)
            place = Place(slate.state, slate.free_from, slate.done_at)
            slot = slots.free_for(labeler.id)
            if slot is not None and labeler.id not in {*slots.leased.values(), *slots.ranked.values()}:
                order_shown = slate.seen or rng.sample(sorted(slate.completion_ids), k=len(slate.completion_ids))
                place = place.settled(slots.with_lease(slot, labeler.id, deadline), now)
                lease = {
                    "id": uuid4(),
                    "slate_id": slate.id,
                    "labeler_id": labeler.id,
                    "slot": slot,
                    "order_shown": order_shown,
                    "granted_at": now,
                    "expires_at": deadline,
                }
                return _open(session, lease, place)
            run_unflushed(session, MOVE, moved(slate.id, place.settled(slots, now)))
            passed_over.append(slate.id)
    return None


def _open(session: Session, lease: dict[str, Any], place: Place) -> UUID:
    """Store a lease, and where its slate now stands in the queue, in one statement; returns the lease's id.

    lease: a value for each of _LEASE_COLUMNS.
    """
    named = {f"lease_{name}": value for name, value in lease.items()}
    run_unflushed(session, _OPEN, {**named, **moved(lease["slate_id"], place)})
    lease_id: UUID = lease["id"]
    return lease_id


def _has_possible_labeler(session: Session, slate: Slate) -> bool:
    """Whether some member of the project may still be given the slate, or works on it now."""
    if slate.for_labeler_id is not None:
        return False  # whom it was for has just declined it
    declined = exists().where(
        Lease.slate_id == slate.id,
        Lease.labeler_id == Labeler.id,
        Lease.closed_at.is_not(None),
        Lease.end.in_(DECLINED),
    )
    ranked = exists().where(
        Ranking.slate_id == slate.id, Ranking.labeler_id == Labeler.id, Ranking.retracted_at.is_(None)
    )
    members = (
        select(Membership.account_id)
        .outerjoin(
            Labeler,
            (Labeler.account_id == Membership.account_id) & (Labeler.project_id == Membership.project_id),
        )
        .where(Membership.project_id == slate.project_id, Membership.paused_at.is_(None), ~declined, ~ranked)
    )
    return session.scalar(members.limit(1)) is not None


# Put together once: that costs more than the database's answer.
_lease = table_of(Lease)
_RENEW_ALL = (
    update(_lease)
    .where(_lease.c.labeler_id == bindparam("of_labeler"), _lease.c.closed_at.is_(None))
    .values(expires_at=bindparam("deadline"))
    .returning(_lease.c.id)
)
_LEASE_COLUMNS = ("id", "slate_id", "labeler_id", "slot", "order_shown", "granted_at", "expires_at")
_OPEN = MOVE.add_cte(insert(_lease).values({name: bindparam(f"lease_{name}") for name in _LEASE_COLUMNS}).cte("opened"))
# For statements that a caller may also be looked up in: what time it is, when it is known.
NOW: ColumnElement[datetime] = bindparam("now", type_=DateTime(timezone=True))


@lru_cache(maxsize=4)
def renewing(is_theirs: ColumnElement[bool], now: ColumnElement[datetime]) -> Executable:
    """The statement that renews the caller's lease `of_lease` and answers with its deadline; no row if it ended.

    is_theirs: whether the row of Labeler is the caller's.
    """
    duration = func.make_interval(0, 0, 0, 0, 0, 0, Project.lease_duration_s)
    return (
        update(_lease)
        .where(_lease.c.id == bindparam("of_lease"), _lease.c.closed_at.is_(None))
        .where(_lease.c.labeler_id == Labeler.id, is_theirs, Project.id == Labeler.project_id)
        .values(expires_at=now + duration)
        .returning(_lease.c.expires_at)
    )

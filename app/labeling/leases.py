"""Gives slates out, keeps them while a labeler works, and takes them back.

A lease ends by a submit, a skip, or by itself: whoever next looks for a free slot closes what has expired.
"""

from datetime import datetime, timedelta
from random import Random
from uuid import UUID

from sqlalchemy import ColumnElement, delete, exists, func, select, update
from sqlalchemy.orm import Session, joinedload

from app.db import SAMPLER_CHANNEL, notify
from app.labeling.errors import LeaseEnded, LeaseNotFound, ProjectPaused
from app.labeling.models import Completion, Draft, Lease, LeaseEnd, Ranking, Slate, SlateKind, SlateState
from app.labeling.slots import Slots, count_slots, settle
from app.people.access import Access
from app.people.errors import MembershipPaused
from app.people.models import Labeler, Membership
from app.projects.models import Project
from app.rounds.models import Round, RoundState

RANKED_KINDS = (SlateKind.TRAINING, SlateKind.PAIR)
DECLINED = (LeaseEnd.SKIPPED, LeaseEnd.CANNOT_RANK)
EVALUATION_SHARE = 0.5  # of the slates given out while a round waits for its comparisons; the rest go on with training


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
    """
    has_work_left = _lock_labeler(session, labeler.id)  # one labeler's tabs one after the other: no hoarding
    deadline = now + timedelta(seconds=project.lease_duration_s)
    mine = update(Lease).where(Lease.labeler_id == labeler.id, Lease.closed_at.is_(None)).values(expires_at=deadline)
    leases = list(session.scalars(mine.returning(Lease.id), execution_options={"synchronize_session": False}))
    while len(leases) < wanted:
        lease = _grant(session, labeler, has_work_left=has_work_left, deadline=deadline, now=now, rng=rng)
        if lease is None:
            notify(session, SAMPLER_CHANNEL)
            break
        leases.append(lease.id)
    return leases


def lease_again(
    session: Session, labeler_id: int, slate: Slate, deadline: datetime, now: datetime, rng: Random
) -> Lease | None:
    """Lease a slate to the labeler who just took their ranking of it back; None when no slot is free.

    The caller holds the slate's lock.
    """
    slots = count_slots(session, slate, now)
    slot = slots.free_for(labeler_id)
    if slot is None:
        return None
    completion_ids = list(session.scalars(select(Completion.id).where(Completion.slate_id == slate.id)))
    return _open(session, labeler_id, slate, slots, slot, completion_ids, deadline, now, rng)


def renew(session: Session, account_id: int, lease_id: UUID, now: datetime) -> datetime:
    """Keep a lease for another full duration; returns its new deadline.  Raises LeaseNotFound, LeaseEnded.

    A lease that is over its deadline but still open is renewed too: nobody has taken the slot.
    """
    duration = (
        select(func.make_interval(0, 0, 0, 0, 0, 0, Project.lease_duration_s))
        .where(Project.id == Labeler.project_id)
        .scalar_subquery()
    )
    renewed: datetime | None = session.scalar(
        update(Lease)
        .where(Lease.id == lease_id, Lease.closed_at.is_(None))
        .where(Lease.labeler_id == Labeler.id, Labeler.account_id == account_id)
        .values(expires_at=now + duration)
        .returning(Lease.expires_at),
        execution_options={"synchronize_session": False},
    )
    if renewed is None:
        raise LeaseEnded(str(find_lease(session, account_id, lease_id).end))
    return renewed


def skip(session: Session, account_id: int, lease_id: UUID, kind: LeaseEnd, reason: str, now: datetime) -> None:
    """Give a slate back for good: others get it, this labeler never again.  kind: skipped or cannot_rank.

    A second call finds the first and changes nothing.  Raises LeaseNotFound, LeaseEnded (it was submitted).
    """
    lease, slate = lock_slate_of(session, account_id, lease_id)
    if lease.end in DECLINED:
        return
    if lease.end is LeaseEnd.SUBMITTED:
        raise LeaseEnded(lease.end)
    lease.end, lease.reason, lease.closed_at = kind, reason, lease.closed_at or now
    session.execute(delete(Draft).where(Draft.slate_id == slate.id, Draft.labeler_id == lease.labeler_id))
    session.flush()
    settle(slate, count_slots(session, slate, now), now)
    if slate.state is SlateState.READY and not _has_possible_labeler(session, slate):
        # A queue full of slates that everyone has declined would keep new ones from being sampled.
        slate.state, slate.retired_at = SlateState.RETIRED, now
        notify(session, SAMPLER_CHANNEL)
    session.flush()


def find_lease(session: Session, account_id: int, lease_id: UUID) -> Lease:
    """The account's lease as the database has it now.  Raises LeaseNotFound."""
    lease = session.scalar(
        select(Lease)
        .join(Labeler, Labeler.id == Lease.labeler_id)
        .where(Lease.id == lease_id, Labeler.account_id == account_id)
        .options(joinedload(Lease.ranking))  # in one round trip: a submit asks for it at once
        .execution_options(populate_existing=True)
    )
    if lease is None:
        raise LeaseNotFound(lease_id)
    return lease


def lock_slate_of(session: Session, account_id: int, lease_id: UUID) -> tuple[Lease, Slate]:
    """Lock the slate of the account's lease, then read the lease: what others changed while we waited is seen."""
    slate = session.scalar(
        select(Slate)
        .join(Lease, Lease.slate_id == Slate.id)
        .join(Labeler, Labeler.id == Lease.labeler_id)
        .where(Lease.id == lease_id, Labeler.account_id == account_id)
        .with_for_update(of=Slate, key_share=True)
        .execution_options(populate_existing=True)
    )
    if slate is None:
        raise LeaseNotFound(lease_id)
    return find_lease(session, account_id, lease_id), slate


def _lock_labeler(session: Session, labeler_id: int) -> bool:
    """Lock the labeler's row; returns whether they left work on a slate that they hold no lease of."""
    is_leased = exists().where(
        Lease.slate_id == Draft.slate_id, Lease.labeler_id == labeler_id, Lease.closed_at.is_(None)
    )
    work_left = exists().where(Draft.labeler_id == labeler_id, ~is_leased)
    query = select(work_left).select_from(Labeler).where(Labeler.id == labeler_id)
    return bool(session.scalar(query.with_for_update(of=Labeler, key_share=True)))


def _grant(
    session: Session, labeler: Labeler, *, has_work_left: bool, deadline: datetime, now: datetime, rng: Random
) -> Lease | None:
    """Lease the first slate that has a slot free for the labeler; None when there is none."""
    left = Slate.id.in_(select(Draft.slate_id).where(Draft.labeler_id == labeler.id))
    training = Slate.kind.in_(RANKED_KINDS)
    comparing = (
        select(Round.id)
        .where(Round.project_id == labeler.project_id, Round.state == RoundState.AWAITING_LABELS)
        .scalar_subquery()  # at most one round is active
    )
    evaluation = (Slate.kind == SlateKind.EVALUATION) & (Slate.round_id == comparing)
    lanes = [evaluation, training] if rng.random() < EVALUATION_SHARE else [training, evaluation]
    if has_work_left:  # on a lease that expired: it comes back as it was left
        lanes.insert(0, left & (training | evaluation))
    for lane in lanes:
        passed_over: list[UUID] = []
        while found := _lock_candidate(session, labeler, lane, passed_over, now):
            slate, completion_ids = found
            slots = count_slots(session, slate, now)
            slot = slots.free_for(labeler.id)
            if slot is not None and labeler.id not in {*slots.leased.values(), *slots.ranked.values()}:
                return _open(session, labeler.id, slate, slots, slot, completion_ids, deadline, now, rng)
            settle(slate, slots, now)
            passed_over.append(slate.id)
    return None


def _lock_candidate(
    session: Session, labeler: Labeler, lane: ColumnElement[bool], passed_over: list[UUID], now: datetime
) -> tuple[Slate, list[UUID]] | None:
    """Lock the slate that has waited longest and seems to have a free slot; what others lock is left to them."""
    held_or_declined = exists().where(
        Lease.slate_id == Slate.id,
        Lease.labeler_id == labeler.id,
        Lease.closed_at.is_(None) | Lease.end.in_(DECLINED),
    )
    ranked = exists().where(
        Ranking.slate_id == Slate.id, Ranking.labeler_id == labeler.id, Ranking.retracted_at.is_(None)
    )
    completion_ids = select(func.array_agg(Completion.id)).where(Completion.slate_id == Slate.id).scalar_subquery()
    row = session.execute(
        select(Slate, completion_ids)
        .where(Slate.project_id == labeler.project_id, Slate.state == SlateState.READY, Slate.free_from <= now, lane)
        .where(~held_or_declined, ~ranked, Slate.id.not_in(passed_over))
        .order_by(Slate.free_from)
        .limit(1)
        .with_for_update(of=Slate, key_share=True, skip_locked=True)
        .execution_options(populate_existing=True)
    ).one_or_none()
    return None if row is None else (row[0], row[1])


def _open(
    session: Session,
    labeler_id: int,
    slate: Slate,
    slots: Slots,
    slot: int,
    completion_ids: list[UUID],
    deadline: datetime,
    now: datetime,
    rng: Random,
) -> Lease:
    order_shown = rng.sample(sorted(completion_ids), k=len(completion_ids))
    lease = Lease(
        slate_id=slate.id,
        labeler_id=labeler_id,
        slot=slot,
        order_shown=order_shown,
        granted_at=now,
        expires_at=deadline,
    )
    session.add(lease)
    settle(slate, slots.with_lease(slot, labeler_id, deadline), now)
    session.flush()
    return lease


def _has_possible_labeler(session: Session, slate: Slate) -> bool:
    """Whether some member of the project may still be given the slate, or works on it now."""
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

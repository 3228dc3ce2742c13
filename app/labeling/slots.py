"""Who holds which slot of a slate.

Exactly `overlap` rankings of a slate count, from as many labelers. Whoever grants, submits, skips or retracts locks
the slate's row first and counts under that lock, in a statement of its own: a count made by the statement that waited
for the lock would be older than the lock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import DateTime, null, select, type_coerce, update
from sqlalchemy.orm import Session

from app.labeling.models import Lease, LeaseEnd, Ranking, Slate, SlateState


@dataclass(frozen=True)
class Slots:
    """The slots of a slate as they are under its lock."""

    overlap: int
    leased: Mapping[int, int]  # slot -> labeler who holds an open lease
    ranked: Mapping[int, int]  # slot -> labeler whose ranking counts
    next_expiry: datetime | None  # of the open leases

    def free_for(self, labeler_id: int, preferred: int | None = None) -> int | None:
        """A slot that this labeler's ranking may take, `preferred` if it is one; a slot they lease is theirs."""
        taken = self.ranked.keys() | {slot for slot, holder in self.leased.items() if holder != labeler_id}
        if preferred is not None and preferred <= self.overlap and preferred not in taken:
            return preferred
        return next((slot for slot in range(1, self.overlap + 1) if slot not in taken), None)

    def with_lease(self, slot: int, labeler_id: int, expires_at: datetime) -> "Slots":
        """These slots once the labeler has leased one."""
        first = min(expires_at, self.next_expiry or expires_at)
        return replace(self, leased={**self.leased, slot: labeler_id}, next_expiry=first)

    def with_ranking(self, slot: int, labeler_id: int) -> "Slots":
        """These slots once the labeler's ranking counts in one."""
        return replace(self, ranked={**self.ranked, slot: labeler_id})


def count_slots(session: Session, slate: Slate, now: datetime) -> Slots:
    """Count under the slate's lock, which the caller holds; leases that have expired are closed on the way."""
    open_leases = select(Lease.slot, Lease.labeler_id, Lease.expires_at).where(
        Lease.slate_id == slate.id, Lease.closed_at.is_(None)
    )
    counted = select(Ranking.slot, Ranking.labeler_id, type_coerce(null(), DateTime(timezone=True))).where(
        Ranking.slate_id == slate.id, Ranking.counted, Ranking.retracted_at.is_(None)
    )
    held = session.execute(open_leases.union_all(counted)).all()
    if any(expires_at is not None and expires_at <= now for _, _, expires_at in held):
        _close_expired(session, slate.id, now)
        held = session.execute(open_leases.union_all(counted)).all()
    return Slots(
        overlap=slate.overlap,
        leased={slot: labeler for slot, labeler, expires_at in held if slot is not None and expires_at is not None},
        ranked={slot: labeler for slot, labeler, expires_at in held if slot is not None and expires_at is None},
        next_expiry=min((expires_at for _, _, expires_at in held if expires_at is not None), default=None),
    )


def settle(slate: Slate, slots: Slots, now: datetime) -> None:
    """Bring the slate's state and `free_from` in line with its slots, under its lock."""
    is_full = len(slots.ranked) >= slots.overlap
    if slate.state is SlateState.READY and is_full:
        slate.state, slate.done_at = SlateState.DONE, now
    elif slate.state is SlateState.DONE and not is_full:
        slate.state, slate.done_at = SlateState.READY, None
    if len(slots.ranked) + len(slots.leased) < slots.overlap:
        slate.free_from = min(slate.free_from, now)
    elif slots.next_expiry is not None:
        slate.free_from = slots.next_expiry  # renewals come later than this; whoever looks then counts again


def _close_expired(session: Session, slate_id: UUID, now: datetime) -> None:
    # Skip what is locked: it is being renewed or submitted right now, and waiting for it could be a deadlock.
    expired = (
        select(Lease.id)
        .where(Lease.slate_id == slate_id, Lease.closed_at.is_(None), Lease.expires_at <= now)
        .with_for_update(skip_locked=True)
    )
    session.execute(
        update(Lease).where(Lease.id.in_(expired)).values(closed_at=now, end=LeaseEnd.EXPIRED),
        execution_options={"synchronize_session": False},
    )

"""Who holds which slot of a slate.

Exactly `overlap` rankings of a slate count, from as many labelers. Whoever grants, submits, skips or retracts locks
the slate's row first and counts under that lock, in a statement of its own: a count made by the statement that waited
for the lock would be older than the lock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import CompoundSelect, DateTime, Uuid, bindparam, null, select, type_coerce, update
from sqlalchemy.orm import Session

from app.db import run_unflushed, table_of
from app.labeling.models import Lease, LeaseEnd, Ranking, Slate, SlateState


@dataclass(frozen=True)
class Slots:
    """The slots of a slate as they are under its lock."""

    overlap: int
    leased: Mapping[int, int]  # slot -> labeler who holds an open lease
    ranked: Mapping[int, int]  # slot -> labeler whose ranking counts
    expiries: Mapping[int, datetime]  # slot -> when its open lease runs out

    def free_for(self, labeler_id: int, preferred: int | None = None) -> int | None:
        """A slot that this labeler's ranking may take, `preferred` if it is one; a slot they lease is theirs."""
        taken = self.ranked.keys() | {slot for slot, holder in self.leased.items() if holder != labeler_id}
        if preferred is not None and preferred <= self.overlap and preferred not in taken:
            return preferred
        return next((slot for slot in range(1, self.overlap + 1) if slot not in taken), None)

    def with_lease(self, slot: int, labeler_id: int, expires_at: datetime) -> "Slots":
        """These slots once the labeler has leased one."""
        return replace(self, leased={**self.leased, slot: labeler_id}, expiries={**self.expiries, slot: expires_at})

    def without_lease_of(self, labeler_id: int) -> "Slots":
        """These slots once the labeler holds no lease any more."""
        leased = {slot: holder for slot, holder in self.leased.items() if holder != labeler_id}
        return replace(self, leased=leased, expiries={slot: self.expiries[slot] for slot in leased})

    def with_ranking(self, slot: int, labeler_id: int) -> "Slots":
        """These slots once the labeler's ranking counts in one."""
        return replace(self, ranked={**self.ranked, slot: labeler_id})


@dataclass(frozen=True)
class Place:
    """Where a slate stands in the queue: whether it is still given out, and from when a slot is free."""

    state: SlateState
    free_from: datetime
    done_at: datetime | None

    def settled(self, slots: Slots, now: datetime) -> "Place":
        """The same brought in line with the slate's slots."""
        state, free_from, done_at = self.state, self.free_from, self.done_at
        is_full = len(slots.ranked) >= slots.overlap
        if state is SlateState.READY and is_full:
            state, done_at = SlateState.DONE, now
        elif state is SlateState.DONE and not is_full:
            state, done_at = SlateState.READY, None
        if len(slots.ranked) + len(slots.leased) < slots.overlap:
            free_from = min(free_from, now)
        elif slots.expiries:
            free_from = min(slots.expiries.values())  # renewals come later than this; whoever looks then counts again
        return Place(state, free_from, done_at)


def count_slots(session: Session, slate_id: UUID, overlap: int, now: datetime) -> Slots:
    """Count under the slate's lock, which the caller holds; leases that have expired are closed on the way."""
    held = run_unflushed(session, _held(), {"slate_id": slate_id}).all()
    if any(expires_at is not None and expires_at <= now for _, _, expires_at in held):
        _close_expired(session, slate_id, now)
        held = run_unflushed(session, _held(), {"slate_id": slate_id}).all()
    return Slots(
        overlap=overlap,
        leased={slot: labeler for slot, labeler, expires_at in held if slot is not None and expires_at is not None},
        ranked={slot: labeler for slot, labeler, expires_at in held if slot is not None and expires_at is None},
        expiries={slot: expires_at for slot, _, expires_at in held if slot is not None and expires_at is not None},
    )


@lru_cache(maxsize=1)
def _held() -> CompoundSelect[*tuple[Any, ...]]:
    """Slot, labeler, and when it runs out: of the open leases; without an end: of the rankings that count."""
    lease, ranking, slate_id = table_of(Lease), table_of(Ranking), bindparam("slate_id", type_=Uuid)
    open_leases = select(lease.c.slot, lease.c.labeler_id, lease.c.expires_at).where(
        lease.c.slate_id == slate_id, lease.c.closed_at.is_(None)
    )
    counted = select(ranking.c.slot, ranking.c.labeler_id, type_coerce(null(), DateTime(timezone=True))).where(
        ranking.c.slate_id == slate_id, ranking.c.counted, ranking.c.retracted_at.is_(None)
    )
    return open_leases.union_all(counted)


_slate = table_of(Slate)
# Brings a slate to its place in the queue.
MOVE = (
    update(_slate)
    .where(_slate.c.id == bindparam("of_slate"))
    .values({name: bindparam(f"new_{name}") for name in ("state", "free_from", "done_at")})
)


def moved(slate_id: UUID, place: Place) -> dict[str, Any]:
    """What MOVE has to be told."""
    return {
        "of_slate": slate_id,
        "new_state": place.state,
        "new_free_from": place.free_from,
        "new_done_at": place.done_at,
    }


def settle(session: Session, slate: Slate, now: datetime) -> None:
    """Count the slots of a slate that the caller has locked, and bring its place in the queue in line with them."""
    session.flush()
    slots = count_slots(session, slate.id, slate.overlap, now)
    place = Place(slate.state, slate.free_from, slate.done_at).settled(slots, now)
    slate.state, slate.free_from, slate.done_at = place.state, place.free_from, place.done_at


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

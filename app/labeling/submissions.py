"""The statements of a submit: the slate under its lock, the lease as it stands, and everything stored in one go."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Boolean,
    DateTime,
    Row,
    Select,
    SmallInteger,
    Text,
    Uuid,
    bindparam,
    column,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.db import constant, constraint_of, run_unflushed, table_of
from app.labeling.errors import LeaseNotFound, RankingIdTaken
from app.labeling.models import Draft, Lease, LeaseEnd, Ranking, RankingItem, Slate
from app.labeling.slots import MOVE, Place, moved
from app.people.models import Labeler
from app.people.owners import OF_OWNER, Owner

RANKING_COLUMNS = (
    *("id", "project_id", "slate_id", "labeler_id", "lease_id", "slot", "counted", "order_shown", "is_pick"),
    *("strength", "note", "active_s", "idle_s", "submitted_at"),
)
ITEM_TYPES = {
    "completion_id": Uuid,
    "rank": SmallInteger,
    "quality": SmallInteger,
    "flags": JSONB,
    "is_safe": Boolean,
    "note": Text,
}


def lock(session: Session, owner: Owner, lease_id: UUID) -> Row[Any]:
    """Lock the owner's lease and the slate that it is on; returns what a submit has to know of both.

    Both are as they are once they are locked: a draft on its way is stored before, or not at all. An erasure of the
    labeler locks and ends every open lease first, so only of one that has ended is to be asked whether they are there.
    Raises LeaseNotFound.
    """
    found = run_unflushed(session, _to_lock(), {"lease_id": lease_id, **owner.bound()}).one_or_none()
    if found is None or (found.end is not None and not _is_there(session, found.labeler_id)):
        raise LeaseNotFound(lease_id)
    return found


def _is_there(session: Session, labeler_id: int) -> bool:
    """Locked after slate and lease, in the order of an erasure: nothing is stored for who is erased meanwhile."""
    return run_unflushed(session, _STILL_THERE, {"of_labeler": labeler_id}).one_or_none() is not None


def ranking_of(session: Session, lease_id: UUID) -> Row[Any] | None:
    """The ranking that came on a lease, if one did: its id, whether it counted, when it was submitted."""
    of_lease = select(_ranking.c.id, _ranking.c.counted, _ranking.c.submitted_at).where(_ranking.c.lease_id == lease_id)
    return run_unflushed(session, of_lease, {}).one_or_none()


def store(session: Session, ranking: Mapping[str, Any], items: list[dict[str, Any]], place: Place) -> None:
    """Store a ranking with its items, close the labeler's lease, drop their draft, and move the slate to its place.

    ranking: a value for each of RANKING_COLUMNS.  items: of each completion what ITEM_TYPES names, as JSON has it.
    Raises RankingIdTaken.
    """
    try:
        named = {f"ranking_{name}": value for name, value in ranking.items()}
        run_unflushed(session, _store(), {**named, **moved(ranking["slate_id"], place), "given": items})
    except IntegrityError as error:
        if constraint_of(error) == "pk_ranking":
            raise RankingIdTaken(ranking["id"]) from error
        raise


_ranking, _item, _lease, _draft, _slate, _labeler = map(table_of, (Ranking, RankingItem, Lease, Draft, Slate, Labeler))

_STILL_THERE = (
    select(_labeler.c.id)
    .where(_labeler.c.id == bindparam("of_labeler"), _labeler.c.erased_at.is_(None))
    .with_for_update(read=True, key_share=True)
)


@lru_cache(maxsize=1)
def _to_lock() -> Select[*tuple[Any, ...]]:
    of_slate = ("project_id", "kind", "overlap", "round_id", "state", "free_from", "done_at")
    of_lease = ("slate_id", "labeler_id", "slot", "order_shown", "end")
    return (
        select(*(_slate.c[name] for name in of_slate), *(_lease.c[name] for name in of_lease))
        .select_from(_slate)
        .join(_lease, _lease.c.slate_id == _slate.c.id)
        .join(_labeler, _labeler.c.id == _lease.c.labeler_id)
        .where(_lease.c.id == bindparam("lease_id"), OF_OWNER)
        .with_for_update(of=[_slate, _lease], key_share=True)
    )


@lru_cache(maxsize=1)
def _store() -> Any:
    """One statement, one round trip: the write is what a labeler waits for.

    Its parts run in an order of Postgres's own: what they change must be locked before.
    """
    stored = insert(_ranking).values({name: bindparam(f"ranking_{name}") for name in RANKING_COLUMNS}).cte("stored")
    given = (
        func.jsonb_to_recordset(bindparam("given", type_=JSONB))
        .table_valued(*(column(name, type_) for name, type_ in ITEM_TYPES.items()), name="given")
        .render_derived(with_types=True)
    )
    rows = select(bindparam("ranking_id", type_=Uuid), bindparam("ranking_slate_id", type_=Uuid), *given.c)
    placed = insert(_item).from_select(["ranking_id", "slate_id", *ITEM_TYPES], rows).cte("placed")
    submitted_at = bindparam("ranking_submitted_at", type_=DateTime(timezone=True))
    is_own_but_late = (_lease.c.id == bindparam("ranking_lease_id")) & (_lease.c.end == constant(LeaseEnd.EXPIRED))
    closed = (
        update(_lease)  # the one it came on; or one granted on the same slate since, if that one had expired
        .where(
            _lease.c.slate_id == bindparam("ranking_slate_id"), _lease.c.labeler_id == bindparam("ranking_labeler_id")
        )
        .where(or_(_lease.c.closed_at.is_(None), is_own_but_late))
        .values(closed_at=func.coalesce(_lease.c.closed_at, submitted_at), end=constant(LeaseEnd.SUBMITTED))
        .cte("closed")
    )
    dropped = (
        delete(_draft)
        .where(
            _draft.c.slate_id == bindparam("ranking_slate_id"), _draft.c.labeler_id == bindparam("ranking_labeler_id")
        )
        .cte("dropped")
    )
    return MOVE.add_cte(stored, placed, closed, dropped)

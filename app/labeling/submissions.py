"""The statements of a submit: the slate under its lock, the lease as it stands, and everything stored in one go."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Boolean,
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
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.db import constant, table_of
from app.labeling.errors import LeaseNotFound, RankingIdTaken
from app.labeling.models import Draft, Lease, LeaseEnd, Ranking, RankingItem, Slate
from app.labeling.slots import MOVE, Place, moved
from app.people.models import Labeler

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


def lock_slate(session: Session, account_id: int, lease_id: UUID) -> Row[Any]:
    """Lock the slate that the account's lease is on: its id, project, kind, overlap and place in the queue.

    Raises LeaseNotFound.
    """
    slate = session.execute(_slate_to_lock(), {"lease_id": lease_id, "account_id": account_id}).one_or_none()
    if slate is None:
        raise LeaseNotFound(lease_id)
    return slate


def read_lease(session: Session, lease_id: UUID) -> Row[Any]:
    """The lease with the ranking it brought, if it has one, as they are once its slate is locked."""
    return session.execute(_lease_to_close(), {"lease_id": lease_id}).one()


def store(session: Session, ranking: Mapping[str, Any], items: list[dict[str, Any]], place: Place) -> None:
    """Store a ranking with its items, close the labeler's lease, drop their draft, and move the slate to its place.

    ranking: a value for each of RANKING_COLUMNS.  items: of each completion what ITEM_TYPES names, as JSON has it.
    Raises RankingIdTaken.
    """
    try:
        named = {f"ranking_{name}": value for name, value in ranking.items()}
        session.execute(_store(), {**named, **moved(ranking["slate_id"], place), "given": items})
    except IntegrityError as error:
        if "pk_ranking" in str(error.orig):
            raise RankingIdTaken(ranking["id"]) from error
        raise


@lru_cache(maxsize=1)
def _slate_to_lock() -> Select[*tuple[Any, ...]]:
    return (
        select(
            Slate.id,
            Slate.project_id,
            Slate.kind,
            Slate.overlap,
            Slate.round_id,
            Slate.state,
            Slate.free_from,
            Slate.done_at,
        )
        .join(Lease, Lease.slate_id == Slate.id)
        .join(Labeler, Labeler.id == Lease.labeler_id)
        .where(Lease.id == bindparam("lease_id"), Labeler.account_id == bindparam("account_id"))
        .with_for_update(of=Slate, key_share=True)
    )


@lru_cache(maxsize=1)
def _lease_to_close() -> Select[*tuple[Any, ...]]:
    return (
        select(
            Lease.labeler_id,
            Lease.slot,
            Lease.order_shown,
            Ranking.id.label("ranking_id"),
            Ranking.counted,
            Ranking.submitted_at,
        )
        .outerjoin(Ranking, Ranking.lease_id == Lease.id)
        .where(Lease.id == bindparam("lease_id"))
    )


@lru_cache(maxsize=1)
def _store() -> Any:
    """One statement, one round trip: the write is what a labeler waits for."""
    ranking, item, lease, draft = map(table_of, (Ranking, RankingItem, Lease, Draft))
    stored = insert(ranking).values({name: bindparam(f"ranking_{name}") for name in RANKING_COLUMNS}).cte("stored")
    given = (
        func.jsonb_to_recordset(bindparam("given", type_=JSONB))
        .table_valued(*(column(name, type_) for name, type_ in ITEM_TYPES.items()), name="given")
        .render_derived(with_types=True)
    )
    rows = select(bindparam("ranking_id", type_=Uuid), bindparam("ranking_slate_id", type_=Uuid), *given.c)
    placed = insert(item).from_select(["ranking_id", "slate_id", *ITEM_TYPES], rows).cte("placed")
    closed = (
        update(lease)  # the one it came on; or one granted on the same slate since, if that one had expired
        .where(lease.c.slate_id == bindparam("ranking_slate_id"), lease.c.labeler_id == bindparam("ranking_labeler_id"))
        .where(lease.c.closed_at.is_(None))
        .values(closed_at=bindparam("ranking_submitted_at"), end=constant(LeaseEnd.SUBMITTED))
        .cte("closed")
    )
    dropped = (
        delete(draft)
        .where(draft.c.slate_id == bindparam("ranking_slate_id"), draft.c.labeler_id == bindparam("ranking_labeler_id"))
        .cte("dropped")
    )
    return MOVE.add_cte(stored, placed, closed, dropped)

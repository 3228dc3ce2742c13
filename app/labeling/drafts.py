"""Keeps unsubmitted work, so that a slate comes back as it was left: after a refresh, a crash, on another machine."""

from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, Executable, and_, bindparam, exists, or_, select
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import Session

from app.db import table_of
from app.labeling.errors import LeaseEnded, StaleDraft
from app.labeling.leases import NOW, find_lease
from app.labeling.models import Draft, Lease, LeaseEnd
from app.people.models import Labeler
from app.people.owners import OF_OWNER, Owner


def save_draft(
    session: Session, owner: Owner, lease_id: UUID, *, builds_on: int, content: dict[str, Any], now: datetime
) -> int:
    """Store the draft of the lease's slate; returns its new revision.

    builds_on: the revision the work began from, 0 for none. A retry of a save whose reply was lost finds its own
    content and gets the same revision.  Raises LeaseNotFound, LeaseEnded (submitted or skipped), StaleDraft.
    """
    what = {"of_lease": lease_id, "builds_on": builds_on, "new_content": content}
    saved: int | None = session.scalar(saving(OF_OWNER, NOW), {**what, **owner.bound(), "now": now})
    if saved is not None:
        return saved
    lease = find_lease(session, owner, lease_id)
    newer = session.execute(
        select(Draft.revision, Draft.content).where(
            Draft.slate_id == lease.slate_id, Draft.labeler_id == lease.labeler_id
        )
    ).one_or_none()
    if newer is None or lease.end in (LeaseEnd.SUBMITTED, LeaseEnd.SKIPPED, LeaseEnd.CANNOT_RANK):
        raise LeaseEnded(str(lease.end or "another tab gave the slate back"))
    raise StaleDraft(newer.revision, newer.content)


@lru_cache(maxsize=4)  # putting it together costs more than the database's answer
def saving(is_theirs: ColumnElement[bool], now: ColumnElement[datetime]) -> Executable:
    """The statement that stores a draft of the caller's and answers with its revision; no row when it must not.

    is_theirs: whether the row of Labeler is the caller's.  Bound: of_lease, builds_on, new_content.
    """
    builds_on = bindparam("builds_on", type_=BigInteger)
    of_lease = (Draft.slate_id == Lease.slate_id, Draft.labeler_id == Lease.labeler_id)
    is_editable = or_(Lease.closed_at.is_(None), Lease.end == LeaseEnd.EXPIRED)  # late work is not thrown away either
    may_begin = (builds_on == 0) | exists().where(*of_lease)  # else: submitted or skipped since
    rows = (
        select(
            Lease.slate_id,
            Lease.labeler_id,
            builds_on + 1,
            bindparam("new_content", type_=JSONB),
            now,
        )
        .join(Labeler, Labeler.id == Lease.labeler_id)
        .where(Lease.id == bindparam("of_lease"), is_theirs)
        .where(is_editable, may_begin)
        .with_for_update(of=Lease, read=True)  # a submit on its way comes before, and drops this draft, or after
    )
    new = insert(table_of(Draft)).from_select(["slate_id", "labeler_id", "revision", "content", "updated_at"], rows)
    is_same = and_(Draft.revision == builds_on + 1, Draft.content == new.excluded.content)
    return new.on_conflict_do_update(
        index_elements=["slate_id", "labeler_id"],
        set_={name: new.excluded[name] for name in ("revision", "content", "updated_at")},
        where=or_(Draft.revision == builds_on, is_same),
    ).returning(table_of(Draft).c.revision)

"""Keeps unsubmitted work, so that a slate comes back as it was left: after a refresh, a crash, on another machine."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import and_, exists, literal, or_, select
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import Session

from app.labeling.errors import LeaseEnded, StaleDraft
from app.labeling.leases import find_lease
from app.labeling.models import Draft, Lease, LeaseEnd
from app.people.models import Labeler


def save_draft(
    session: Session, account_id: int, lease_id: UUID, *, builds_on: int, content: dict[str, Any], now: datetime
) -> int:
    """Store the draft of the lease's slate; returns its new revision.

    builds_on: the revision the work began from, 0 for none. A retry of a save whose reply was lost finds its own
    content and gets the same revision.  Raises LeaseNotFound, LeaseEnded (submitted or skipped), StaleDraft.
    """
    of_lease = (Draft.slate_id == Lease.slate_id, Draft.labeler_id == Lease.labeler_id)
    is_editable = or_(Lease.closed_at.is_(None), Lease.end == LeaseEnd.EXPIRED)  # late work is not thrown away either
    may_begin = literal(builds_on == 0) | exists().where(*of_lease)  # else: submitted or skipped since
    rows = (
        select(
            Lease.slate_id,
            Lease.labeler_id,
            literal(builds_on + 1).label("revision"),
            literal(content, JSONB).label("content"),
            literal(now).label("updated_at"),
        )
        .join(Labeler, Labeler.id == Lease.labeler_id)
        .where(Lease.id == lease_id, Labeler.account_id == account_id, is_editable, may_begin)
    )
    new = insert(Draft).from_select(["slate_id", "labeler_id", "revision", "content", "updated_at"], rows)
    saved: int | None = session.scalar(
        new.on_conflict_do_update(
            index_elements=[Draft.slate_id, Draft.labeler_id],
            set_={
                "revision": new.excluded.revision,
                "content": new.excluded.content,
                "updated_at": new.excluded.updated_at,
            },
            where=or_(
                Draft.revision == builds_on,
                and_(Draft.revision == builds_on + 1, Draft.content == new.excluded.content),
            ),
        ).returning(Draft.revision)
    )
    if saved is not None:
        return saved
    lease = find_lease(session, account_id, lease_id)
    newer = session.execute(
        select(Draft.revision, Draft.content).where(
            Draft.slate_id == lease.slate_id, Draft.labeler_id == lease.labeler_id
        )
    ).one_or_none()
    if newer is None or lease.end in (LeaseEnd.SUBMITTED, LeaseEnd.SKIPPED, LeaseEnd.CANNOT_RANK):
        raise LeaseEnded(str(lease.end or "another tab gave the slate back"))
    raise StaleDraft(newer.revision, newer.content)

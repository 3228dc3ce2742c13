"""Versions of the guidelines, and who accepted which: nobody ranks before they accepted the newest that needs it."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, and_, exists, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased
from sqlalchemy.sql.elements import SQLCoreOperations

from app.people.models import Account
from app.people.service import audit
from app.projects.models import Guidelines, Project
from app.quality.entry_errors import GuidelinesNotFound
from app.quality.entry_models import GuidelinesAcceptance


def must_accept(
    account_id: SQLCoreOperations[int] | SQLCoreOperations[int | None] | int, project_id: SQLCoreOperations[int] | int
) -> ColumnElement[bool]:
    """In SQL: whether a version that needs acceptance is newer than any that the account accepted."""
    newer = aliased(Guidelines)
    is_accepted = (
        exists()
        .where(
            GuidelinesAcceptance.account_id == account_id,
            GuidelinesAcceptance.guidelines_id == newer.id,
            newer.project_id == Guidelines.project_id,
            newer.version >= Guidelines.version,
        )
        .correlate_except(GuidelinesAcceptance, newer)  # the account may be of a query two levels up
    )
    return exists().where(and_(Guidelines.project_id == project_id, Guidelines.needs_acceptance, ~is_accepted))


def has_to_accept(session: Session, account: Account, project: Project) -> bool:
    """Whether the account must accept the newest guidelines before it is given a slate."""
    return bool(session.scalar(select(must_accept(account.id, project.id))))


def accept(session: Session, account: Account, project: Project, version: int, *, now: datetime) -> None:
    """Record that the account accepts a version; a second time changes nothing.  Raises GuidelinesNotFound."""
    guidelines = get_version(session, project, version)
    accepted = session.scalar(
        insert(GuidelinesAcceptance)
        .values(account_id=account.id, guidelines_id=guidelines.id, accepted_at=now)
        .on_conflict_do_nothing()
        .returning(GuidelinesAcceptance.accepted_at)
    )
    if accepted is not None:
        audit(session, account.id, "guidelines.accept", f"guidelines:{version}", project_id=project.id)


def last_accepted(session: Session, account: Account, project: Project) -> tuple[int, datetime] | None:
    """The newest version that the account accepted, and when."""
    row = session.execute(
        select(Guidelines.version, GuidelinesAcceptance.accepted_at)
        .join(GuidelinesAcceptance, GuidelinesAcceptance.guidelines_id == Guidelines.id)
        .where(Guidelines.project_id == project.id, GuidelinesAcceptance.account_id == account.id)
        .order_by(Guidelines.version.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else (row.version, row.accepted_at)


def versions(session: Session, project: Project) -> Sequence[Guidelines]:
    """Every version, the newest first."""
    mine = select(Guidelines).where(Guidelines.project_id == project.id)
    return session.scalars(mine.order_by(Guidelines.version.desc())).all()


def get_version(session: Session, project: Project, version: int) -> Guidelines:
    """Raises GuidelinesNotFound."""
    found = session.scalar(select(Guidelines).where(Guidelines.project_id == project.id, Guidelines.version == version))
    if found is None:
        raise GuidelinesNotFound(version)
    return found

"""Who the labelers are: the one place that decides who may read names, and writes down each look of a researcher."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import StringIO

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from app.people.access import Access
from app.people.errors import NamesHidden
from app.people.models import Account, AuditEvent, Labeler, Role
from app.people.service import audit
from app.spreadsheets import harmless

READ, EXPORTED = "names.read", "names.export"
ONE_LOOK = timedelta(minutes=1)  # a page and its charts are one look, and not ten


@dataclass(frozen=True)
class Named:
    """A labeler and who they are. name: None for an annotator of a file.  imported_as: what that file called them."""

    labeler_id: int
    pseudonym: str
    name: str | None
    imported_as: str | None
    is_erased: bool
    since: datetime


def may_read_names(session: Session, access: Access, what: str) -> bool:
    """Whether the reader sees names on a page, which is written down where a researcher does.

    what: the page, as the audit log names it.
    """
    if access.sees_names and access.role is not Role.ADMIN:
        _write_down(session, access, what)
    return access.sees_names


def _write_down(session: Session, access: Access, what: str) -> None:
    is_same_look = exists().where(
        AuditEvent.account_id == access.account.id,
        AuditEvent.project_id == access.project.id,
        AuditEvent.action == READ,
        AuditEvent.subject == what,
        AuditEvent.at > func.now() - ONE_LOOK,
    )
    if not session.scalar(select(is_same_look)):
        audit(session, access.account.id, READ, what, access.project.id)
        session.flush()


def key_of(session: Session, access: Access) -> list[Named]:
    """Every labeler of the project with who they are, by name; the look is written down.  Raises NamesHidden."""
    if not access.sees_names:
        raise NamesHidden
    may_read_names(session, access, "names")
    return _named(session, access)


def exported_key(session: Session, access: Access) -> Iterator[str]:
    """The same as CSV; that it was taken away is written down whoever takes it.  Raises NamesHidden."""
    if not access.sees_names:
        raise NamesHidden
    audit(session, access.account.id, EXPORTED, "names", access.project.id)
    return _lines(_named(session, access))


def _named(session: Session, access: Access) -> list[Named]:
    rows = session.execute(
        select(
            Labeler.id,
            Labeler.pseudonym,
            Account.name,
            Labeler.external_id,
            Labeler.erased_at.is_not(None),
            Labeler.created_at,
        )
        .outerjoin(Account, Account.id == Labeler.account_id)
        .where(Labeler.project_id == access.project.id)
        .order_by(Account.name.nulls_last(), Labeler.external_id, Labeler.id)
    )
    return [Named(*row) for row in rows]


def _lines(found: list[Named]) -> Iterator[str]:
    text = StringIO()
    writer = csv.writer(text)
    writer.writerow(("pseudonym", "name", "imported_as"))
    for each in found:
        writer.writerow([harmless(cell or "") for cell in (each.pseudonym, each.name, each.imported_as)])
    yield text.getvalue()

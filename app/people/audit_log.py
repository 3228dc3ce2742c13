"""The audit log as it is read: filtered, page by page from its newest end, and whole as a file. Never changes it.

What was just one question stays one however long the log is: each page begins where the one before it ended, by an
index, and an export is read in pieces, each in a session of its own, so that a slow reader holds no connection.
"""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from typing import Any, Literal, TypeVarTuple

from sqlalchemy import Select, Text, cast, func, or_, select, text, true, tuple_
from sqlalchemy.orm import Session

from app.db import SessionFactory
from app.people.errors import BadAuditFilter
from app.people.models import Account, AuditEvent
from app.projects.models import Project
from app.spreadsheets import harmless

EVENTS_A_PIECE = 1000
SYSTEM = "the system"  # who does what no account does
Row = TypeVarTuple("Row")
FileType = Literal["csv", "jsonl"]
MEDIA_TYPES: dict[FileType, str] = {"csv": "text/csv; charset=utf-8", "jsonl": "application/jsonl"}
COLUMNS = ("id", "at", "account_id", "who", "email", "project", "action", "subject", "detail")


@dataclass(frozen=True)
class AuditFilter:
    """Which events are asked for; each empty text asks for all."""

    who: str = ""  # in the name or the address; SYSTEM for what nobody did
    action: str = ""
    what: str = ""  # in the subject or the detail
    since: str = ""  # days, ISO, UTC, both included
    until: str = ""


@dataclass(frozen=True)
class Event:
    """A line of the log, with the names of who and where as they are now."""

    event: AuditEvent
    who: str | None
    email: str | None
    project: str | None


def page_of(
    session: Session, wanted: AuditFilter, *, project: Project | None, before: int | None, limit: int
) -> list[Event]:
    """Events newest first, of one project or of all. before: the last id of the page before.  Raises BadAuditFilter."""
    query = (
        select(AuditEvent, Account.name, Account.email, Project.slug)
        .outerjoin(Account, Account.id == AuditEvent.account_id)
        .outerjoin(Project, Project.id == AuditEvent.project_id)
        .order_by(AuditEvent.at.desc(), AuditEvent.id.desc())
        .limit(limit)
    )
    if project is not None:
        query = query.where(AuditEvent.project_id == project.id)
    if before is not None:
        last = select(AuditEvent.at, AuditEvent.id).where(AuditEvent.id == before)
        query = query.where(tuple_(AuditEvent.at, AuditEvent.id) < last.scalar_subquery())
    return [Event(*row) for row in session.execute(_filtered(query, wanted))]


def _filtered(query: Select[*Row], wanted: AuditFilter) -> Select[*Row]:
    if wanted.who.strip().lower() == SYSTEM:
        query = query.where(AuditEvent.account_id.is_(None))
    elif who := wanted.who.strip():
        named = Account.name.icontains(who, autoescape=True) | Account.email.icontains(who, autoescape=True)
        query = query.where(AuditEvent.account_id.in_(select(Account.id).where(named)))
    if wanted.action:
        query = query.where(AuditEvent.action == wanted.action)
    if what := wanted.what.strip():
        in_detail = cast(AuditEvent.detail, Text).icontains(what, autoescape=True)
        query = query.where(or_(AuditEvent.subject.icontains(what, autoescape=True), in_detail))
    if wanted.since:
        query = query.where(AuditEvent.at >= _day(wanted.since))
    if wanted.until:
        query = query.where(AuditEvent.at < _day(wanted.until, days_later=1))
    return query


def _day(given: str, *, days_later: int = 0) -> datetime:
    try:
        day = date.fromisoformat(given) + timedelta(days=days_later)
        return datetime(day.year, day.month, day.day, tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise BadAuditFilter(f"{given!r} is no day: write it as 2026-01-31.") from error


def actions(session: Session, *, project: Project | None) -> list[str]:
    """The actions that the log knows. Each is found by the index from the one before it: there are few of them."""
    here = true() if project is None else AuditEvent.project_id == project.id
    known = select(func.min(AuditEvent.action).label("action")).where(here).cte("known", recursive=True)
    following = select(func.min(AuditEvent.action)).where(here, AuditEvent.action > known.c.action).scalar_subquery()
    known = known.union_all(select(following).select_from(known).where(known.c.action.is_not(None)))
    return list(session.scalars(select(known.c.action).where(known.c.action.is_not(None))))


def exported(wanted: AuditFilter, *, project: Project | None, file: FileType) -> Iterator[bytes]:
    """The events as a file, newest first, in chunks. Times are ISO, UTC.  Raises BadAuditFilter before the first."""
    _filtered(select(AuditEvent), wanted)
    return _pieces(wanted, project, _csv if file == "csv" else _jsonl)


def _pieces(
    wanted: AuditFilter, project: Project | None, written: Callable[[list[Event], bool], str]
) -> Iterator[bytes]:
    before: int | None = None
    while True:
        with SessionFactory() as session:
            session.execute(text("SET TRANSACTION READ ONLY"))
            events = page_of(session, wanted, project=project, before=before, limit=EVENTS_A_PIECE)
        yield written(events, before is None).encode()
        if len(events) < EVENTS_A_PIECE:
            return
        before = events[-1].event.id


def _csv(events: list[Event], is_first: bool) -> str:
    text = StringIO()
    writer = csv.writer(text)
    if is_first:
        writer.writerow(COLUMNS)
    for event in events:
        row = record(event) | {"detail": json.dumps(event.event.detail, ensure_ascii=False)}
        writer.writerow([harmless(row[column]) for column in COLUMNS])
    return text.getvalue()


def _jsonl(events: list[Event], is_first: bool) -> str:
    return "".join(json.dumps(record(event), ensure_ascii=False) + "\n" for event in events)


def record(event: Event) -> dict[str, Any]:
    """An event in plain values."""
    return {
        "id": event.event.id,
        "at": event.event.at.astimezone(UTC).isoformat(),
        "account_id": event.event.account_id,
        "who": event.who,
        "email": event.email,
        "project": event.project,
        "action": event.event.action,
        "subject": event.event.subject,
        "detail": event.event.detail,
    }


LONGEST_SAID = 300  # characters of a detail on the page; the export has all of it


def said(detail: dict[str, Any]) -> list[tuple[str, str]]:
    """The detail of an event for people: names and texts, a change as what it was and what it became."""
    lines = []
    for name, value in detail.items():
        if name == "changed" and isinstance(value, dict):
            lines += [(each, _change(before, after)) for each, (before, after) in value.items()]
        elif value is not None:
            lines.append((name, _plain(value)))
    return lines


def _change(before: Any, after: Any) -> str:
    if isinstance(before, list) and isinstance(after, list):  # of long lists only what went and what came
        signs = [f"− {_plain(each)}" for each in before if each not in after]
        signs += [f"+ {_plain(each)}" for each in after if each not in before]
        return "; ".join(signs) or "in another order"
    return f"{_plain(before)} → {_plain(after)}"


def _plain(value: Any) -> str:
    words = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return words if len(words) <= LONGEST_SAID else f"{words[:LONGEST_SAID]}…"

"""What a project's settings were: read from the audit log, which holds every change since the project was made.

A version of the settings is the id of the change that made it, 0 before the first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.people.models import Account, AuditEvent
from app.projects import service
from app.projects.errors import SettingsChangedMeanwhile
from app.projects.models import Project
from app.projects.settings import SETTINGS

COLUMNS = (*SETTINGS, "flags", "use_cases", "task_weights", "mixture")
ACTION = "project.settings"
Values = Mapping[str, Any]  # by the setting's name


@dataclass(frozen=True)
class Change:
    """One save of the settings: for each setting that it changed, what it was and what it became."""

    id: int
    at: datetime
    who: str | None  # None: the installation itself, or the command line
    changed: Mapping[str, tuple[Any, Any]]
    goes_back_before: int | None  # the change that it undoes, with all that came after it


def changes(
    session: Session, project: Project, *, after: int = 0, before: int | None = None, limit: int | None = None
) -> list[Change]:
    """The changes, newest first. after, before: ids that they lie between."""
    query = (
        select(AuditEvent, Account.name)
        .outerjoin(Account, Account.id == AuditEvent.account_id)
        .where(AuditEvent.project_id == project.id, AuditEvent.action == ACTION, AuditEvent.id > after)
        .order_by(AuditEvent.at.desc(), AuditEvent.id.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(AuditEvent.id < before)
    return [_change(event, who) for event, who in session.execute(query)]


def _change(event: AuditEvent, who: str | None) -> Change:
    known = {name: (old, new) for name, (old, new) in event.detail["changed"].items() if name in COLUMNS}
    return Change(event.id, event.at, who, known, event.detail.get("goes_back_before"))


def version_of(session: Session, project: Project) -> int:
    """The settings' version as they are."""
    query = select(func.max(AuditEvent.id)).where(AuditEvent.project_id == project.id, AuditEvent.action == ACTION)
    return session.scalar(query) or 0


def current(project: Project) -> dict[str, Any]:
    """The settings as they are."""
    return {name: getattr(project, name) for name in COLUMNS}


def undone(values: Values, later: Sequence[Change]) -> dict[str, Any]:
    """The settings as they were before the changes, which are given newest first."""
    before = dict(values)
    for change in later:
        before |= {name: old for name, (old, _) in change.changed.items()}
    return before


def save(
    session: Session,
    project: Project,
    mine: Values,
    *,
    seen: int,
    account: Account,
    goes_back_before: int | None = None,
) -> None:
    """Store the settings of a form that was made from version `seen`.

    Raises BadProjectSetting, and SettingsChangedMeanwhile when somebody else has changed what the form would set back.
    """
    session.refresh(project, with_for_update={"key_share": True})  # of two who save at once, the second sees the first
    meanwhile = changes(session, project, after=seen)
    now = current(project)
    base = undone(now, meanwhile)
    theirs = {name: value for name, value in now.items() if value not in (base[name], mine[name])}
    if theirs:
        merged = {name: now[name] if mine[name] == base[name] else mine[name] for name in COLUMNS}
        raise SettingsChangedMeanwhile(merged, meanwhile, version_of(session, project))
    service.update_settings(session, project, mine, account=account, goes_back_before=goes_back_before)

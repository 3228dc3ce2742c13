"""What the JSON API says and takes about people."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from app.people.models import Role


class ProjectOut(BaseModel):
    """A project that the account is a member of."""

    slug: str
    name: str


class MeOut(BaseModel):
    """The account behind a key or a session."""

    email: str
    name: str
    is_site_admin: bool
    projects: list[ProjectOut]


class MemberOut(BaseModel):
    """A member of a project, with what they did there."""

    model_config = ConfigDict(from_attributes=True)

    account_id: int
    name: str
    email: str
    role: Role
    paused_at: datetime | None
    joined_at: datetime
    num_rankings: int
    num_last_week: int
    last_ranking_at: datetime | None
    sees_names: bool


class MemberChange(BaseModel):
    """What an admin changes about a member; what is left out stays."""

    role: Role | None = None
    is_paused: bool | None = None
    sees_names: bool | None = None


class InvitationIn(BaseModel):
    """Whom to invite."""

    role: Role = Role.LABELER
    email: str | None = None


class InvitationOut(BaseModel):
    """The link to send; it cannot be shown again."""

    url: str
    expires_at: datetime


class AuditEventOut(BaseModel):
    """Who did what to which thing, and when."""

    id: int
    at: datetime
    account_id: int | None  # null: the system itself
    who: str | None
    email: str | None
    project: str | None
    action: str
    subject: str
    detail: dict[str, Any]


class AuditPageOut(BaseModel):
    """A page of the audit log, newest first. next: the `before` of the page after it."""

    events: list[AuditEventOut]
    next: int | None

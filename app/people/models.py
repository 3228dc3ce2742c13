"""Who signs in (accounts), what they may do (memberships), and who judged (labelers)."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.db import Base, one_of


class Role(StrEnum):
    """What a member may do in one project; each role may do all that the ones before it may."""

    LABELER = "labeler"
    RESEARCHER = "researcher"
    ADMIN = "admin"


class Account(Base):
    """A person who signs in."""

    __tablename__ = "account"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]  # lower case
    name: Mapped[str]
    password_hash: Mapped[str | None]  # argon2id; null until the invitation is accepted
    is_site_admin: Mapped[bool] = mapped_column(server_default=text("false"))  # creates projects, sees all of them
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    disabled_at: Mapped[datetime | None]
    erased_at: Mapped[datetime | None]  # name and address are gone for good

    __table_args__ = (
        Index("uq_account_email", "email", unique=True),
        CheckConstraint("email = lower(email)", name="email_is_lower_case"),
    )


class Membership(Base):
    """An account's role in a project."""

    __tablename__ = "membership"

    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"), primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"), primary_key=True)
    role: Mapped[Role] = mapped_column(one_of(Role, "role"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    paused_at: Mapped[datetime | None]
    sees_names: Mapped[bool] = mapped_column(server_default=text("false"))  # a researcher's right; admins have it

    account: Mapped[Account] = relationship()

    __table_args__ = (Index("ix_membership_project", "project_id"),)


class Labeler(Base):
    """Whoever judged in a project, with or without an account: imported annotators have none.

    The pseudonym is random, so that one person's pseudonyms cannot be linked across projects.
    """

    __tablename__ = "labeler"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    account_id: Mapped[int | None] = mapped_column(ForeignKey("account.id"))
    external_id: Mapped[str | None]  # the annotator's name in an imported file
    pseudonym: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    erased_at: Mapped[datetime | None]  # nothing says any more who it was

    __table_args__ = (
        UniqueConstraint("project_id", "account_id"),
        UniqueConstraint("project_id", "external_id", name="uq_labeler_external"),
        UniqueConstraint("project_id", "pseudonym", name="uq_labeler_pseudonym"),
        CheckConstraint(
            "CASE WHEN erased_at IS NULL THEN (account_id IS NULL) <> (external_id IS NULL)"
            " ELSE account_id IS NULL AND external_id IS NULL END",
            name="has_one_origin",
        ),
    )


class Invitation(Base):
    """A link that makes an account, or gives one a role. Only the hash of its token is stored."""

    __tablename__ = "invitation"

    id: Mapped[int] = mapped_column(primary_key=True)
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    project_id: Mapped[int | None] = mapped_column(ForeignKey("project.id"))
    role: Mapped[Role | None] = mapped_column(one_of(Role, "role"))
    makes_site_admin: Mapped[bool] = mapped_column(server_default=text("false"))
    email: Mapped[str | None]  # when set, only this address may accept
    created_by: Mapped[int | None] = mapped_column(ForeignKey("account.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    accepted_at: Mapped[datetime | None]
    accepted_by: Mapped[int | None] = mapped_column(ForeignKey("account.id"))
    revoked_at: Mapped[datetime | None]

    __table_args__ = (CheckConstraint("(project_id IS NULL) = (role IS NULL)", name="role_is_in_a_project"),)


class SignInSession(Base):
    """A signed-in browser. The cookie holds the token, the table its hash."""

    __tablename__ = "sign_in_session"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    user_agent: Mapped[str | None]

    account: Mapped[Account] = relationship()

    __table_args__ = (Index("ix_sign_in_session_account", "account_id"),)


class WrongTokenKind(StrEnum):
    """What a stranger may try to guess, besides a password."""

    KEY = "key"
    LINK = "link"  # of an invitation, or for a new password


class WrongToken(Base):
    """One request with a key or a link that nobody issued, for the rate limit that holds across processes."""

    __tablename__ = "wrong_token"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[WrongTokenKind] = mapped_column(one_of(WrongTokenKind, "kind"))
    place: Mapped[str]  # where it came from
    at: Mapped[datetime]

    __table_args__ = (Index("ix_wrong_token_place", "kind", "place", "at"), Index("ix_wrong_token_at", "at"))


class SignInAttempt(Base):
    """One failed sign-in, for the rate limit that holds across processes."""

    __tablename__ = "sign_in_attempt"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    address: Mapped[str]  # where it came from
    at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index("ix_sign_in_attempt_email_at", "email", "at"), Index("ix_sign_in_attempt_at", "at"))


class KeyScope(StrEnum):
    """How much of what its account may do a key may do: the least that its program needs."""

    READ = "read"  # see all that its account sees, and change nothing
    LABEL = "label"  # what a labeler may do, whatever its account's role
    ALL = "all"  # whatever its account may do


class APIKey(Base):
    """A program's credential: shown once, stored hashed; it may never do more than its account may."""

    __tablename__ = "api_key"

    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"))
    name: Mapped[str]
    prefix: Mapped[str]  # the first letters, so that a person can tell keys apart
    scope: Mapped[KeyScope] = mapped_column(one_of(KeyScope, "scope"), server_default=text("'all'"))
    project_id: Mapped[int | None] = mapped_column(ForeignKey("project.id"))  # the only one it reaches; null: each
    secret_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_used_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]  # null: never
    revoked_at: Mapped[datetime | None]

    account: Mapped[Account] = relationship()


class PasswordReset(Base):
    """A link by which an account sets a new password, once. Only the hash of its token is stored."""

    __tablename__ = "password_reset"

    id: Mapped[int] = mapped_column(primary_key=True)
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"))
    created_by: Mapped[int | None] = mapped_column(ForeignKey("account.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]

    __table_args__ = (Index("ix_password_reset_account", "account_id"),)


class SignOnIdentity(Base):
    """Who an account is at a single sign-on provider. The subject stays when the person's address changes there."""

    __tablename__ = "sign_on_identity"

    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"))
    issuer: Mapped[str]
    subject: Mapped[str]
    email: Mapped[str | None]  # as the provider said it last
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_used_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        UniqueConstraint("issuer", "subject"),
        UniqueConstraint("account_id", "issuer"),  # an address that was given to someone else opens no account
    )


class SignOnTicket(Base):
    """A visit to the single sign-on provider that was begun here, and what must come back from it."""

    __tablename__ = "sign_on_ticket"

    state_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    browser_hash: Mapped[bytes] = mapped_column(LargeBinary)  # of the cookie of the browser that began it
    nonce: Mapped[str]
    code_verifier: Mapped[str]
    next: Mapped[str]  # the page to go on to
    place: Mapped[str]  # where it came from
    created_at: Mapped[datetime]
    used_at: Mapped[datetime | None]

    __table_args__ = (
        Index("ix_sign_on_ticket_place", "place", "created_at"),
        Index("ix_sign_on_ticket_created", "created_at"),
    )


class AuditEvent(Base):
    """Who did what to which thing, and when. Appended in the transaction of the act itself."""

    __tablename__ = "audit_event"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    account_id: Mapped[int | None] = mapped_column(ForeignKey("account.id"))  # null: the system itself
    project_id: Mapped[int | None] = mapped_column(ForeignKey("project.id"))
    action: Mapped[str]  # e.g. "round.start", "policy.promote"
    subject: Mapped[str]  # e.g. "round:12"
    detail: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))

    # Each filter of the log walks one of these from its newest end, however long the log is.
    __table_args__ = (
        Index("ix_audit_event_at", "at", "id"),
        Index("ix_audit_event_project_at", "project_id", "at", "id"),
        Index("ix_audit_event_action_at", "action", "at", "id"),
        Index("ix_audit_event_account_at", "account_id", "at", "id"),
        Index("ix_audit_event_project_action", "project_id", "action", "at", "id"),
    )

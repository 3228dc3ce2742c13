"""The rules about accounts and their keys, and the audit log's lines. Never commits."""

import re
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.people.errors import EmailTaken, InvalidPerson, PersonNotFound
from app.people.models import Account, APIKey, AuditEvent, KeyScope
from app.people.passwords import check_password, hash_password, new_token, token_hash
from app.projects.models import Project

LONGEST_NAME, LONGEST_EMAIL = 100, 254
EMAIL = re.compile(r"[^@\s\x00-\x1f]+@[^@\s\x00-\x1f]+")
KEY_PREFIX = "podium_"


def audit(
    session: Session, account_id: int | None, action: str, subject: str, project_id: int | None = None, **detail: Any
) -> None:
    """Write down who did what, in the transaction of the act itself."""
    session.add(AuditEvent(account_id=account_id, action=action, subject=subject, project_id=project_id, detail=detail))


# Accounts


def normal_email(email: str) -> str:
    """The address as it is stored and looked up.  Raises InvalidPerson."""
    email = email.strip().lower()
    if not EMAIL.fullmatch(email) or len(email) > LONGEST_EMAIL:
        raise InvalidPerson("Write an e-mail address like name@example.org.")
    return email


def normal_name(name: str) -> str:
    """The name as it is stored.  Raises InvalidPerson."""
    name = " ".join(name.split())
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise InvalidPerson(f"Write a name of 1 to {LONGEST_NAME} letters.")
    return name


def create_account(
    session: Session, *, email: str, name: str, password: str | None, is_site_admin: bool = False
) -> Account:
    """Make an account; without a password it can sign in only after one is set.

    Raises InvalidPerson, WeakPassword, EmailTaken.
    """
    email, name = normal_email(email), normal_name(name)
    if password is not None:
        check_password(password, email)
    if find_by_email(session, email) is not None:
        raise EmailTaken(email)
    account = Account(
        email=email,
        name=name,
        password_hash=None if password is None else hash_password(password),
        is_site_admin=is_site_admin,
    )
    try:
        with session.begin_nested():
            session.add(account)
    except IntegrityError as error:  # the same form was sent twice at once
        raise EmailTaken(email) from error
    audit(session, account.id, "account.create", f"account:{account.id}")
    return account


def find_by_email(session: Session, email: str) -> Account | None:
    """The account with this address."""
    return session.scalar(select(Account).where(Account.email == email.strip().lower()))


# API keys


def create_key(
    session: Session,
    account: Account,
    name: str,
    *,
    scope: KeyScope = KeyScope.ALL,
    project: Project | None = None,
    expires_at: datetime | None = None,
) -> str:
    """Make a key for a program and return it; only its hash is stored, so it is shown this once.

    scope: how much of what the account may do it may do.  project: the only one that it reaches; None: each of the
    account's.  expires_at: None, and it goes on until it is revoked.
    Raises InvalidPerson.
    """
    secret = KEY_PREFIX + new_token()
    key = APIKey(
        account_id=account.id,
        name=normal_name(name),
        prefix=secret[: len(KEY_PREFIX) + 6],
        scope=scope,
        project_id=project.id if project else None,
        secret_hash=token_hash(secret),
        expires_at=expires_at,
    )
    session.add(key)
    session.flush()
    limits: dict[str, Any] = {"scope": scope.value} | ({"project": project.slug} if project else {})
    audit(session, account.id, "key.create", f"key:{key.id}", name=key.name, **limits)
    return secret


def revoke_key(session: Session, account: Account, key_id: int, *, by: Account, now: datetime) -> None:
    """End a key of the account.  Raises PersonNotFound."""
    key = session.get(APIKey, key_id)
    if key is None or key.account_id != account.id:
        raise PersonNotFound("There is no such key: reload the page to see those that there are.")
    if key.revoked_at is None:
        key.revoked_at = now
        audit(session, by.id, "key.revoke", f"key:{key.id}", name=key.name, account=f"account:{account.id}")

"""The rules about accounts, sessions, invitations, keys and members. Never commits."""

import re
from datetime import datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, or_, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.people.access import RANK_OF_ROLE, SESSION_DURATION
from app.people.errors import (
    EmailTaken,
    InvalidPerson,
    InvitationNotFound,
    InvitedSomeoneElse,
    PersonNotFound,
    TooManyAttempts,
)
from app.people.models import (
    Account,
    APIKey,
    AuditEvent,
    Invitation,
    Membership,
    PasswordReset,
    Role,
    SignInAttempt,
    SignInSession,
    SignOnIdentity,
)
from app.people.passwords import check_password, hash_password, is_password, needs_rehash, new_token, token_hash
from app.projects.models import Project

INVITATION_DURATION = timedelta(days=7)
ATTEMPTS_WINDOW = timedelta(minutes=15)
# Failed sign-ins within the window. By pair first, so that a stranger cannot lock an account from afar by failing on
# purpose; by place against trying one password on many accounts; by account against many places.
MOST_ATTEMPTS_BY_PAIR, MOST_ATTEMPTS_BY_PLACE, MOST_ATTEMPTS_BY_ACCOUNT = 5, 30, 100
LONGEST_NAME, LONGEST_EMAIL = 100, 254
EMAIL = re.compile(r"[^@\s\x00-\x1f]+@[^@\s\x00-\x1f]+")
FIRST_ADMIN_LOCK = 7_305_822
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


def change_password(session: Session, account: Account, *, old: str, new: str, keep: str | None, now: datetime) -> bool:
    """Set a new password and end every other session; False when the old one is wrong.

    keep: the token of the session to leave open.  Raises WeakPassword.
    """
    if not is_password(account.password_hash, old):
        return False
    check_password(new, account.email)
    account.password_hash = hash_password(new)
    end_sessions(session, account, keep=keep, now=now)
    audit(session, account.id, "account.password", f"account:{account.id}")
    return True


# Signing in


def authenticate(session: Session, *, email: str, password: str, address: str, now: datetime) -> Account | None:
    """The account, or None (and a failed attempt stored, which the caller must commit).

    address: where the attempt comes from.  Raises TooManyAttempts.
    """
    email, place = email.strip().lower()[:LONGEST_EMAIL].replace("\x00", ""), place_of(address)
    _take_turns(session, email, place)
    _check_attempts(session, email, place, now)
    account = session.scalar(select(Account).where(Account.email == email))
    if not is_password(account.password_hash if account else None, password) or account is None or account.disabled_at:
        session.add(SignInAttempt(email=email, address=place, at=now))
        return None
    if account.password_hash and needs_rehash(account.password_hash):
        account.password_hash = hash_password(password)
    return account


def place_of(address: str) -> str:
    """Where an attempt comes from: an IPv4 address, or the /64 that one IPv6 customer holds."""
    try:
        ip = ip_address(address)
    except ValueError:
        return address  # a Unix socket, a test client
    return str(ip_network(f"{ip}/64", strict=False)) if ip.version == 6 else str(ip)


def _take_turns(session: Session, email: str, place: str) -> None:
    # A hundred parallel guesses must not all count the same number of failures before any is stored.
    for subject in sorted((f"account {email}", f"place {place}")):
        session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:subject, 0))"), {"subject": subject})


def _check_attempts(session: Session, email: str, place: str, now: datetime) -> None:
    since = now - ATTEMPTS_WINDOW
    is_account, is_place = SignInAttempt.email == email, SignInAttempt.address == place
    by_pair, by_place, by_account, oldest = session.execute(
        select(
            func.count().filter(is_account & is_place),
            func.count().filter(is_place),
            func.count().filter(is_account),
            func.min(SignInAttempt.at),
        ).where(SignInAttempt.at > since, or_(is_account, is_place))
    ).one()
    if by_pair >= MOST_ATTEMPTS_BY_PAIR or by_place >= MOST_ATTEMPTS_BY_PLACE or by_account >= MOST_ATTEMPTS_BY_ACCOUNT:
        raise TooManyAttempts(max(1, int((oldest + ATTEMPTS_WINDOW - now).total_seconds())))


def open_session(session: Session, account: Account, *, user_agent: str | None, now: datetime) -> str:
    """Sign a browser in; returns the cookie's token, of which only the hash is stored."""
    token = new_token()
    session.add(
        SignInSession(
            token_hash=token_hash(token),
            account_id=account.id,
            created_at=now,
            last_seen_at=now,
            expires_at=now + SESSION_DURATION,
            user_agent=(user_agent or "")[:200] or None,
        )
    )
    return token


def close_session(session: Session, token: str, *, now: datetime) -> None:
    """Sign the browser that holds the token out."""
    session.execute(
        update(SignInSession)
        .where(SignInSession.token_hash == token_hash(token), SignInSession.revoked_at.is_(None))
        .values(revoked_at=now)
    )


def end_sessions(
    session: Session, account: Account, *, now: datetime, keep: str | None = None, only: UUID | None = None
) -> None:
    """Sign the account out in every browser but the one with the token `keep`, or in the session `only`."""
    query = update(SignInSession).where(SignInSession.account_id == account.id, SignInSession.revoked_at.is_(None))
    if keep is not None:
        query = query.where(SignInSession.token_hash != token_hash(keep))
    if only is not None:
        query = query.where(SignInSession.id == only)
    session.execute(query.values(revoked_at=now))


def revoke_reset_links(session: Session, account: Account, *, now: datetime) -> None:
    """End the account's open links for a new password: who made them might not be allowed to make them now."""
    session.execute(
        update(PasswordReset)
        .where(PasswordReset.account_id == account.id, PasswordReset.used_at.is_(None))
        .where(PasswordReset.revoked_at.is_(None))
        .values(revoked_at=now)
    )


# Invitations


def invite(
    session: Session,
    *,
    project: Project,
    role: Role,
    email: str | None,
    created_by: int | None,
    now: datetime,
) -> str:
    """Make a link's token that gives its bearer a role in the project; only its hash is stored.

    email: when given, only this address may accept.  Raises InvalidPerson.
    """
    token = new_token()
    invitation = Invitation(
        token_hash=token_hash(token),
        project_id=project.id,
        role=role,
        email=normal_email(email) if email else None,
        created_by=created_by,
        created_at=now,
        expires_at=now + INVITATION_DURATION,
    )
    session.add(invitation)
    session.flush()
    audit(
        session,
        created_by,
        "invitation.create",
        f"invitation:{invitation.id}",
        project.id,
        role=role,
        email=invitation.email,
    )
    return token


def first_admin_link(session: Session, base_url: str, *, now: datetime) -> str | None:
    """The one-time address that makes the first site admin, or None when there is one.

    Each call takes the place of the link before it, so that only the one printed last can be used.
    """
    session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": FIRST_ADMIN_LOCK})
    if has_site_admin(session):
        return None
    session.execute(
        update(Invitation)
        .where(Invitation.makes_site_admin, Invitation.accepted_at.is_(None), Invitation.revoked_at.is_(None))
        .values(revoked_at=now)
    )
    token = new_token()
    session.add(
        Invitation(
            token_hash=token_hash(token), makes_site_admin=True, created_at=now, expires_at=now + INVITATION_DURATION
        )
    )
    return f"{base_url.rstrip('/')}/invitations/{token}"


def has_site_admin(session: Session) -> bool:
    """Whether anyone runs the installation."""
    admins = select(Account.id).where(Account.is_site_admin, Account.disabled_at.is_(None)).limit(1)
    return session.scalar(admins) is not None


def open_invitation(session: Session, token: str, *, now: datetime, lock: bool = False) -> Invitation:
    """The invitation behind a link that may still be used.  Raises InvitationNotFound."""
    query = select(Invitation).where(Invitation.token_hash == token_hash(token))
    invitation = session.scalar(query.with_for_update() if lock else query)
    if invitation is None or invitation.accepted_at or invitation.revoked_at or invitation.expires_at <= now:
        raise InvitationNotFound
    if invitation.makes_site_admin and has_site_admin(session):
        raise InvitationNotFound
    return invitation


def account_for_invitation(
    session: Session, invitation: Invitation, *, email: str, name: str, password: str
) -> Account:
    """The new account of someone who follows a link without being signed in.

    Whoever was given an account without a password gets one here, if whoever runs the installation made the link
    for their address.  Raises InvalidPerson, WeakPassword, EmailTaken.
    """
    email = normal_email(invitation.email or email)
    existing = find_by_email(session, email)
    if existing is None:
        return create_account(session, email=email, name=name, password=password)
    session.refresh(existing, with_for_update={"key_share": True})  # their first single sign-on may come just now
    if not _may_set_password(session, invitation, existing):
        raise EmailTaken(email)
    check_password(password, email)
    existing.name, existing.password_hash = normal_name(name), hash_password(password)
    audit(session, existing.id, "account.password", f"account:{existing.id}", invitation=invitation.id)
    return existing


def _may_set_password(session: Session, invitation: Invitation, account: Account) -> bool:
    # The link goes to whoever made it: were a project's admin enough, they could take any account that has no password.
    if invitation.email is None or account.password_hash is not None or account.is_site_admin:
        return False
    is_theirs = select(Invitation.id).where(Invitation.id == invitation.id, by_the_installation())
    has_sign_on = select(SignOnIdentity.id).where(SignOnIdentity.account_id == account.id).limit(1)
    return session.scalar(is_theirs) is not None and session.scalar(has_sign_on) is None


def by_the_installation() -> ColumnElement[bool]:
    """Whether an invitation was made by someone who may act as anyone anyway: a site admin, or at the command line."""
    site_admins = select(Account.id).where(Account.is_site_admin, Account.disabled_at.is_(None))
    return Invitation.created_by.is_(None) | Invitation.created_by.in_(site_admins)


def accept_invitation(session: Session, token: str, account: Account, *, now: datetime) -> Invitation:
    """Give the account what the link promises. A member keeps their role where it is the higher one.

    Raises InvitationNotFound, InvitedSomeoneElse.
    """
    session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": FIRST_ADMIN_LOCK})
    invitation = open_invitation(session, token, now=now, lock=True)  # of two who follow one link, one gets in
    if invitation.email is not None and invitation.email != account.email:
        raise InvitedSomeoneElse(invitation.email)
    take_invitation(session, invitation, account, now=now)
    return invitation


def take_invitation(session: Session, invitation: Invitation, account: Account, *, now: datetime) -> None:
    """Give the account what an open invitation promises; the caller has locked it, and knows that it is theirs."""
    invitation.accepted_at, invitation.accepted_by = now, account.id
    if invitation.makes_site_admin:
        account.is_site_admin = True
        revoke_reset_links(session, account, now=now)
    if invitation.project_id is not None and invitation.role is not None:
        _join(session, account, invitation.project_id, invitation.role, now=now)
    audit(session, account.id, "invitation.accept", f"invitation:{invitation.id}", invitation.project_id)
    session.flush()


def _join(session: Session, account: Account, project_id: int, role: Role, *, now: datetime) -> None:
    membership = session.get(Membership, (account.id, project_id), with_for_update=True)
    if membership is None:
        session.add(Membership(account_id=account.id, project_id=project_id, role=role))
    elif RANK_OF_ROLE[membership.role] < RANK_OF_ROLE[role]:
        membership.role = role
    else:
        return
    revoke_reset_links(session, account, now=now)


def revoke_invitation(session: Session, project: Project, invitation_id: int, *, by: Account, now: datetime) -> None:
    """Make an open link useless.  Raises PersonNotFound."""
    invitation = session.get(Invitation, invitation_id, with_for_update=True)
    if invitation is None or invitation.project_id != project.id:
        raise PersonNotFound("There is no such invitation in this project: reload the page to see those that are open.")
    if invitation.accepted_at is None and invitation.revoked_at is None:
        invitation.revoked_at = now
        audit(session, by.id, "invitation.revoke", f"invitation:{invitation.id}", project.id)


# API keys


def create_key(session: Session, account: Account, name: str, *, expires_at: datetime | None = None) -> str:
    """Make a key for a program and return it; only its hash is stored, so it is shown this once.

    expires_at: None, and it goes on until it is revoked.  Raises InvalidPerson.
    """
    secret = KEY_PREFIX + new_token()
    key = APIKey(
        account_id=account.id,
        name=normal_name(name),
        prefix=secret[: len(KEY_PREFIX) + 6],
        secret_hash=token_hash(secret),
        expires_at=expires_at,
    )
    session.add(key)
    session.flush()
    audit(session, account.id, "key.create", f"key:{key.id}", name=key.name)
    return secret


def revoke_key(session: Session, account: Account, key_id: int, *, by: Account, now: datetime) -> None:
    """End a key of the account.  Raises PersonNotFound."""
    key = session.get(APIKey, key_id)
    if key is None or key.account_id != account.id:
        raise PersonNotFound("There is no such key: reload the page to see those that there are.")
    if key.revoked_at is None:
        key.revoked_at = now
        audit(session, by.id, "key.revoke", f"key:{key.id}", name=key.name, account=f"account:{account.id}")

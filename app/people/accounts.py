"""What admins may do to accounts: a link for a new password, signing out, closing, site admins. Never commits.

Site admins manage every account. A project's admin manages those who are in no project that they do not run: whoever
could set somebody's password could otherwise take the roles that person has elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, Select, exists, func, or_, select, tuple_
from sqlalchemy.orm import Session

from app.people import members, service, sign_on_accounts
from app.people.errors import LastSiteAdmin, NotManaged, PersonNotFound, ResetLinkNotFound
from app.people.models import (
    Account,
    APIKey,
    Membership,
    PasswordReset,
    Role,
    SignInSession,
    SignOnIdentity,
)
from app.people.passwords import check_password, hash_password, new_token, token_hash
from app.projects.models import Project

RESET_DURATION = timedelta(days=1)


def managed_by(account: Account) -> Select[int]:
    """The ids of the accounts that the account manages."""
    if account.is_site_admin:
        return select(Account.id)
    run_by_them = select(Membership.project_id).where(
        Membership.account_id == account.id, Membership.role == Role.ADMIN, Membership.paused_at.is_(None)
    )
    theirs: ColumnElement[bool] = Membership.account_id == Account.id
    return select(Account.id).where(
        Account.is_site_admin.is_(False),
        Account.id != account.id,
        exists().where(theirs),
        ~exists().where(theirs, Membership.project_id.not_in(run_by_them)),
    )


def managed(session: Session, account_id: int, *, by: Account) -> Account:
    """The account, if `by` manages it.  Raises PersonNotFound, NotManaged."""
    account = session.scalar(select(Account).where(Account.id == account_id, Account.id.in_(managed_by(by))))
    if account is not None:
        return account
    is_in_a_project_of_theirs = exists().where(
        Membership.account_id == account_id,
        Membership.project_id.in_(select(Membership.project_id).where(Membership.account_id == by.id)),
    )
    if session.scalar(select(is_in_a_project_of_theirs)):
        raise NotManaged
    raise PersonNotFound("There is no such account, or you do not manage it.")


# A new password


def make_reset_link(session: Session, account: Account, *, by: Account | None, now: datetime) -> str:
    """The token of a link by which the account sets a new password; links made before stop working."""
    session.refresh(account, with_for_update={"key_share": True})  # of two made at once, one works
    service.revoke_reset_links(session, account, now=now)
    token = new_token()
    by_id = by.id if by else None
    session.add(
        PasswordReset(
            token_hash=token_hash(token),
            account_id=account.id,
            created_by=by_id,
            created_at=now,
            expires_at=now + RESET_DURATION,
        )
    )
    service.audit(session, by_id, "account.reset_link", f"account:{account.id}")
    return token


def account_of_reset_link(session: Session, token: str, *, now: datetime) -> Account:
    """Whose password the link sets.  Raises ResetLinkNotFound."""
    return session.get_one(Account, _open_link(session, token, now=now).account_id)


def _open_link(session: Session, token: str, *, now: datetime, lock: bool = False) -> PasswordReset:
    query = (
        select(PasswordReset)
        .join(Account, Account.id == PasswordReset.account_id)
        .where(PasswordReset.token_hash == token_hash(token), PasswordReset.expires_at > now)
        .where(PasswordReset.used_at.is_(None), PasswordReset.revoked_at.is_(None), Account.disabled_at.is_(None))
    )
    link = session.scalar(query.with_for_update(of=PasswordReset) if lock else query)
    if link is None:
        raise ResetLinkNotFound
    return link


def reset_password(session: Session, token: str, password: str, *, now: datetime) -> Account:
    """Set a new password by a link, once; every browser is signed out.  Raises ResetLinkNotFound, WeakPassword."""
    link = _open_link(session, token, now=now, lock=True)
    account = session.get_one(Account, link.account_id)
    check_password(password, account.email)
    account.password_hash, link.used_at = hash_password(password), now
    service.end_sessions(session, account, now=now)
    service.audit(session, account.id, "account.password_reset", f"account:{account.id}")
    return account


# Sessions, keys, identities


def sign_out_everywhere(session: Session, account: Account, *, by: Account, now: datetime) -> None:
    """End every session of the account. Its keys go on: programs are not browsers."""
    service.end_sessions(session, account, now=now)
    service.audit(session, by.id, "account.sign_out", f"account:{account.id}")


def sign_out(session: Session, account: Account, session_id: UUID, *, by: Account, now: datetime) -> None:
    """End one session of the account."""
    service.end_sessions(session, account, only=session_id, now=now)
    service.audit(session, by.id, "account.sign_out", f"account:{account.id}", which=str(session_id))


def open_sessions(session: Session, account: Account) -> Sequence[SignInSession]:
    """Where the account is signed in, the last used first."""
    return session.scalars(
        select(SignInSession)
        .where(SignInSession.account_id == account.id, SignInSession.revoked_at.is_(None))
        .where(SignInSession.expires_at > func.now())
        .order_by(SignInSession.last_seen_at.desc())
    ).all()


def keys_of(session: Session, account: Account) -> Sequence[APIKey]:
    """The account's keys that were not revoked, the expired ones with them."""
    query = select(APIKey).where(APIKey.account_id == account.id, APIKey.revoked_at.is_(None))
    return session.scalars(query.order_by(APIKey.created_at)).all()


def identities_of(session: Session, account: Account) -> Sequence[SignOnIdentity]:
    """Who the account is at single sign-on providers."""
    return session.scalars(select(SignOnIdentity).where(SignOnIdentity.account_id == account.id)).all()


# Closing and site admins


def close(session: Session, account: Account, *, by: Account, now: datetime) -> None:
    """Let nobody in by this account until it is opened again; its labels stay.  Raises LastSiteAdmin, LastAdmin."""
    if account.disabled_at is not None:
        return
    _keep_a_site_admin(session, account)
    for project in _projects_run_by(session, account):
        members.keep_an_admin(session, project, account.id)
    account.disabled_at = now
    service.end_sessions(session, account, now=now)
    service.revoke_reset_links(session, account, now=now)
    service.audit(session, by.id, "account.close", f"account:{account.id}")


def reopen(session: Session, account: Account, *, by: Account) -> None:
    """Let the account in again, in a new session; one that was erased stays closed."""
    if account.disabled_at is not None and account.erased_at is None:
        account.disabled_at = None
        service.audit(session, by.id, "account.reopen", f"account:{account.id}")


def make_site_admin(session: Session, account: Account, *, by: Account, now: datetime) -> None:
    """Let the account run the installation."""
    if not account.is_site_admin:
        account.is_site_admin = True
        service.revoke_reset_links(session, account, now=now)  # a project's admin may have made one
        service.audit(session, by.id, "account.site_admin", f"account:{account.id}", to=True)


def take_site_admin(session: Session, account: Account, *, by: Account) -> None:
    """The opposite.  Raises LastSiteAdmin."""
    _keep_a_site_admin(session, account)
    if account.is_site_admin:
        account.is_site_admin = False
        service.audit(session, by.id, "account.site_admin", f"account:{account.id}", to=False)


def separate(session: Session, account: Account, *, by: Account) -> None:
    """Forget who the account is at single sign-on providers; whoever comes with its address next is linked anew."""
    sign_on_accounts.unlink(session, account, by=by)


def _keep_a_site_admin(session: Session, leaving: Account) -> None:
    # All are locked, in one order: two site admins who demote each other must not both succeed.
    staying = session.scalars(
        select(Account)
        .where(Account.is_site_admin, Account.disabled_at.is_(None))
        .order_by(Account.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).all()
    if leaving.is_site_admin and set(staying) <= {leaving}:
        raise LastSiteAdmin


def _projects_run_by(session: Session, account: Account) -> Sequence[Project]:
    return session.scalars(
        select(Project)
        .join(Membership)
        .where(Membership.account_id == account.id, Membership.role == Role.ADMIN, Membership.paused_at.is_(None))
        .order_by(Project.id)
    ).all()


# The list


@dataclass(frozen=True)
class Listed:
    """An account in the list of all."""

    account: Account
    roles: list[tuple[str, str, str]]  # of each project: slug, name, role
    has_sign_on: bool
    last_seen_at: datetime | None


def listed(session: Session, *, search: str, after: int | None, limit: int) -> list[Listed]:
    """Accounts by name. after: the last id of the page before."""
    last_seen = (
        select(func.max(SignInSession.last_seen_at)).where(SignInSession.account_id == Account.id).scalar_subquery()
    )
    has_sign_on = exists().where(SignOnIdentity.account_id == Account.id)
    query = select(Account, has_sign_on, last_seen).order_by(Account.name, Account.id).limit(limit)
    if words := search.strip():
        query = query.where(
            or_(Account.name.icontains(words, autoescape=True), Account.email.icontains(words, autoescape=True))
        )
    if after is not None:
        last = select(Account.name, Account.id).where(Account.id == after).scalar_subquery()
        query = query.where(tuple_(Account.name, Account.id) > last)
    rows = session.execute(query).all()
    roles = _roles_of(session, [account.id for account, _, _ in rows])
    return [Listed(account, roles.get(account.id, []), linked, seen) for account, linked, seen in rows]


def _roles_of(session: Session, account_ids: Sequence[int]) -> dict[int, list[tuple[str, str, str]]]:
    found: dict[int, list[tuple[str, str, str]]] = {}
    rows = session.execute(
        select(Membership.account_id, Project.slug, Project.name, Membership.role)
        .join(Project)
        .where(Membership.account_id.in_(account_ids))
        .order_by(Project.name)
    )
    for account_id, slug, name, role in rows:
        found.setdefault(account_id, []).append((slug, name, role.value))
    return found


def roles_of(session: Session, account: Account) -> list[tuple[str, str, str]]:
    """The account's projects: slug, name, role."""
    return _roles_of(session, [account.id]).get(account.id, [])

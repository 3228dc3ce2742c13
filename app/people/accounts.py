"""What admins may do to the accounts that they manage: signing out, closing, site admins. Never commits."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import exists, func, or_, select, tuple_
from sqlalchemy.orm import Session

from app.people import members, reset_links, service, sessions, sign_on_accounts
from app.people.errors import LastSiteAdmin
from app.people.models import Account, APIKey, Membership, Role, SignInSession, SignOnIdentity
from app.projects.models import Project

# Sessions, keys, identities


def sign_out_everywhere(session: Session, account: Account, *, by: Account, now: datetime) -> None:
    """End every session of the account. Its keys go on: programs are not browsers."""
    sessions.end_sessions(session, account, now=now)
    service.audit(session, by.id, "account.sign_out", f"account:{account.id}")


def sign_out(session: Session, account: Account, session_id: UUID, *, by: Account, now: datetime) -> None:
    """End one session of the account."""
    sessions.end_sessions(session, account, only=session_id, now=now)
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
    sessions.end_sessions(session, account, now=now)
    reset_links.revoke_reset_links(session, account, now=now)
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
        reset_links.revoke_reset_links(session, account, now=now)  # a project's admin may have made one
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

"""Who asks, and what they may do here: the dependencies of every route.

A route that anyone may call says so with `Anyone`; every other route depends on one of the others.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

from fastapi import Depends, Request
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app import security
from app.db import SessionDep
from app.pages import Reader
from app.people.errors import MembershipPaused, NotSignedIn, NotSiteAdmin, ProjectNotFound, RoleTooLow
from app.people.models import Account, APIKey, Labeler, Membership, Role, SignInSession
from app.people.passwords import token_hash
from app.people.pseudonyms import new_pseudonym
from app.projects.models import Project

RANK_OF_ROLE = {Role.LABELER: 0, Role.RESEARCHER: 1, Role.ADMIN: 2}
SESSION_DURATION = timedelta(days=14)  # since last seen
SEEN_EVERY = timedelta(minutes=5)  # how exact "last seen" is: a write for each request would cost every labeler


@dataclass(frozen=True)
class Access:
    """An account in one project."""

    account: Account
    project: Project
    role: Role
    is_paused: bool = False

    def may(self, role: Role) -> bool:
        """Whether the role reaches."""
        return RANK_OF_ROLE[self.role] >= RANK_OF_ROLE[role]


def anyone() -> None:
    """This route needs no sign-in, on purpose."""


Anyone = Depends(anyone)


def signed_in(request: Request, session: SessionDep) -> Account:
    """The account behind the request's key or session.  Raises NotSignedIn."""
    account = find_account(request, session)
    if account is None:
        raise NotSignedIn
    if not request.url.path.startswith("/api/"):
        show_navigation(request, session, account)
    return account


def show_navigation(request: Request, session: Session, account: Account) -> None:
    """Let the page that is rendered for this request say who reads it."""
    request.state.account = account
    projects = [(project.slug, project.name) for project in projects_of(session, account)]
    request.state.reader = Reader(account.name, account.is_site_admin, projects)


def find_account(request: Request, session: Session) -> Account | None:
    """The account behind the request's key or session, if there is one and it is still good."""
    key = security.bearer(request)
    if key is not None:
        return _account_of_key(session, key)
    token = request.cookies.get(security.session_cookie(request))
    return _account_of_session(session, token) if token else None


def _account_of_session(session: Session, token: str) -> Account | None:
    row = session.execute(
        select(Account, SignInSession.id, SignInSession.last_seen_at < func.now() - SEEN_EVERY)
        .join(SignInSession, SignInSession.account_id == Account.id)
        .where(SignInSession.token_hash == token_hash(token), SignInSession.revoked_at.is_(None))
        .where(SignInSession.expires_at > func.now(), Account.disabled_at.is_(None))
    ).one_or_none()
    if row is None:
        return None
    account, session_id, was_seen_long_ago = row
    if was_seen_long_ago:
        session.execute(
            update(SignInSession)
            .where(SignInSession.id == session_id)
            .values(last_seen_at=func.now(), expires_at=func.now() + SESSION_DURATION)
        )
    return account


def _account_of_key(session: Session, key: str) -> Account | None:
    row = session.execute(
        select(Account, APIKey.id, func.coalesce(APIKey.last_used_at < func.now() - SEEN_EVERY, True))
        .join(APIKey, APIKey.account_id == Account.id)
        .where(APIKey.secret_hash == token_hash(key), APIKey.revoked_at.is_(None), Account.disabled_at.is_(None))
    ).one_or_none()
    if row is None:
        return None
    account, key_id, was_used_long_ago = row
    if was_used_long_ago:
        session.execute(update(APIKey).where(APIKey.id == key_id).values(last_used_at=func.now()))
    return account


def projects_of(session: Session, account: Account) -> list[Project]:
    """The projects an account finds in its navigation: its own, or all for a site admin."""
    query = select(Project).order_by(Project.name)
    if not account.is_site_admin:
        query = query.join(Membership).where(Membership.account_id == account.id)
    return list(session.scalars(query))


def access_to(session: Session, account: Account, slug: str) -> Access:
    """What the account may do in the project.  Raises ProjectNotFound."""
    row = session.execute(
        select(Project, Membership)
        .outerjoin(Membership, (Membership.project_id == Project.id) & (Membership.account_id == account.id))
        .where(Project.slug == slug)
    ).one_or_none()
    if row is None or (row.Membership is None and not account.is_site_admin):
        raise ProjectNotFound(slug)
    project, membership = row
    if account.is_site_admin:
        return Access(account, project, Role.ADMIN)
    return Access(account, project, membership.role, is_paused=membership.paused_at is not None)


def _at_least(role: Role) -> Callable[..., Access]:
    def access(request: Request, slug: str, account: CurrentAccount, session: SessionDep) -> Access:
        access = access_to(session, account, slug)
        request.state.access = access
        reader: Reader | None = getattr(request.state, "reader", None)
        if reader is not None:  # even when refused: the page that says so keeps its navigation
            reader.slug, reader.project, reader.role = access.project.slug, access.project.name, access.role.value
            reader.tasks = tuple(access.project.task_weights)
        if not access.may(role):
            raise RoleTooLow(role)
        if access.is_paused and role is not Role.LABELER:
            raise MembershipPaused  # a paused labeler may still hand in what they began: labeling decides
        return access

    return access


def site_admin(account: "CurrentAccount") -> Account:
    """Whoever runs the installation.  Raises NotSiteAdmin."""
    if not account.is_site_admin:
        raise NotSiteAdmin
    return account


CurrentAccount = Annotated[Account, Depends(signed_in)]
LabelerAccess = Annotated[Access, Depends(_at_least(Role.LABELER))]
ResearcherAccess = Annotated[Access, Depends(_at_least(Role.RESEARCHER))]
AdminAccess = Annotated[Access, Depends(_at_least(Role.ADMIN))]
SiteAdmin = Annotated[Account, Depends(site_admin)]


def labeler_of(session: Session, access: Access) -> Labeler:
    """The labeler that the account is in this project; made when they first judge."""
    mine = select(Labeler).where(Labeler.project_id == access.project.id, Labeler.account_id == access.account.id)
    found = session.scalar(mine)
    if found is not None:
        return found
    values: dict[str, Any] = {"project_id": access.project.id, "account_id": access.account.id}
    # Two tabs may open the page at once: the second finds what the first made.
    session.execute(insert(Labeler).values(**values, pseudonym=new_pseudonym()).on_conflict_do_nothing())
    return session.scalars(mine).one()

"""Who asks, and what they may do here: the dependencies of every route.

A route that anyone may call says so with `Anyone`; every other route depends on one of the others.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Request
from sqlalchemy import BigInteger, LargeBinary, Row, Select, bindparam, cast, func, null, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app import security
from app.db import SessionDep, constant, table_of
from app.pages import Reader
from app.people.errors import (
    KeyOfOneProject,
    MembershipPaused,
    NotSignedIn,
    NotSiteAdmin,
    ProjectNotFound,
    RoleTooLow,
    ScopeTooNarrow,
    UnknownKey,
)
from app.people.models import Account, APIKey, KeyScope, Labeler, Membership, Role, SignInSession
from app.people.owners import Owner
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
    was_let_see_names: bool = False
    is_confined: bool = False  # by a key that is for this project alone

    @property
    def owner(self) -> Owner:
        """Whose leases, rankings and writings are meant: the account's, here."""
        return Owner(self.account.id, self.project.id)

    @property
    def runs_installation(self) -> bool:
        """Whether what is for site admins, and no part of the project, may be done by the way."""
        return self.account.is_site_admin and not self.is_confined

    @property
    def sees_names(self) -> bool:
        """Whether labelers have names here, and not pseudonyms alone: for admins, and researchers who were let."""
        return self.role is Role.ADMIN or (self.role is Role.RESEARCHER and self.was_let_see_names)

    def may(self, role: Role) -> bool:
        """Whether the role reaches."""
        return RANK_OF_ROLE[self.role] >= RANK_OF_ROLE[role]


@dataclass(frozen=True)
class Credential:
    """What a request shows: the hash of an API key, or of its session's token."""

    token_hash: bytes
    is_key: bool


@dataclass(frozen=True)
class Reach:
    """How much of what its account may do a credential may do.

    project_id: the one project that a key is for; None: whatever its account reaches.
    """

    scope: KeyScope
    project_id: int | None


def anyone() -> None:
    """This route needs no sign-in, on purpose."""


Anyone = Depends(anyone)


def signed_in(request: Request, session: SessionDep) -> Account:
    """The account behind the request's key or session.  Raises NotSignedIn."""
    account = find_account(request, session)
    if account is None:
        raise refusal_of(credential_of(request))
    if not request.url.path.startswith("/api/"):
        show_navigation(request, session, account)
    return account


def refusal_of(credential: Credential | None) -> NotSignedIn:
    """Why nobody was found behind it: keys that nobody issued are counted (app.people.wrong_tokens)."""
    return UnknownKey() if credential is not None and credential.is_key else NotSignedIn()


def show_navigation(request: Request, session: Session, account: Account) -> None:
    """Let the page that is rendered for this request say who reads it."""
    request.state.account = account
    reach: Reach = request.state.reach
    projects = [(project.slug, project.name) for project in projects_of(session, account, reach)]
    request.state.reader = Reader(account.name, account.is_site_admin and reach.project_id is None, projects)


def find_account(request: Request, session: Session) -> Account | None:
    """The account behind the request's key or session, if there is one and it is still good.  Raises ScopeTooNarrow."""
    row = find_holder(session, credential_of(request), _account_of_key(), _account_of_session())
    if row is None:
        return None
    request.state.reach = reach_of(row, request.method)
    account: Account = row.Account
    return account


def reach_of(holder: Row[Any], method: str) -> Reach:
    """How far the credential reaches that find_holder found, if its scope lets the method be used.

    Raises ScopeTooNarrow.
    """
    if holder.scope == KeyScope.READ and method in security.UNSAFE_METHODS:
        raise ScopeTooNarrow(holder.scope)
    return Reach(KeyScope(holder.scope), holder.only_project_id)


Query = Select[*tuple[Any, ...]]


def credential_of(request: Request) -> Credential | None:
    """A key goes before a session; None when the request shows neither."""
    if (key := security.bearer(request)) is not None:
        return Credential(token_hash(key), is_key=True)
    token = request.cookies.get(security.session_cookie(request))
    return Credential(token_hash(token), is_key=False) if token else None


# Of tables, not of models: what asks for columns alone is spared the making of objects.
_account, _key, _session = map(table_of, (Account, APIKey, SignInSession))


def holders_of_keys(*what: Any) -> Query:
    """A query for `what`, about the account that holds the key whose hash is bound as `token_hash`, if it is good."""
    was_used_long_ago = func.coalesce(_key.c.last_used_at < func.now() - SEEN_EVERY, True)
    return (
        select(
            *what,
            _key.c.id.label("credential_id"),
            _key.c.scope.label("scope"),
            _key.c.project_id.label("only_project_id"),
            was_used_long_ago.label("was_seen_long_ago"),
        )
        .join_from(_key, _account, _account.c.id == _key.c.account_id)
        .where(_key.c.secret_hash == bindparam("token_hash", type_=LargeBinary))
        .where(_key.c.revoked_at.is_(None), _account.c.disabled_at.is_(None))
        .where(_key.c.expires_at.is_(None) | (_key.c.expires_at > func.now()))
    )


def holders_of_sessions(*what: Any) -> Query:
    """The same about a browser's session."""
    was_seen_long_ago = _session.c.last_seen_at < func.now() - SEEN_EVERY
    return (
        select(
            *what,
            _session.c.id.label("credential_id"),
            constant(KeyScope.ALL).label("scope"),  # a person at a browser is not narrowed
            cast(null(), BigInteger).label("only_project_id"),
            was_seen_long_ago.label("was_seen_long_ago"),
        )
        .join_from(_session, _account, _account.c.id == _session.c.account_id)
        .where(_session.c.token_hash == bindparam("token_hash", type_=LargeBinary))
        .where(_session.c.revoked_at.is_(None), _session.c.expires_at > func.now(), _account.c.disabled_at.is_(None))
    )


def find_holder(
    session: Session, credential: Credential | None, of_key: Query, of_session: Query, **bound: Any
) -> Row[Any] | None:
    """The one row about who holds the credential, which is marked as seen; None when it is not, or no longer, good."""
    if credential is None:
        return None
    query = of_key if credential.is_key else of_session
    row = session.execute(query, {"token_hash": credential.token_hash, **bound}).one_or_none()
    if row is not None and row.was_seen_long_ago:
        _mark_seen(session, row.credential_id, is_key=credential.is_key)
    return row


# Built once: putting a query together costs more than the database's answer.
@lru_cache(maxsize=1)
def _account_of_key() -> Query:
    return holders_of_keys(Account)


@lru_cache(maxsize=1)
def _account_of_session() -> Query:
    return holders_of_sessions(Account)


def _mark_seen(session: Session, credential_id: int | UUID, *, is_key: bool) -> None:
    if is_key:
        session.execute(update(APIKey).where(APIKey.id == credential_id).values(last_used_at=func.now()))
        return
    session.execute(
        update(SignInSession)
        .where(SignInSession.id == credential_id)
        .values(last_seen_at=func.now(), expires_at=func.now() + SESSION_DURATION)
    )


def projects_of(session: Session, account: Account, reach: Reach) -> list[Project]:
    """The projects an account finds in its navigation: its own, or all for a site admin; with a key, what it is for."""
    query = select(Project).order_by(Project.name)
    if not account.is_site_admin:
        query = query.join(Membership).where(Membership.account_id == account.id)
    if reach.project_id is not None:
        query = query.where(Project.id == reach.project_id)
    return list(session.scalars(query))


def access_to(session: Session, account: Account, slug: str) -> Access:
    """What the account may do in the project.  Raises ProjectNotFound."""
    row = session.execute(
        select(Project, Membership)
        .outerjoin(Membership, (Membership.project_id == Project.id) & (Membership.account_id == account.id))
        .where(Project.slug == slug)
    ).one_or_none()
    return access_of(account, slug, *(row or (None, None)))


def access_of(account: Account, slug: str, project: Project | None, membership: Membership | None) -> Access:
    """The same, of rows that were read already.  Raises ProjectNotFound."""
    if project is not None and account.is_site_admin:
        return Access(account, project, Role.ADMIN)
    if project is None or membership is None:
        raise ProjectNotFound(slug)
    return Access(
        account,
        project,
        membership.role,
        is_paused=membership.paused_at is not None,
        was_let_see_names=membership.sees_names,
    )


def within(reach: Reach, access: Access) -> Access:
    """The access of a key: one for labeling acts as a labeler, whoever made it; one for a project knows no other.

    Raises ProjectNotFound.
    """
    if reach.project_id not in {None, access.project.id}:
        raise ProjectNotFound(access.project.slug)
    role = Role.LABELER if reach.scope is KeyScope.LABEL else access.role
    return replace(access, role=role, is_confined=reach.project_id is not None)


def _at_least(role: Role) -> Callable[..., Access]:
    def access(request: Request, slug: str, account: CurrentAccount, session: SessionDep) -> Access:
        reach: Reach = request.state.reach
        access = within(reach, access_to(session, account, slug))
        request.state.access = access
        reader: Reader | None = getattr(request.state, "reader", None)
        if reader is not None:  # even when refused: the page that says so keeps its navigation
            reader.slug, reader.project, reader.role = access.project.slug, access.project.name, access.role.value
            reader.tasks = tuple(access.project.task_weights)
        if not access.may(role):
            raise ScopeTooNarrow(reach.scope) if reach.scope is KeyScope.LABEL else RoleTooLow(role)
        if access.is_paused and role is not Role.LABELER:
            raise MembershipPaused  # a paused labeler may still hand in what they began: labeling decides
        return access

    return access


def starts_work(request: Request, access: "LabelerAccess") -> Access:
    """The access of a labeler, to pages that give work or make a labeler by being opened.  Raises ScopeTooNarrow."""
    if request.state.reach.scope is KeyScope.READ:
        raise ScopeTooNarrow(KeyScope.READ)
    return access


def whole_account(request: Request, account: "CurrentAccount") -> Account:
    """The account with all that it may do: no key for labeling, none of one project.

    Raises ScopeTooNarrow, KeyOfOneProject.
    """
    reach: Reach = request.state.reach
    if reach.scope is KeyScope.LABEL:
        raise ScopeTooNarrow(KeyScope.LABEL)
    if reach.project_id is not None:
        raise KeyOfOneProject
    return account


def own_work(request: Request, account: "CurrentAccount") -> Owner:
    """Whose leases, rankings and writings may be named: the account's, where its key reaches."""
    reach: Reach = request.state.reach
    return Owner(account.id, reach.project_id)


def key_reach(request: Request, account: "CurrentAccount") -> Reach:
    """For what lists the account's projects."""
    reach: Reach = request.state.reach
    return reach


def site_admin(account: "WholeAccount") -> Account:
    """Whoever runs the installation.  Raises NotSiteAdmin."""
    if not account.is_site_admin:
        raise NotSiteAdmin
    return account


CurrentAccount = Annotated[Account, Depends(signed_in)]
WholeAccount = Annotated[Account, Depends(whole_account)]
OwnWork = Annotated[Owner, Depends(own_work)]
CurrentReach = Annotated[Reach, Depends(key_reach)]
AT_LEAST = {role: _at_least(role) for role in Role}
LabelerAccess = Annotated[Access, Depends(AT_LEAST[Role.LABELER])]
WorkAccess = Annotated[Access, Depends(starts_work)]
ResearcherAccess = Annotated[Access, Depends(AT_LEAST[Role.RESEARCHER])]
AdminAccess = Annotated[Access, Depends(AT_LEAST[Role.ADMIN])]
SiteAdmin = Annotated[Account, Depends(site_admin)]


def labeler_of(session: Session, access: Access) -> Labeler:
    """The labeler that the account is in this project; made when they first judge."""
    return session.scalar(_labeler(access)) or make_labeler(session, access)


def make_labeler(session: Session, access: Access) -> Labeler:
    """The labeler of an account that has not judged in the project before."""
    values: dict[str, Any] = {"project_id": access.project.id, "account_id": access.account.id}
    # Two tabs may open the page at once: the second finds what the first made.
    session.execute(insert(Labeler).values(**values, pseudonym=new_pseudonym()).on_conflict_do_nothing())
    return session.scalars(_labeler(access)).one()


def _labeler(access: Access) -> Select[Labeler]:
    return select(Labeler).where(Labeler.project_id == access.project.id, Labeler.account_id == access.account.id)

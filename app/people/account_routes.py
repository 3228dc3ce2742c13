"""An account's own page: password, sessions, API keys. Only for a signed-in browser: a key cannot make keys."""

from datetime import timedelta
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy.orm import Session

from app import security
from app.db import SessionDep, clock
from app.pages import render
from app.people import accounts, service, sessions
from app.people.access import CurrentAccount, CurrentReach, access_to, projects_of
from app.people.devices import device_of
from app.people.errors import InvalidPerson, NotSignedIn, ProjectNotFound, WeakPassword
from app.people.models import Account, KeyScope
from app.people.passwords import token_hash
from app.people.schemas import MeOut, ProjectOut
from app.people.wrong_tokens import place

router = APIRouter(prefix="/account")
api = APIRouter()


def browser_account(request: Request, account: CurrentAccount) -> Account:
    """The account of a browser's session.  Raises NotSignedIn for a program's key."""
    if security.bearer(request) is not None:
        raise NotSignedIn
    return account


BrowserAccount = Annotated[Account, Depends(browser_account)]


@api.get("/me")
def me(session: SessionDep, account: CurrentAccount, reach: CurrentReach) -> MeOut:
    """Who the key or session belongs to, and their projects."""
    projects = [ProjectOut(slug=project.slug, name=project.name) for project in projects_of(session, account, reach)]
    return MeOut(email=account.email, name=account.name, is_site_admin=account.is_site_admin, projects=projects)


@router.get("")
def account_page(request: Request, session: SessionDep, account: BrowserAccount) -> Response:
    """Everything about my account."""
    return _page(request, session, account)


@router.post("/password")
def change_password(
    request: Request,
    session: SessionDep,
    account: BrowserAccount,
    old: Annotated[str, Form()],
    new: Annotated[str, Form()],
) -> Response:
    """Set a new password; every other browser is signed out."""
    try:
        is_changed = sessions.change_password(
            session, account, old=old, new=new, keep=_token(request), place=place(request), now=clock(session)
        )
    except WeakPassword as error:
        return _page(request, session, account, password_problem=str(error))
    if not is_changed:
        return _page(request, session, account, password_problem="The old password is another one.")  # noqa: S106
    return _page(request, session, account, done="Your password is changed; all other browsers are signed out.")


@router.post("/keys")
def create_key(
    request: Request,
    session: SessionDep,
    account: BrowserAccount,
    name: Annotated[str, Form()],
    scope: Annotated[KeyScope, Form()] = KeyScope.READ,
    project: Annotated[str, Form()] = "",
    days: Annotated[Literal["30", "90", "365", "never"], Form()] = "90",
) -> Response:
    """Make a key; the page shows it once.  project: the short name of the only one that it reaches, or nothing."""
    expires_at = None if days == "never" else clock(session) + timedelta(days=int(days))
    try:
        only = access_to(session, account, project).project if project else None
        secret = service.create_key(session, account, name, scope=scope, project=only, expires_at=expires_at)
    except (InvalidPerson, ProjectNotFound) as error:
        return _page(request, session, account, key_problem=str(error))
    return _page(request, session, account, new_key=secret)


@router.post("/keys/{key_id}/revoke")
def revoke_key(session: SessionDep, account: BrowserAccount, key_id: int) -> Response:
    """End a key at once."""
    service.revoke_key(session, account, key_id, by=account, now=clock(session))
    return RedirectResponse("/account#keys", status_code=303)


@router.post("/sessions/revoke")
def revoke_other_sessions(request: Request, session: SessionDep, account: BrowserAccount) -> Response:
    """Sign out everywhere else."""
    sessions.end_sessions(session, account, keep=_token(request), now=clock(session))
    service.audit(session, account.id, "account.sign_out", f"account:{account.id}")
    return RedirectResponse("/account#sessions", status_code=303)


@router.post("/sessions/{session_id}/revoke")
def revoke_session(session: SessionDep, account: BrowserAccount, session_id: UUID) -> Response:
    """Sign one browser out."""
    accounts.sign_out(session, account, session_id, by=account, now=clock(session))
    return RedirectResponse("/account#sessions", status_code=303)


def _token(request: Request) -> str:
    return request.cookies[security.session_cookie(request)]


def _page(
    request: Request,
    session: Session,
    account: Account,
    *,
    new_key: str | None = None,
    key_problem: str | None = None,
    password_problem: str | None = None,
    done: str | None = None,
) -> Response:
    return render(
        request,
        "people/account.html",
        status_code=422 if key_problem or password_problem else 200,
        keys=accounts.keys_of(session, account),
        projects=projects_of(session, account, request.state.reach),
        sessions=accounts.open_sessions(session, account),
        identities=accounts.identities_of(session, account),
        device_of=device_of,
        now=clock(session),
        this_session=token_hash(_token(request)),
        new_key=new_key,
        key_problem=key_problem,
        password_problem=password_problem,
        done=done,
    )

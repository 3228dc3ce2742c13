"""An account's own page: password, sessions, API keys. Only for a signed-in browser: a key cannot make keys."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import security
from app.db import SessionDep, clock
from app.pages import render
from app.people import service
from app.people.access import CurrentAccount, projects_of
from app.people.errors import InvalidPerson, NotSignedIn, WeakPassword
from app.people.models import Account, APIKey, SignInSession
from app.people.passwords import token_hash
from app.people.schemas import MeOut, ProjectOut

router = APIRouter(prefix="/account")
api = APIRouter()


def browser_account(request: Request, account: CurrentAccount) -> Account:
    """The account of a browser's session.  Raises NotSignedIn for a program's key."""
    if security.bearer(request) is not None:
        raise NotSignedIn
    return account


BrowserAccount = Annotated[Account, Depends(browser_account)]


@api.get("/me")
def me(session: SessionDep, account: CurrentAccount) -> MeOut:
    """Who the key or session belongs to, and their projects."""
    projects = [ProjectOut(slug=project.slug, name=project.name) for project in projects_of(session, account)]
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
        is_changed = service.change_password(
            session, account, old=old, new=new, keep=_token(request), now=clock(session)
        )
    except WeakPassword as error:
        return _page(request, session, account, password_problem=str(error))
    if not is_changed:
        return _page(request, session, account, password_problem="The old password is another one.")  # noqa: S106
    return _page(request, session, account, done="Your password is changed; all other browsers are signed out.")


@router.post("/keys")
def create_key(
    request: Request, session: SessionDep, account: BrowserAccount, name: Annotated[str, Form()]
) -> Response:
    """Make a key; the page shows it once."""
    try:
        secret = service.create_key(session, account, name)
    except InvalidPerson as error:
        return _page(request, session, account, key_problem=str(error))
    return _page(request, session, account, new_key=secret)


@router.post("/keys/{key_id}/revoke")
def revoke_key(session: SessionDep, account: BrowserAccount, key_id: int) -> Response:
    """End a key at once."""
    service.revoke_key(session, account, key_id, now=clock(session))
    return RedirectResponse("/account#keys", status_code=303)


@router.post("/sessions/revoke")
def revoke_other_sessions(request: Request, session: SessionDep, account: BrowserAccount) -> Response:
    """Sign out everywhere else."""
    service.end_sessions(session, account, keep=_token(request), now=clock(session))
    return RedirectResponse("/account#sessions", status_code=303)


@router.post("/sessions/{session_id}/revoke")
def revoke_session(session: SessionDep, account: BrowserAccount, session_id: UUID) -> Response:
    """Sign one browser out."""
    service.end_sessions(session, account, only=session_id, now=clock(session))
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
    keys = select(APIKey).where(APIKey.account_id == account.id, APIKey.revoked_at.is_(None))
    sessions = select(SignInSession).where(
        SignInSession.account_id == account.id,
        SignInSession.revoked_at.is_(None),
        SignInSession.expires_at > func.now(),
    )
    return render(
        request,
        "people/account.html",
        status_code=422 if key_problem or password_problem else 200,
        keys=session.scalars(keys.order_by(APIKey.created_at)).all(),
        sessions=session.scalars(sessions.order_by(SignInSession.last_seen_at.desc())).all(),
        this_session=token_hash(_token(request)),
        new_key=new_key,
        key_problem=key_problem,
        password_problem=password_problem,
        done=done,
    )

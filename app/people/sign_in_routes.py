"""Signing in and out, and accepting an invitation: the pages that people see before we know them."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import security
from app.db import SessionDep, clock
from app.pages import render
from app.people import invitations, sessions
from app.people.access import SESSION_DURATION, Anyone, find_account, show_navigation
from app.people.errors import EmailTaken, InvalidPerson, NotSignedIn, TooManyAttempts, WeakPassword
from app.people.models import Account, Invitation, Role
from app.people.wrong_tokens import Guessable, place
from app.projects.models import Project
from app.settings import Settings

router = APIRouter()


@router.get("/sign-in", dependencies=[Anyone])
def sign_in_page(
    request: Request, session: SessionDep, next: str = "/", after: Literal["", "sign-out"] = ""
) -> Response:
    """The form to sign in; whoever is signed in goes on to where they wanted to be."""
    if find_account(request, session) is not None:
        return RedirectResponse(local(next), status_code=303)
    return sign_in_form(request, session, next, is_signed_out=after == "sign-out")


@router.post("/sign-in", dependencies=[Anyone])
def sign_in(
    request: Request,
    session: SessionDep,
    email: Annotated[str, Form()],
    password: Annotated[str, Form()],
    next: Annotated[str, Form()] = "/",
) -> Response:
    """Open a session. A wrong pair answers with the form and not with an error: the failed attempt is to be stored."""
    now = clock(session)
    try:
        account = sessions.authenticate(session, email=email, password=password, place=place(request), now=now)
    except TooManyAttempts as error:
        page = sign_in_form(request, session, next, email, str(error), status=429)
        page.headers["Retry-After"] = str(error.members["retry_after_s"])
        return page
    if account is None:
        problem = "This address and password do not fit together. Check both, or ask an admin for a new invitation."
        return sign_in_form(request, session, next, email, problem, status=401)
    response = RedirectResponse(local(next), status_code=303)
    remember(request, response, session, account)
    return response


@router.post("/sign-out", dependencies=[Anyone])
def sign_out(request: Request, session: SessionDep) -> Response:
    """End this browser's session, whether it is still good or not."""
    token = request.cookies.get(security.session_cookie(request))
    if token is not None:
        sessions.close_session(session, token, now=clock(session))
    has_sign_on = bool(request.app.state.settings.oidc_issuer)  # there they may still be signed in
    response = RedirectResponse("/sign-in?after=sign-out" if has_sign_on else "/sign-in", status_code=303)
    response.delete_cookie(
        security.session_cookie(request), path="/", secure=security.is_https(request), httponly=True, samesite="lax"
    )
    return response


@router.get("/invitations/{token}", dependencies=[Anyone, Guessable])
def invitation_page(request: Request, session: SessionDep, token: str) -> Response:
    """What the link offers, and the form to take it."""
    invitation = invitations.open_invitation(session, token, now=clock(session))
    account = find_account(request, session)
    if account is not None:
        show_navigation(request, session, account)
    return _invitation_form(request, session, invitation)


@router.post("/invitations/{token}", dependencies=[Anyone, Guessable])
def accept_invitation(
    request: Request,
    session: SessionDep,
    token: str,
    name: Annotated[str, Form()] = "",
    email: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
) -> Response:
    """Join with the account that is signed in, or with a new one. A key joins nothing: its scope is for good."""
    now = clock(session)
    invitation = invitations.open_invitation(session, token, now=now)
    if security.bearer(request) is not None:
        raise NotSignedIn
    account = find_account(request, session)
    is_new_here = account is None
    if account is None:
        try:
            account = invitations.account_for_invitation(session, invitation, email=email, name=name, password=password)
        except (InvalidPerson, WeakPassword, EmailTaken) as error:
            return _invitation_form(request, session, invitation, name=name, email=email, problem=error)
    invitations.accept_invitation(session, token, account, now=now)
    response = RedirectResponse(_first_page(session, invitation), status_code=303)
    if is_new_here:
        remember(request, response, session, account)
    return response


def sign_in_form(
    request: Request,
    session: Session,
    next: str,
    email: str = "",
    problem: str | None = None,
    *,
    status: int = 200,
    is_signed_out: bool = False,
) -> Response:
    """The page to sign in on, which also says why it did not work."""
    settings: Settings = request.app.state.settings
    return render(
        request,
        "people/sign_in.html",
        status_code=status,
        next=local(next),
        email=email,
        problem=problem,
        has_site_admin=invitations.has_site_admin(session),
        sign_on=settings.oidc_name if settings.oidc_issuer else None,
        is_signed_out=is_signed_out,
    )


def _invitation_form(
    request: Request,
    session: Session,
    invitation: Invitation,
    *,
    name: str = "",
    email: str = "",
    problem: Exception | None = None,
) -> Response:
    inviter = session.get(Account, invitation.created_by) if invitation.created_by else None
    project = session.get(Project, invitation.project_id) if invitation.project_id else None
    settings: Settings = request.app.state.settings
    return render(
        request,
        "people/invitation.html",
        status_code=422 if problem else 200,
        invitation=invitation,
        inviter=inviter,
        project=project,
        name=name,
        email=invitation.email or email,
        problem=problem,
        problem_is=getattr(problem, "code", None),
        sign_on=settings.oidc_name if settings.oidc_issuer else None,
    )


def _first_page(session: Session, invitation: Invitation) -> str:
    """Where a new member begins: a labeler with their first task, everyone else with the project."""
    if invitation.project_id is None:  # the first admin: the starter project is the one that is there
        project = session.scalar(select(Project).order_by(Project.id).limit(1))
        return f"/projects/{project.slug}" if project else "/"
    project = session.get_one(Project, invitation.project_id)
    return f"/projects/{project.slug}" + ("/work" if invitation.role is Role.LABELER else "")


def remember(request: Request, response: Response, session: Session, account: Account) -> None:
    """Open a session of the account in the browser that gets the response."""
    set_session(request, response, open_in(request, session, account, now=clock(session)))


def open_in(request: Request, session: Session, account: Account, *, now: datetime) -> str:
    """A new session of the account, in place of the one that the browser had: whoever knew its token is out."""
    if (token := request.cookies.get(security.session_cookie(request))) is not None:
        sessions.close_session(session, token, now=now)
    return sessions.open_session(session, account, user_agent=request.headers.get("user-agent"), now=now)


def set_session(request: Request, response: Response, token: str) -> None:
    """Sign the browser in that gets the response. token: of a session that was opened for it."""
    name = security.session_cookie(request)
    security.set_cookie(request, response, name, token, int(SESSION_DURATION.total_seconds()))


def local(address: str) -> str:
    """The address if it is one of ours, else the home page: a sign-in link must not lead away."""
    is_ours = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
    return address if is_ours else "/"

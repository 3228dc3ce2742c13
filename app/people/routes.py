"""Signing in and out, invitations, the account's own page, a project's people."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from app import security
from app.db import SessionDep, clock
from app.pages import render
from app.people import service
from app.people.access import SESSION_DURATION, Anyone, find_account

router = APIRouter()
api = APIRouter()


@router.get("/sign-in", dependencies=[Anyone])
def sign_in_page(request: Request, session: SessionDep, next: str = "/") -> Response:
    """The form to sign in; whoever is signed in goes on to where they wanted to be."""
    if find_account(request, session) is not None:
        return RedirectResponse(local(next), status_code=303)
    return render(request, "people/sign_in.html", next=local(next), email="", problem=None)


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
    address = request.client.host if request.client else "unknown"
    account = service.authenticate(session, email=email, password=password, address=address, now=now)
    if account is None:
        problem = "This address and password do not fit together. Check both, or ask an admin for a new invitation."
        return render(request, "people/sign_in.html", status_code=401, next=local(next), email=email, problem=problem)
    token = service.open_session(session, account, user_agent=request.headers.get("user-agent"), now=now)
    response = RedirectResponse(local(next), status_code=303)
    remember(request, response, token)
    return response


@router.post("/sign-out", dependencies=[Anyone])
def sign_out(request: Request, session: SessionDep) -> Response:
    """End this browser's session, whether it is still good or not."""
    token = request.cookies.get(security.session_cookie(request))
    if token is not None:
        service.close_session(session, token, now=clock(session))
    response = RedirectResponse("/sign-in", status_code=303)
    response.delete_cookie(security.session_cookie(request), path="/", secure=security.is_https(request))
    return response


def remember(request: Request, response: Response, token: str) -> None:
    """Set the session's cookie. A script cannot read it, another site's form does not send it."""
    response.set_cookie(
        security.session_cookie(request),
        token,
        max_age=int(SESSION_DURATION.total_seconds()),
        httponly=True,
        samesite="lax",
        secure=security.is_https(request),
        path="/",
    )


def local(address: str) -> str:
    """The address if it is one of ours, else the home page: a sign-in link must not lead away."""
    is_ours = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
    return address if is_ours else "/"

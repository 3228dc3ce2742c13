"""Accounts as their admins see them, and the page on which a link sets a new password."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy.orm import Session

from app.db import SessionDep, clock
from app.error_answers import answer
from app.errors import status_of
from app.pages import render
from app.people import accounts, managing, reset_links, service
from app.people.access import Anyone, SiteAdmin, projects_of, site_admin
from app.people.account_routes import BrowserAccount
from app.people.devices import device_of
from app.people.errors import ResetLinkWithdrawn, WeakPassword
from app.people.member_routes import base_url
from app.people.models import Account
from app.people.sign_in_routes import remember
from app.people.wrong_tokens import Guessable

router = APIRouter()

ACCOUNTS_A_PAGE = 100


@router.get("/people")
def accounts_page(
    request: Request, session: SessionDep, account: SiteAdmin, search: str = "", after: int | None = None
) -> Response:
    """Everyone who has an account."""
    found = accounts.listed(session, search=search, after=after, limit=ACCOUNTS_A_PAGE + 1)
    return render(
        request,
        "people/accounts.html",
        found=found[:ACCOUNTS_A_PAGE],
        has_more=len(found) > ACCOUNTS_A_PAGE,
        search=search,
    )


def managed_account(request: Request, session: SessionDep, account_id: int, account: BrowserAccount) -> Account:
    """The account of the address, if whoever asks manages it; for an act, locked so that they still do at its end."""
    return managing.managed(session, account_id, by=account, lock=request.method != "GET")


Managed = Annotated[Account, Depends(managed_account)]


@router.get("/people/{account_id}")
def access_page(request: Request, session: SessionDep, account: BrowserAccount, managed: Managed) -> Response:
    """How somebody gets in: their sessions, keys and links, and what an admin may do about them."""
    return _page(request, session, managed)


@router.post("/people/{account_id}/reset")
def make_reset_link(request: Request, session: SessionDep, account: BrowserAccount, managed: Managed) -> Response:
    """Make a link for a new password; the page shows it once."""
    token = reset_links.make_reset_link(session, managed, by=account, now=clock(session))
    return _page(request, session, managed, link=f"{base_url(request)}/reset/{token}")


@router.post("/people/{account_id}/sessions/revoke")
def sign_out_everywhere(session: SessionDep, account: BrowserAccount, managed: Managed) -> Response:
    """Sign somebody out in every browser."""
    accounts.sign_out_everywhere(session, managed, by=account, now=clock(session))
    return _back(managed)


@router.post("/people/{account_id}/sessions/{session_id}/revoke")
def sign_out(session: SessionDep, account: BrowserAccount, managed: Managed, session_id: UUID) -> Response:
    """Sign somebody out in one browser."""
    accounts.sign_out(session, managed, session_id, by=account, now=clock(session))
    return _back(managed)


@router.post("/people/{account_id}/keys/{key_id}/revoke")
def revoke_key(session: SessionDep, account: BrowserAccount, managed: Managed, key_id: int) -> Response:
    """End somebody's key."""
    service.revoke_key(session, managed, key_id, by=account, now=clock(session))
    return _back(managed)


@router.post("/people/{account_id}/separate")
def separate(session: SessionDep, account: BrowserAccount, managed: Managed) -> Response:
    """Forget who somebody is at the single sign-on provider."""
    accounts.separate(session, managed, by=account)
    return _back(managed)


OnlySiteAdmins = Depends(site_admin)


@router.post("/people/{account_id}/close", dependencies=[OnlySiteAdmins])
def close(session: SessionDep, account: BrowserAccount, managed: Managed) -> Response:
    """Let nobody in by the account any more."""
    accounts.close(session, managed, by=account, now=clock(session))
    return _back(managed)


@router.post("/people/{account_id}/reopen", dependencies=[OnlySiteAdmins])
def reopen(session: SessionDep, account: BrowserAccount, managed: Managed) -> Response:
    """Let the account in again."""
    accounts.reopen(session, managed, by=account)
    return _back(managed)


@router.post("/people/{account_id}/make-site-admin", dependencies=[OnlySiteAdmins])
def make_site_admin(session: SessionDep, account: BrowserAccount, managed: Managed) -> Response:
    """Let somebody run the installation."""
    accounts.make_site_admin(session, managed, by=account, now=clock(session))
    return _back(managed)


@router.post("/people/{account_id}/take-site-admin", dependencies=[OnlySiteAdmins])
def take_site_admin(session: SessionDep, account: BrowserAccount, managed: Managed) -> Response:
    """The opposite."""
    accounts.take_site_admin(session, managed, by=account)
    return RedirectResponse("/", status_code=303) if managed.id == account.id else _back(managed)


@router.get("/reset/{token}", dependencies=[Anyone, Guessable])
def reset_page(request: Request, session: SessionDep, token: str) -> Response:
    """The form for a new password."""
    try:
        account = reset_links.account_of_reset_link(session, token, now=clock(session))
    except ResetLinkWithdrawn as error:
        return _withdrawn(request, session, token, error)
    return render(request, "people/reset.html", email=account.email, problem=None)


@router.post("/reset/{token}", dependencies=[Anyone, Guessable])
def reset_password(
    request: Request, session: SessionDep, token: str, password: Annotated[str, Form()] = ""
) -> Response:
    """Set it, and sign this browser in."""
    now = clock(session)
    try:
        account = reset_links.reset_password(session, token, password, now=now)
    except ResetLinkWithdrawn as error:
        return _withdrawn(request, session, token, error)
    except WeakPassword as error:
        email = reset_links.account_of_reset_link(session, token, now=now).email
        return render(request, "people/reset.html", status_code=422, email=email, problem=str(error))
    response = RedirectResponse("/", status_code=303)
    remember(request, response, session, account)
    return response


def _withdrawn(request: Request, session: Session, token: str, error: ResetLinkWithdrawn) -> Response:
    """The error's page, rendered and not raised: that the link has ended and was tried is to be stored."""
    reset_links.withdraw(session, token, now=clock(session))
    return answer(request, status_of(error), error.code, str(error))


def _back(managed: Account) -> Response:
    return RedirectResponse(f"/people/{managed.id}", status_code=303)


def _page(request: Request, session: Session, managed: Account, *, link: str | None = None) -> Response:
    return render(
        request,
        "people/access.html",
        managed=managed,
        roles=accounts.roles_of(session, managed),
        sessions=accounts.open_sessions(session, managed),
        keys=accounts.keys_of(session, managed),
        projects=projects_of(session, request.state.account, request.state.reach),
        identities=accounts.identities_of(session, managed),
        device_of=device_of,
        now=clock(session),
        link=link,
    )

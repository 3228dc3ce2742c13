"""Single sign-on, as addresses: off to the provider, back from it, and out of it.

They wait for the provider in the event loop, so that one which is slow keeps no thread and no connection from others.
"""

import logging
from datetime import datetime

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy.orm import Session

from app import security
from app.db import clock
from app.people import sign_on_accounts
from app.people.access import Anyone, find_account
from app.people.errors import PersonNotFound, TooManyAttempts
from app.people.member_routes import base_url
from app.people.sign_in_routes import local, open_in, set_session, sign_in_form
from app.people.sign_on import (
    Person,
    Provider,
    Ticket,
    address_of_sign_out,
    address_of_visit,
    person_behind,
    provider_of,
    readable,
)
from app.people.sign_on_accounts import Visit
from app.people.sign_on_errors import NoSuchVisit, ProviderDeclined, SignOnRefused, TokenNotTrusted
from app.people.transactions import in_transaction
from app.people.wrong_tokens import place
from app.settings import Settings

log = logging.getLogger(__name__)
router = APIRouter(prefix="/sign-in/sso", dependencies=[Anyone])


@router.get("")
async def leave_for_the_provider(request: Request, next: str = "/") -> Response:
    """Send the browser to the provider, with a ticket that it must bring back."""
    provider = _provider(request)
    browser = security.browser_secret(request)
    visitor = None if browser else security.new_visitor()

    def begin(session: Session) -> Ticket | None:
        if find_account(request, session) is not None:
            return None
        return sign_on_accounts.begin(
            session, browser=browser or visitor or "", place=place(request), next=local(next), now=clock(session)
        )

    try:
        ticket = await in_transaction(begin)
        if ticket is None:
            return RedirectResponse(local(next), status_code=303)
        response = RedirectResponse(await address_of_visit(provider, ticket), status_code=303)
    except (SignOnRefused, TooManyAttempts) as error:
        return await _refuse(request, error, next)
    if visitor:
        security.set_cookie(request, response, security.visitor_cookie(request), visitor)
    return response


@router.get("/return")
async def come_back_from_the_provider(
    request: Request, state: str = "", code: str = "", error: str = "", iss: str = ""
) -> Response:
    """Sign in whoever the provider says this is. Whatever goes wrong is said on the sign-in page and written down."""
    provider, next = _provider(request), "/"

    def end(session: Session) -> tuple[Visit, datetime]:
        now, browser = clock(session), security.browser_secret(request)
        sign_on_accounts.check_place(session, place(request), now=now)
        if browser is None:
            raise NoSuchVisit
        return sign_on_accounts.end(session, state=state, browser=browser, now=now), now

    try:
        visit, now = await in_transaction(end)
        next = visit.next
        if error or not code:
            raise ProviderDeclined(readable(error))
        if iss and iss != provider.issuer:  # RFC 9207
            raise TokenNotTrusted("it came from another provider")
        person = await person_behind(provider, visit.ticket, code, now=now)
        token = await in_transaction(lambda session: _open(request, session, person, next))
    except (SignOnRefused, TooManyAttempts) as refused:
        return await _refuse(request, refused, next)
    response = RedirectResponse(next, status_code=303)
    set_session(request, response, token)
    return response


@router.get("/sign-out")
async def leave_the_provider_too(request: Request) -> Response:
    """After signing out here: end the provider's own session, else its button would let anyone at this desk in."""
    provider = _provider(request)
    try:
        await in_transaction(lambda session: sign_on_accounts.check_place(session, place(request), now=clock(session)))
        address = await address_of_sign_out(provider, f"{base_url(request)}/sign-in")
    except (SignOnRefused, TooManyAttempts) as error:
        return await _refuse(request, error, "/", is_kept=False)  # nobody wanted in
    if address is None:
        problem = "The sign-in of your organisation has no address to sign out at: sign out on its own pages."
        return await in_transaction(lambda session: sign_in_form(request, session, "/", problem=problem))
    return RedirectResponse(address, status_code=303)


def _open(request: Request, session: Session, person: Person, next: str) -> str:
    now = clock(session)
    account = sign_on_accounts.account_of(session, person, next=next, domains=_domains(request), now=now)
    return open_in(request, session, account, now=now)


async def _refuse(
    request: Request, error: SignOnRefused | TooManyAttempts, next: str, *, is_kept: bool = True
) -> Response:
    """The sign-in page with the reason on it; a transaction of its own keeps what happened."""
    status = error.status if isinstance(error, SignOnRefused) else 429

    def answer(session: Session) -> Response:
        if isinstance(error, SignOnRefused):
            log.warning("single sign-on refused: reason=%s cause=%s", error.code, type(error.__cause__).__name__)
            if is_kept:
                sign_on_accounts.write_down(session, error, place=place(request), now=clock(session))
        return sign_in_form(request, session, next, problem=str(error), status=status)

    page = await in_transaction(answer)
    if "retry_after_s" in error.members:
        page.headers["Retry-After"] = str(error.members["retry_after_s"])
    return page


def _provider(request: Request) -> Provider:
    provider = provider_of(request.app.state.settings, base_url(request))
    if provider is None:
        raise PersonNotFound("This installation has no single sign-on: sign in with your password.")
    return provider


def _domains(request: Request) -> frozenset[str]:
    settings: Settings = request.app.state.settings
    return frozenset(domain for part in settings.oidc_domains.split(",") if (domain := part.strip().lower()))

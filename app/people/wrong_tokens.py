"""Keys and links that nobody issued: counted in the database, so that the limit holds across web processes.

They are 256 random bits, and nobody guesses one: what is limited is the trying. A place that has tried too many links
has to wait, with a good one too. A place that has tried too many keys is told to wait, but its good keys go on: a
forgotten script in an office must not stop the others there.
"""

import logging
from datetime import datetime

from fastapi import Depends, FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session

from app import error_answers
from app.db import SessionDep, SessionFactory, clock, turn
from app.people.errors import TooManyWrongTokens, UnknownInvitation, UnknownKey, UnknownResetLink
from app.people.models import WrongToken, WrongTokenKind
from app.people.sessions import ATTEMPTS_WINDOW, place_of

log = logging.getLogger(__name__)

MOST_BY_PLACE = {WrongTokenKind.KEY: 60, WrongTokenKind.LINK: 20}  # within the window of failed sign-ins


def check_place(session: Session, kind: WrongTokenKind, place: str, *, now: datetime) -> int:
    """How many the place has tried.  Raises TooManyWrongTokens while they are too many."""
    tried, oldest = session.execute(
        select(func.count(), func.min(WrongToken.at)).where(
            WrongToken.kind == kind, WrongToken.place == place, WrongToken.at > now - ATTEMPTS_WINDOW
        )
    ).one()
    if tried >= MOST_BY_PLACE[kind]:
        raise TooManyWrongTokens(max(1, int((oldest + ATTEMPTS_WINDOW - now).total_seconds())))
    return int(tried)


def write_down(session: Session, kind: WrongTokenKind, place: str, *, now: datetime) -> None:
    """One more. Nothing is stored beyond the limit, so that a flood fills no disk.  Raises TooManyWrongTokens."""
    check_place(session, kind, place, now=now)  # before the lock: of a flood, few wait for each other
    # A hundred parallel guesses must not all count the same number before any is stored.
    turn = {"subject": f"wrong {kind} {place}"}
    session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:subject, 0))"), turn)
    session.execute(delete(WrongToken).where(WrongToken.at <= now - ATTEMPTS_WINDOW))
    num_before = check_place(session, kind, place, now=now)
    session.add(WrongToken(kind=kind, place=place, at=now))
    if num_before + 1 == MOST_BY_PLACE[kind]:  # once, however many come after it
        log.warning("too many tokens that nobody issued: kind=%s place=%s", kind, place)


def check_links(request: Request, session: SessionDep) -> None:
    """For the routes whose address holds a link's token.  Raises TooManyWrongTokens."""
    check_place(session, WrongTokenKind.LINK, place(request), now=clock(session))


Guessable = Depends(check_links)


def place(request: Request) -> str:
    """Where the request comes from, as limits count it."""
    return place_of(request.client.host if request.client else "unknown")


def install(app: FastAPI) -> None:
    """Count each answer that says that a token is not one of ours. Links that we did make may be followed too late."""
    for refused in (UnknownKey, UnknownInvitation, UnknownResetLink):
        app.add_exception_handler(refused, _on_wrong_token)


async def _on_wrong_token(request: Request, error: Exception) -> Response:
    """The answer of the error itself, after the request's own transaction was rolled back."""
    kind = WrongTokenKind.KEY if isinstance(error, UnknownKey) else WrongTokenKind.LINK
    try:
        async with turn(SessionFactory):  # among the pages: labelers' submits wait for no stranger
            await run_in_threadpool(_write_down, kind, place(request))
    except TooManyWrongTokens as too_many:
        return error_answers.on_podium_error(request, too_many)
    return error_answers.on_podium_error(request, error)


def _write_down(kind: WrongTokenKind, place: str) -> None:
    with SessionFactory.begin() as session:
        write_down(session, kind, place, now=clock(session))

"""Answers to what went wrong: a problem for programs, a page for people.

Programs get application/problem+json (RFC 9457) with a stable `code`; people get a page that says what happened,
that nothing was lost, and the next move.
"""

import logging
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app import security
from app.errors import PodiumError, status_of
from app.monitoring.failures import said
from app.monitoring.requests import HEADER, request_id
from app.pages import render

log = logging.getLogger(__name__)

TITLES = {
    400: "This request was not understood",
    401: "Please sign in",
    403: "This is not open to you",
    404: "There is nothing here",
    405: "This cannot be done here",
    409: "This could not be done",
    410: "This is gone for good",
    413: "This is too large",
    422: "Something in the form needs a change",
    429: "Too many attempts",
    500: "Something went wrong on our side",
    503: "The database cannot be reached",
}
# Where nobody did anything wrong, the page says what is the case.
TITLES_OF_STATES = {
    "project_paused": "This project is paused",
    "membership_paused": "You are paused in this project",
    "reset_link_withdrawn": "This link has ended",
    "policy_store_away": "The artifact store cannot be reached",
    "scores_away": "The artifact store cannot be reached",
    "report_being_made": "This report is being made",
}
RETRY_AFTER_S = 5


def is_for_programs(request: Request) -> bool:
    """Whether the answer is read by a program: it asked the JSON API."""
    return request.url.path.startswith("/api/")


def answer(
    request: Request,
    status: int,
    code: str,
    detail: str,
    *,
    members: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """The error as a problem for programs, as a page for people."""
    title = TITLES_OF_STATES.get(code) or TITLES.get(status, "This could not be done")
    if is_for_programs(request):
        problem = {"type": "about:blank", "title": title, "status": status, "code": code, "detail": detail}
        problem["request_id"] = request_id(request)
        return JSONResponse(
            {**(members or {}), **problem}, status_code=status, media_type="application/problem+json", headers=headers
        )
    facts = {"title": title, "code": code, "detail": detail, "status": status, "request_id": request_id(request)}
    page = render(request, "error.html", status_code=status, **facts)
    page.headers.update(headers or {})
    return page


def install(app: FastAPI) -> None:
    """Give every error its answer."""
    app.add_exception_handler(PodiumError, on_podium_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    for unreachable in (OperationalError, InterfaceError, PoolTimeout):
        app.add_exception_handler(unreachable, _on_unreachable_database)
    app.add_exception_handler(DataError, _on_unstorable_value)
    app.add_exception_handler(ClientDisconnect, _on_hung_up)
    app.add_exception_handler(Exception, _on_unexpected_error)


def on_podium_error(request: Request, error: Exception) -> Response:
    """The answer to a named error: its status and code for programs, its sentence for people."""
    assert isinstance(error, PodiumError)
    status = status_of(error)
    if status == 401 and request.method == "GET" and not is_for_programs(request):
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/sign-in?next={quote(target, safe='')}", status_code=303)
    if error.page is not None and request.method == "GET" and not is_for_programs(request):
        return RedirectResponse(error.page, status_code=303)
    headers = {"Retry-After": str(error.members["retry_after_s"])} if "retry_after_s" in error.members else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return answer(request, status, error.code, str(error), members=error.members, headers=headers)


def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = [
        {"field": ".".join(str(part) for part in problem["loc"][1:]), "message": problem["msg"]}
        for problem in error.errors()
    ]
    detail = "; ".join(f"{problem['field'] or 'the request'}: {problem['message']}" for problem in problems)
    return answer(request, 422, "invalid_request", detail, members={"errors": problems})


def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    details = {
        404: "No page has this address, or you are not a member of its project.",
        405: "This address answers to another kind of request.",
    }
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, f"http_{error.status_code}")
    detail = details.get(error.status_code, error.detail)
    return answer(request, error.status_code, code, detail, headers=dict(error.headers or {}))


def _on_unstorable_value(request: Request, error: Exception) -> Response:
    log.warning("database: %s %s refused: %s", request.method, request.url.path, said(error))
    return answer(
        request,
        422,
        "unstorable_value",
        "The address or the form holds a number that is too large, or a character that cannot be stored (NUL)."
        " Nothing was changed: go back and correct it.",
    )


def _on_unreachable_database(request: Request, error: Exception) -> Response:
    # OperationalError also covers deadlocks and cancelled statements: trying again is right for them too.
    log.error("database: %s %s failed: %s", request.method, request.url.path, said(error))
    return answer(
        request,
        503,
        "database_unreachable",
        "The database did not answer; what was saved before is safe. Try again in a few seconds.",
        headers={"Retry-After": str(RETRY_AFTER_S)},
    )


def _on_hung_up(request: Request, error: Exception) -> Response:
    """The browser went away while it sent a form: nothing was done, and nobody is there to be told."""
    return Response(status_code=400)


def _on_unexpected_error(request: Request, error: Exception) -> Response:
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return _on_unreachable_database(request, error)
    reference = request_id(request)
    log.error("unexpected error, reference=%s path=%s", reference, request.url.path)  # the server logs the traceback
    response = answer(
        request,
        500,
        "unexpected",
        f"Nothing of this request was stored. Tell the administrator the reference {reference}, or try again.",
        members={"reference": reference},
    )
    # This handler runs outside of every middleware, so the headers are put on here.
    for name, value in security.HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers[HEADER.decode()] = reference
    return response

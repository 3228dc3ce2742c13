"""Every request is given an id, measured, and logged where that was asked for. Pure ASGI: streams pass as they come."""

import logging
import re
import secrets
from time import perf_counter
from typing import Literal
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.routing import iter_route_contexts
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.monitoring import web_metrics
from app.monitoring.logs import mask, say_about

log = logging.getLogger("app.access")

HEADER = b"x-request-id"
WELL_FORMED = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:-]{7,63}")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
NO_ROUTE = "none"  # an address that is no page of ours: all of them are one, whatever people try
SLOW_S = 1.0
IN_A_PATH = "/-._~!$&'()*+,;=:@"  # RFC 3986: what stands in an address as it is

Access = Literal["none", "slow", "all"]


def request_id(request: Request) -> str:
    """What the logs call this request: people quote it from an error's page."""
    id: str = request.state.request_id
    return id


class Watch:
    """The outermost of our middlewares. A proxy's X-Request-ID is kept where it is well formed, and sent back."""

    def __init__(self, app: ASGIApp, *, product: FastAPI, access: Access) -> None:
        self.app, self.product, self.access = app, product, access
        self.templates: dict[object, str] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        id = given_id(scope) or secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = id
        say_about(request=id)
        begun_at = perf_counter()
        status, answered_at, num_bytes = 500, None, 0

        async def send_with_id(message: Message) -> None:
            nonlocal status, answered_at, num_bytes
            if message["type"] == "http.response.start":
                status, answered_at = message["status"], perf_counter()
                message["headers"] = [*message.get("headers", ()), (HEADER, id.encode())]
            elif message["type"] == "http.response.body":
                num_bytes += len(message.get("body", b""))
            await send(message)

        web_metrics.IN_PROGRESS.inc()
        try:
            await self.app(scope, receive, send_with_id)
        finally:
            ended_at = perf_counter()
            web_metrics.IN_PROGRESS.dec()
            waited_s = (answered_at or ended_at) - begun_at
            method = scope["method"] if scope["method"] in METHODS else "other"
            web_metrics.count_request(method, self.template(scope), status, waited_s)
            if self.access == "all" or (self.access == "slow" and (status >= 500 or waited_s >= SLOW_S)):
                _log(scope, status, waited_s, ended_at - begun_at, num_bytes)

    def template(self, scope: Scope) -> str:
        """The address as its route has it, without ids: /projects/{slug}/rank."""
        endpoint = scope.get("endpoint")
        if endpoint is None:
            return NO_ROUTE
        if not self.templates:
            self.templates = templates_of(self.product)
        return self.templates.get(_key(endpoint, scope.get("path_params", {})), NO_ROUTE)


def given_id(scope: Scope) -> str | None:
    """The id that a proxy gave the request, if it can stand in a log and a header as it is."""
    for name, value in scope["headers"]:
        if name == HEADER:
            return value.decode() if WELL_FORMED.fullmatch(value) else None
    return None


def templates_of(product: FastAPI) -> dict[object, str]:
    """What serves a route, and its path: Starlette says in a request's scope only which of the two was found."""
    templates: dict[object, str] = {}
    for context in iter_route_contexts(product.routes):
        route = context.original_route
        if isinstance(route, Mount):
            templates[_key(route.app, {"path": ""})] = route.path
        elif context.endpoint is not None and context.path is not None:
            names = re.findall(r"{(\w+)", context.path)
            templates[_key(context.endpoint, dict.fromkeys(names, ""))] = re.sub(r":\w+}", "}", context.path)
    return templates


def _key(endpoint: object, path_params: dict[str, object]) -> object:
    return id(endpoint), frozenset(path_params)  # one function may serve two addresses


def _log(scope: Scope, status: int, waited_s: float, took_s: float, num_bytes: int) -> None:
    """One line. The query is left out: it may hold what somebody looked for, or a one-time code."""
    path = quote(mask(scope["path"]), safe=IN_A_PATH)  # a line break or a space in it would forge lines and facts
    facts = {
        "method": scope["method"],
        "path": path,
        "status": status,
        "waited_ms": round(1000 * waited_s, 1),  # until the answer began
        "took_ms": round(1000 * took_s, 1),  # until its last byte
        "bytes": num_bytes,
    }
    level = logging.WARNING if status >= 500 else logging.INFO
    text = " ".join(f"{name}={value}" for name, value in facts.items())
    log.log(level, "%s", text, extra={"facts": facts})

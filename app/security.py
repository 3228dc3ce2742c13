"""What the browser is told to refuse, and how we know that a form came from one of our own pages."""

import hashlib
import hmac
import secrets
from typing import Annotated

from fastapi import Depends, Request, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import PodiumError

# No inline script, style or style attribute anywhere: what a model or a person wrote can never run.
CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "font-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # an invitation's token is in its address
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
    "Cache-Control": "no-store",  # pages and answers are for one person; static files say otherwise themselves
}
HSTS = "max-age=31536000"

SESSION_COOKIE = "podium_session"
VISITOR_COOKIE = "podium_visitor"  # before sign-in, a form still has to be tied to the browser that asked for it
LARGEST_FIELD = 4 << 20  # bytes of a form's field: as much as the form may have in all (app.main)
UNSAFE_METHODS = {"POST", "PUT", "PATCH", "DELETE"}


class StaleForm(PodiumError):
    """A form or a script's request does not carry the proof that a page of this sign-in made it."""

    code = "stale_form"

    def __init__(self) -> None:
        super().__init__(
            "This page was opened before you last signed in or out: go back, reload it, and send it again."
        )


class SecurityHeaders:
    """Pure ASGI, so that streams pass through as they come."""

    def __init__(self, app: ASGIApp, *, is_https: bool) -> None:
        self.app = app
        headers = {**HEADERS, "Strict-Transport-Security": HSTS} if is_https else HEADERS
        self.headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = message.setdefault("headers", [])
                named = {name for name, _ in own}  # an answer may say otherwise itself
                message["headers"] = [*own, *(header for header in self.headers if header[0] not in named)]
            await send(message)

        await self.app(scope, receive, send_with_headers)


def is_https(request: Request) -> bool:
    """Whether people reach this installation over https: cookies are then Secure."""
    url: str | None = request.app.state.settings.public_url
    return url is not None and url.startswith("https://")


def session_cookie(request: Request) -> str:
    """The name of the session's cookie; over https no other host or path can set it (the __Host- prefix)."""
    return f"__Host-{SESSION_COOKIE}" if is_https(request) else SESSION_COOKIE


def visitor_cookie(request: Request) -> str:
    """The name of the cookie of a browser that is not signed in."""
    return f"__Host-{VISITOR_COOKIE}" if is_https(request) else VISITOR_COOKIE


def browser_secret(request: Request) -> str | None:
    """What only this browser and we know: its session's token, or its visitor's."""
    return request.cookies.get(session_cookie(request)) or request.cookies.get(visitor_cookie(request))


def new_visitor() -> str:
    """A secret for a browser that has none."""
    return secrets.token_urlsafe(24)


def set_cookie(request: Request, response: Response, name: str, value: str, max_age_s: int | None = None) -> None:
    """A cookie that no script can read and that another site's form does not send.

    max_age_s: None, and it goes when the browser is closed.
    """
    response.set_cookie(
        name, value, max_age=max_age_s, httponly=True, samesite="lax", secure=is_https(request), path="/"
    )


def csrf_token(secret: str) -> str:
    """The proof that a form is ours: derived from the cookie, which another site can send but never read."""
    return hmac.new(secret.encode(), b"podium csrf", hashlib.sha256).hexdigest()


def bearer(request: Request) -> str | None:
    """The API key of a program, if it sent one."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else None


async def check_csrf(request: Request) -> None:
    """Refuse an unsafe request that a cookie authorises and that no page of ours made.

    Programs with a key need none: a browser never adds an Authorization header by itself.
    Raises StaleForm.
    """
    if request.method not in UNSAFE_METHODS or bearer(request) is not None:
        return
    secret = browser_secret(request)
    if secret is None and request.url.path.startswith("/api/"):
        return  # no cookie, no authority: the route will ask for sign-in
    sent: object = request.headers.get("x-csrf-token")
    if sent is None and "form" in request.headers.get("content-type", ""):
        # Cached by the request: the route reads the same form.
        sent = (await request.form(max_part_size=LARGEST_FIELD)).get("csrf_token")
    if (
        secret is None
        or not isinstance(sent, str)
        or not hmac.compare_digest(sent.encode(), csrf_token(secret).encode())
    ):
        raise StaleForm


ChecksCSRF = Annotated[None, Depends(check_csrf)]

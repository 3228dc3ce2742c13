"""Renders pages: templates, the navigation, addresses of static files, times and numbers for people."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from app import security
from app.rendering import document_html, markdown_html

FRONTEND = Path(__file__).resolve().parent.parent / "frontend"
STATIC = FRONTEND / "static"
A_YEAR = "public, max-age=31536000, immutable"
FINGERPRINT = re.compile("[0-9a-f]{12}")

# What each role finds in the navigation of a project: (label, path below the project, least role).
LINKS = (
    ("Rank", "/rank", "labeler"),
    ("Guidelines", "/guidelines", "labeler"),
    ("My statistics", "/mine", "labeler"),
    ("Project", "", "researcher"),
    ("Rounds", "/rounds", "researcher"),
    ("Policies", "/policies", "researcher"),
    ("Reward models", "/reward-models", "researcher"),
    ("Prompts", "/prompts", "researcher"),
    ("Datasets", "/datasets", "researcher"),
    ("Quality", "/quality", "researcher"),
    ("People", "/people", "admin"),
    ("Settings", "/settings", "admin"),
)
# After "Rank", where the project asks for the task; blind comparisons come on the ranking page whatever the mix.
TASK_LINKS = {"answer": ("Answer", "/answer"), "write": ("Write", "/write"), "converse": ("Converse", "/converse")}
ROLES = ("labeler", "researcher", "admin")


def render(request: Request, template: str, *, status_code: int = 200, **context: Any) -> HTMLResponse:
    """A page from frontend/templates with the navigation of whoever asks for it.

    Templates also find `account`, `access`, `csrf_token`, and `csrf_field`: a hidden input for every POST form.
    A page about an error reads `reader` only: a rollback has emptied account and access.
    """
    secret = security.browser_secret(request)
    visitor = None if secret else security.new_visitor()
    token = security.csrf_token(secret or visitor or "")
    page = HTMLResponse(
        templates()
        .get_template(template)
        .render(
            request=request,
            reader=(reader := getattr(request.state, "reader", None)),
            links=project_links(request, reader) if reader else (),
            account=getattr(request.state, "account", None),
            access=getattr(request.state, "access", None),
            csrf_token=token,
            csrf_field=Markup('<input type="hidden" name="csrf_token" value="{}">').format(token),
            **context,
        ),
        status_code=status_code,
    )
    if visitor:
        security.set_cookie(request, page, security.visitor_cookie(request), visitor)
    return page


@dataclass
class Reader:
    """Whoever reads the page, in plain values."""

    name: str
    is_site_admin: bool
    projects: Sequence[tuple[str, str]] = ()  # (slug, name) of those in the project switcher
    slug: str | None = None  # of the project that the page belongs to
    project: str = ""
    role: str = ROLES[0]
    tasks: Sequence[str] = ()  # that the project asks for


def project_links(request: Request, reader: Reader) -> Sequence[dict[str, Any]]:
    """The navigation of the project for the reader's role: address, label, and whether they are there now."""
    if reader.slug is None:
        return ()
    root = f"/projects/{reader.slug}"
    here = request.url.path.removeprefix(root).rstrip("/")
    asked = [(*TASK_LINKS[task], ROLES[0]) for task in TASK_LINKS if task in reader.tasks]
    return [
        {"href": root + path, "label": label, "is_here": here == path or (path != "" and here.startswith(path + "/"))}
        for label, path, least in (LINKS[0], *asked, *LINKS[1:])
        if ROLES.index(reader.role) >= ROLES.index(least)
    ]


@lru_cache(maxsize=1)
def templates() -> Environment:
    """The templates of this process."""
    environment = Environment(
        loader=FileSystemLoader(FRONTEND / "templates"),
        autoescape=True,
        undefined=StrictUndefined,  # a misspelt name is a failing test, not an empty place on a page
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["static"] = static_url
    environment.filters.update(
        when=when, number=number, percent=percent, markdown=markdown_html, document=document_html
    )
    return environment


def when(moment: datetime | None) -> Markup | str:
    """A time for people: UTC as delivered, in the reader's own zone once the page's script has run."""
    if moment is None:
        return "—"
    return Markup('<time datetime="{}">{}</time>').format(
        moment.isoformat(timespec="seconds"), moment.strftime("%d %b %Y, %H:%M UTC")
    )


def number(value: float | None, digits: int = 0, unit: str = "") -> str:
    """A number with thousands apart, and its unit: 12 345, 0.83, 4.1 nats."""
    if value is None:
        return "—"
    return f"{value:,.{digits}f}".replace(",", "\u202f") + (f"\u00a0{unit}" if unit else "")


def percent(share: float | None, digits: int = 0) -> str:
    """A share as a percentage: 0.725 is 73 %."""
    return "—" if share is None else f"{100 * share:.{digits}f}\u00a0%"


@lru_cache(maxsize=8)
def _fingerprint(changed_ns: tuple[int, ...]) -> str:
    contents = (path.read_bytes() for path in sorted(STATIC.iterdir()))
    return hashlib.sha256(b"".join(contents)).hexdigest()[:12]


def fingerprint() -> str:
    """What all static files are now, in twelve letters."""
    return _fingerprint(tuple(path.stat().st_mtime_ns for path in sorted(STATIC.iterdir())))


def static_url(name: str) -> str:
    """The address of a static file; it changes with the content, so browsers may keep the file for ever.

    The fingerprint is a folder, so that modules which import each other by relative addresses stay together too.
    """
    return f"/static/{fingerprint()}/{name}"


class StaticFilesForEver(StaticFiles):
    """Static files: kept for ever when asked for by fingerprint, else asked for again each time."""

    def get_path(self, scope: Scope) -> str:
        folder, _, name = super().get_path(scope).partition("/")
        return name if name and FINGERPRINT.fullmatch(folder) else f"{folder}/{name}".rstrip("/")

    def file_response(self, full_path: Any, stat_result: Any, scope: Scope, status_code: int = 200) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        is_current = f"/{fingerprint()}/" in scope["path"]  # a page from before an update must not keep what is new
        response.headers["Cache-Control"] = A_YEAR if is_current else "no-cache"
        return response

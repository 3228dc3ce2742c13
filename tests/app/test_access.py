"""Every address of the product, asked for by everybody. Who is let in was written by hand, in docs/access.md."""

import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache, wraps
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.routing import Mount, Route

from app.db import Base, clock
from app.errors import PodiumError
from app.people import service
from app.people.access import AT_LEAST, anyone, key_reach, own_work, site_admin, starts_work, whole_account
from app.people.access_routes import managed_account
from app.people.account_routes import browser_account
from app.people.caller import identify
from app.people.models import APIKey, KeyScope, Membership, Role
from app.projects.models import Project
from tests.app.conftest import Person, make_project
from tests.app.conftest import routes as shared_routes

UUID = "00000000-0000-4000-8000-000000000000"
Rules = dict[tuple[str, str], str]  # method, path -> the heading that it stands below

ANYONE = "Anyone"
SIGNED_IN = "Whoever is signed in"
WHOLE = "Whoever is signed in, but no key for labeling or of one project"
BROWSER = "Whoever is signed in, in a browser"
OWNER = "Whoever it belongs to"
LABELER = "Labelers of the project"
WORK = "Labelers of the project, but no key for reading"
RESEARCHER = "Researchers of the project"
NAMES = "Admins of the project, and researchers who were let see names"
ADMIN = "Admins of the project"
MANAGER = "Whoever manages the account, in a browser"
SITE_ADMIN = "Site admins"
SITE_ADMIN_BROWSER = "Site admins, in a browser"

OF_AN_ACCOUNT = {SIGNED_IN, WHOLE, OWNER}
LETS_IN = {
    "visitor": {ANYONE},
    "made-up session": {ANYONE},
    "made-up key": {ANYONE},
    "revoked key": {ANYONE},
    "expired key": {ANYONE},
    "outsider": {ANYONE, BROWSER, *OF_AN_ACCOUNT},
    "labeler": {ANYONE, BROWSER, *OF_AN_ACCOUNT, LABELER, WORK},
    "researcher": {ANYONE, BROWSER, *OF_AN_ACCOUNT, LABELER, WORK, RESEARCHER},
    "paused admin": {ANYONE, BROWSER, *OF_AN_ACCOUNT},
    "admin": {ANYONE, BROWSER, *OF_AN_ACCOUNT, LABELER, WORK, RESEARCHER, NAMES, ADMIN, MANAGER},
    "site admin": {
        *(ANYONE, BROWSER, *OF_AN_ACCOUNT, LABELER, WORK, RESEARCHER, NAMES, ADMIN, MANAGER),
        *(SITE_ADMIN, SITE_ADMIN_BROWSER),
    },
    "reading key of a researcher": {ANYONE, *OF_AN_ACCOUNT, LABELER, RESEARCHER},  # and nothing that changes something
    "labeling key of a site admin": {ANYONE, SIGNED_IN, OWNER, LABELER, WORK},
    # Of a site admin, who may do everything: only what the key was made for keeps it in.
    "key of this project": {ANYONE, SIGNED_IN, OWNER, LABELER, WORK, RESEARCHER, NAMES, ADMIN},
    "key of another project": {ANYONE, SIGNED_IN, OWNER},
}
REFUSALS = {
    "not_signed_in",
    "too_many_attempts",
    "role_too_low",
    "membership_paused",
    "project_not_found",
    "scope_too_narrow",
}
# What the rules stand for in the code.
DECLARED = {
    ANYONE: {anyone},
    SIGNED_IN: {key_reach},  # they list projects: what a key is for is all that it is told of
    WHOLE: {whole_account},
    BROWSER: {browser_account},
    OWNER: {own_work, identify},
    LABELER: {AT_LEAST[Role.LABELER], identify},
    WORK: {starts_work},
    RESEARCHER: {AT_LEAST[Role.RESEARCHER]},
    NAMES: {AT_LEAST[Role.RESEARCHER]},
    ADMIN: {AT_LEAST[Role.ADMIN]},
    MANAGER: {managed_account},
    SITE_ADMIN: {site_admin},
    SITE_ADMIN_BROWSER: {site_admin},
}
# What a route wants to be sent before it looks at who sends it to where.
BODIES = {
    "/api/v1/projects/{slug}/leases": {"wanted": 1},
    "/api/v1/projects/{slug}/leases/screens": {"since": "2026-01-01T00:00:00Z"},
    "/api/v1/leases/{lease_id}/draft": {"revision": 0, "content": {}},
    "/api/v1/leases/{lease_id}/ranking": {"ranking_id": UUID, "ranks": {}},
}


@cache
def rules() -> Rules:
    """The tables of docs/access.md."""
    found: Rules = {}
    page = (Path(__file__).parents[2] / "docs/access.md").read_text()
    for section in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        heading, rest = section.split("\n", 1)
        for method, path in re.findall(r"^([A-Z]+) +(/\S*)$", rest, flags=re.MULTILINE):
            assert (method, path) not in found, f"{method} {path} stands there twice"
            found[method, path] = heading
    return found


@cache
def routes() -> dict[tuple[str, str], Dependant | None]:
    """Method and path of everything that answers, with what it depends on."""
    found: dict[tuple[str, str], Dependant | None] = {}
    for context in iter_route_contexts(shared_routes().routes):
        route = context.original_route
        if isinstance(route, APIRoute):
            found |= {(method, context.path): context.dependant for method in context.methods}
        elif isinstance(route, Mount):
            found["GET", f"{route.path}/{{file}}"] = None
        else:
            assert isinstance(route, Route)
            found["GET", route.path] = None
    return found


def dependencies(dependant: Dependant) -> Iterator[object]:
    """What a route depends on, and what that depends on."""
    for dependency in dependant.dependencies:
        yield dependency.call
        yield from dependencies(dependency)


def test_every_route_stands_under_a_rule_and_every_rule_has_a_route() -> None:
    assert set(rules().values()) == set(DECLARED)
    assert sorted(rules()) == sorted(routes())


def test_every_route_declares_the_rule_that_it_stands_under() -> None:
    for (method, path), dependant in routes().items():
        if dependant is not None:
            declared = set(dependencies(dependant))
            assert declared & DECLARED[rules()[method, path]], (method, path)
            assert (anyone in declared) is (rules()[method, path] == ANYONE), (method, path)


def test_what_an_admin_may_is_closed_to_researchers_in_the_code_too() -> None:
    """A weaker rule beside a stronger one is fine (a round is found by researchers), a weaker one alone is not."""
    for (method, path), dependant in routes().items():
        declared = set() if dependant is None else set(dependencies(dependant))
        if AT_LEAST[Role.ADMIN] in declared:
            assert rules()[method, path] == ADMIN, (method, path)


@pytest.fixture
def telling(app: FastAPI, one_message: None) -> FastAPI:
    """The app, whose answers say which error they are."""
    for error, handler in list(app.exception_handlers.items()):
        if isinstance(error, type) and issubclass(error, PodiumError):
            app.exception_handlers[error] = with_code(handler)
    return app


def with_code(handler: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(handler)
    async def told(request: Any, error: Any) -> Any:
        response = handler(request, error)
        response = await response if inspect.isawaitable(response) else response
        response.headers["x-error"] = error.code
        return response

    return told


Caller = tuple[Person, dict[str, str]]


@pytest.fixture
def callers(
    telling: FastAPI, person: Callable[..., Person], project: Project, session: Session
) -> Callable[[str], Caller]:
    """Makes a caller: who sends the request, and what it carries."""

    def key(account: Any, scope: KeyScope = KeyScope.ALL, only: Project | None = None) -> tuple[APIKey, Caller]:
        secret = service.create_key(session, session.merge(account), "walk", scope=scope, project=only)
        session.flush()
        return session.scalars(select(APIKey)).one(), (Person(telling), {"authorization": f"Bearer {secret}"})

    def make(name: str) -> Caller:
        made: Caller
        match name:
            case "visitor":
                made = Person(telling), {}
                made[0].get("/sign-in")  # a visitor's forms are in order: it is the sign-in that is missing
            case "made-up session":
                made = Person(telling, token="made up"), {}
            case "made-up key":
                made = Person(telling), {"authorization": "Bearer made up"}
            case "revoked key" | "expired key":
                found, made = key(person("Sita Site", is_site_admin=True).account)
                setattr(found, "revoked_at" if name == "revoked key" else "expires_at", clock(session))
            case "outsider":
                made = person("Olaf Outsider"), {}
            case "labeler" | "researcher" | "admin":
                made = person(f"The {name}", project, Role(name)), {}
            case "paused admin":
                paula = person("Paula Paused", project, Role.ADMIN)
                assert paula.account is not None
                session.get_one(Membership, (paula.account.id, project.id)).paused_at = clock(session)
                made = paula, {}
            case "site admin":
                made = person("Sita Site", is_site_admin=True), {}
            case "reading key of a researcher":
                _, made = key(person("Rosa Researcher", project, Role.RESEARCHER).account, KeyScope.READ)
            case "labeling key of a site admin":
                _, made = key(person("Sita Site", is_site_admin=True).account, KeyScope.LABEL)
            case "key of this project":
                _, made = key(person("Sita Site", is_site_admin=True).account, only=project)
            case "key of another project":
                other = make_project(session, "other", "Another", "Be kind.")
                _, made = key(person("Sita Site", is_site_admin=True).account, only=other)
            case _:
                raise AssertionError(name)
        session.commit()
        return made

    return make


def fill(path: str, account_id: int) -> str:
    """The path with what exists (the project, the account, its key) and ids that may."""
    known = {
        "slug": "everyday",
        "recipe": "reward",
        "account_id": str(account_id),
        "key_id": "1",
        "content": "rankings",
    }
    numbers = re.compile(r"number|version|one|other|\w*(labeler|invitation|snapshot|alarm|webhook|delivery|import)_id")
    ids_of_rows = re.compile(r"evaluation_id|other_id|erasure_id|try_number")

    def value(match: re.Match[str]) -> str:
        name = match[1]
        is_number = numbers.fullmatch(name) or ids_of_rows.fullmatch(name)
        return known.get(name) or ("1" if is_number else UUID)

    return re.sub(r"{(\w+)[^}]*}", value, path)


@pytest.mark.parametrize("who", LETS_IN)
def test_each_address_lets_in_whom_its_rule_names_and_nobody_else(
    who: str, callers: Callable[[str], Caller], person: Callable[..., Person], project: Project, session: Session
) -> None:
    target = person("Tara Target", project, Role.LABELER)
    assert target.account is not None
    caller, headers = callers(who)
    if who not in {"revoked key", "expired key"} and "key" not in who:
        service.create_key(session, session.merge(target.account), "hers")
        session.commit()
    wrong = []
    before = sizes(session)
    for (method, path), rule in rules().items():
        if path == "/sign-out":
            continue  # it would end the walk
        if who == "paused admin" and rule in {LABELER, WORK}:
            continue  # what they began they may hand in, and nothing new is given to them: labeling's own tests
        is_let_in = rule in LETS_IN[who]
        if who.startswith("reading key") and rule != ANYONE:
            is_let_in = is_let_in and method in {"GET", "HEAD"}
        response = caller.request(
            method, fill(path, target.account.id), json=BODIES.get(path) if method != "GET" else None, headers=headers
        )
        error = response.headers.get("x-error")
        was_let_in = error not in (REFUSALS | {"not_found"} if rule == MANAGER else REFUSALS)
        if was_let_in is not is_let_in or response.status_code in {500, 502}:
            wrong.append((rule, method, path, response.status_code, error))
        if not was_let_in:
            assert project.name not in response.text or who in {"labeler", "researcher", "paused admin"} or headers
    assert wrong == []
    if who.startswith("reading key"):
        assert set(sizes(session) - before) <= GROWS_BY_READING


GROWS_BY_READING = {"audit_event", "wrong_token"}  # who took data out; the walk's links, which nobody made


def sizes(session: Session) -> Counter[str]:
    """The number of rows of each table."""
    return Counter(
        {table.name: session.scalar(select(func.count()).select_from(table)) for table in Base.metadata.sorted_tables}
    )


@pytest.mark.parametrize("was_let", [False, True], ids=["was not", "was"])
def test_names_are_shown_to_a_researcher_who_was_let_see_them(
    researcher: Person, session: Session, was_let: bool
) -> None:
    session.scalars(select(Membership)).one().sees_names = was_let
    session.commit()
    statuses = {path: researcher.get(fill(path, 0)).status_code for (_, path), rule in rules().items() if rule == NAMES}
    assert statuses == dict.fromkeys(statuses, 200 if was_let else 403)


def test_a_key_that_expires_tomorrow_is_let_in(
    telling: FastAPI, callers: Callable[[str], Caller], session: Session
) -> None:
    caller, headers = callers("expired key")
    assert caller.get("/api/v1/me", headers=headers).status_code == 401
    session.scalars(select(APIKey)).one().expires_at = clock(session) + timedelta(days=1)
    session.commit()
    assert caller.get("/api/v1/me", headers=headers).status_code == 200


@pytest.mark.parametrize("who", ["labeler", "site admin", "visitor"])
def test_a_request_without_a_proof_from_our_own_page_changes_nothing_anywhere(
    who: str, callers: Callable[[str], Caller]
) -> None:
    caller, _ = callers(who)
    unsafe = [(method, path) for method, path in rules() if method not in {"GET", "HEAD"}]
    assert len(unsafe) > 100
    for method, path in unsafe:
        response = caller.request(method, fill(path, 1), headers={"x-csrf-token": "", "origin": "https://evil.example"})
        is_nobodys = who == "visitor" and path.startswith("/api/")  # no cookie that another site could make use of
        assert is_nobodys or response.headers.get("x-error") == "stale_form", (method, path)

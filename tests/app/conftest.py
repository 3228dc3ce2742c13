"""The people of every test: signed-in clients of the real app, on the real database.

Each is a browser: it keeps its cookies, and sends the proof that its forms are ours.
"""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from argon2 import PasswordHasher
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import db, security
from app.datasets import import_runs
from app.main import create_app
from app.people import caller, passwords, service, sessions
from app.people.models import Account, Membership, Role
from app.projects.models import DEFAULT_FLAGS, Guidelines, Project
from app.quality.entry_models import GuidelinesAcceptance
from app.rounds import events
from app.settings import Settings
from tests.app.loop import make_version

STRONG_HASHER = passwords._hasher
passwords._hasher = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)  # argon2 is slow on purpose
PASSWORD = "correct horse battery"
PASSWORD_HASH = service.hash_password(PASSWORD)


class Person(TestClient):
    """A browser that is signed in as `account`, or in which nobody is (`account` is None)."""

    def __init__(self, app: FastAPI, account: Account | None = None, token: str | None = None) -> None:
        super().__init__(app, follow_redirects=False)
        self.account = account
        self.token = token
        if token is not None:
            self.cookies.set(security.SESSION_COOKIE, token)

    @property
    def csrf_token(self) -> str | None:
        secret = self.cookies.get(security.SESSION_COOKIE) or self.cookies.get(security.VISITOR_COOKIE)
        return security.csrf_token(secret) if secret else None

    def request(self, method: str, url: Any, **options: Any) -> Any:
        headers = dict(options.pop("headers", None) or {})
        if method.upper() in security.UNSAFE_METHODS and self.csrf_token and "x-csrf-token" not in headers:
            headers["x-csrf-token"] = self.csrf_token
        return super().request(method, url, headers=headers, **options)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """An installation of its own for each test."""
    return Settings(home=tmp_path / "podium home", public_url=None)


@lru_cache(maxsize=1)
def routes() -> APIRouter:
    """All routes, which are the same in every installation: putting them together takes longer than most tests do."""
    return create_app(Settings()).router


def make_app(settings: Settings) -> FastAPI:
    """The web product of these settings, as create_app makes it; what is added to its routes is added for all tests."""
    app = create_app(settings)
    assert len(app.routes) == len(routes().routes), "these settings add a route: make this app with create_app"
    app.router = routes()
    return app


@pytest.fixture
def app(engine: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[FastAPI]:
    """The web product on this test's database. A file is imported when its upload is answered."""
    monkeypatch.setattr(import_runs, "WAIT_S", 60)
    before = list(routes().routes)
    yield make_app(settings)
    added = [each for each in routes().routes if not any(each is known for known in before)]
    routes().routes[:] = before  # or every later test would have them too
    assert not added, f"this test added {added} to the routes that all share: make its app with create_app"


@pytest.fixture
def project(session: Session) -> Project:
    """The one that all are members of."""
    return make_project(session, "everyday", "Everyday requests", "# What we look for\n\nHelpful and honest.")


def make_project(session: Session, slug: str, name: str, guidelines: str) -> Project:
    """A project with its first policy and guidelines."""
    project = Project(slug=slug, name=name, flags=list(DEFAULT_FLAGS))
    session.add(project)
    session.flush()
    make_version(session, project, is_sft=True)
    session.add(Guidelines(project_id=project.id, version=1, markdown=guidelines))
    session.commit()
    return project


@pytest.fixture
def person(app: FastAPI, session: Session) -> Iterator[Callable[..., Person]]:
    """Makes people: `person("Ada", project, Role.LABELER)`."""
    people: list[Person] = []

    def make(
        name: str, project: Project | None = None, role: Role | None = None, *, is_site_admin: bool = False
    ) -> Person:
        account = Account(
            email=f"{name.lower().replace(' ', '.')}@example.org",
            name=name,
            password_hash=PASSWORD_HASH,
            is_site_admin=is_site_admin,
        )
        session.add(account)
        session.flush()
        if project is not None and role is not None:
            session.add(Membership(account_id=account.id, project_id=project.id, role=role))
            accept_guidelines(session, account)
        token = sessions.open_session(session, account, user_agent="tests", now=db.clock(session))
        session.commit()
        people.append(Person(app, account, token))
        return people[-1]

    yield make
    for made in people:
        made.close()


def accept_guidelines(session: Session, account: Account) -> None:
    """The account accepts every project's guidelines as they are, so that it may rank."""
    now = db.clock(session)
    session.add_all(
        GuidelinesAcceptance(account_id=account.id, guidelines_id=guidelines_id, accepted_at=now)
        for guidelines_id in session.scalars(select(Guidelines.id))
    )
    session.flush()


@pytest.fixture
def labeler(person: Callable[..., Person], project: Project) -> Person:
    """Ranks in the project."""
    return person("Lena Labeler", project, Role.LABELER)


@pytest.fixture
def other_labeler(person: Callable[..., Person], project: Project) -> Person:
    """Ranks in the project too."""
    return person("Otto Labeler", project, Role.LABELER)


@pytest.fixture
def researcher(person: Callable[..., Person], project: Project) -> Person:
    """Reads the project's data."""
    return person("Rosa Researcher", project, Role.RESEARCHER)


@pytest.fixture
def admin(person: Callable[..., Person], project: Project) -> Person:
    """Runs the project."""
    return person("Ada Admin", project, Role.ADMIN)


@pytest.fixture
def site_admin(person: Callable[..., Person]) -> Person:
    """Runs the installation."""
    return person("Sita Site", is_site_admin=True)


@pytest.fixture
def outsider(person: Callable[..., Person]) -> Person:
    """Has an account, and is no member of the project."""
    return person("Olaf Outsider")


@pytest.fixture
def visitor(app: FastAPI) -> Iterator[Person]:
    """Is not signed in."""
    with_nobody = Person(app)
    yield with_nobody
    with_nobody.close()


@pytest.fixture
def one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams end after their first message."""

    async def messages(topics: frozenset[str]) -> Any:
        yield "event: changed\ndata:\n\n"

    monkeypatch.setattr(events, "messages", messages)


class Clock:
    """The database's time, moved on at will."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
        self.ahead = timedelta(0)
        self.monkeypatch = monkeypatch
        for module in modules:
            monkeypatch.setattr(module, "clock", self)

    def advance(self, by: timedelta) -> None:
        self.ahead += by
        self.monkeypatch.setattr(caller, "CLOCK", db.CLOCK + self.ahead)

    def __call__(self, session: Session) -> datetime:
        return db.clock(session) + self.ahead

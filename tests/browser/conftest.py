"""A real server and a real browser, on the test's database."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn
from axe_playwright_python.base import AXE_SCRIPT
from fastapi import FastAPI
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from app import security
from tests.app.conftest import (  # noqa: F401 - fixtures are found by name
    Person,
    admin,
    app,
    labeler,
    other_labeler,
    outsider,
    person,
    project,
    researcher,
    settings,
    site_admin,
    visitor,
)

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
PATIENCE_MS = 30_000  # a machine may have much else to do; what comes sooner is not waited for
expect.set_options(timeout=PATIENCE_MS)
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/browser" in item.path.as_posix():
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium: the machine's own, or the one of `playwright install chromium`."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        if path is None and not os.path.exists(playwright.chromium.executable_path):
            missing = "no Chromium: `apt-get install chromium`, or `.venv/bin/playwright install chromium`"
            pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


class WebServer:
    """The web product, served as in production by Uvicorn; it can go down and come back at the same address."""

    def __init__(self, app: FastAPI) -> None:  # noqa: F811
        self.app = app
        self.port = 0  # the first free one

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        config = uvicorn.Config(
            self.app, host="127.0.0.1", port=self.port, log_level="warning", timeout_graceful_shutdown=1
        )
        self.server = uvicorn.Server(config)
        ready = threading.Event()
        listening = self.server.startup

        async def startup(*arguments: Any, **options: Any) -> None:
            await listening(*arguments, **options)
            ready.set()

        self.server.startup = startup  # type: ignore[method-assign]
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        assert ready.wait(timeout=30), "the web product did not start"
        self.port = self.server.servers[0].sockets[0].getsockname()[1]

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(timeout=30)


@pytest.fixture
def web(app: FastAPI) -> Iterator[WebServer]:  # noqa: F811
    """The web product, up; a test may take it down and bring it back."""
    web = WebServer(app)
    web.start()
    yield web
    web.stop()


@pytest.fixture
def server(web: WebServer) -> str:
    """The address of the web product."""
    return web.address


@pytest.fixture
def new_page(browser: Browser, server: str) -> Iterator[Callable[..., Page]]:
    """Opens browsers of their own (no cookie in common): `new_page(viewport=PHONE, has_touch=True)`.

    A script error or something that the Content-Security-Policy had to stop fails the test.
    """
    contexts: list[BrowserContext] = []
    troubles: list[str] = []

    def open_page(**options: Any) -> Page:
        defaults = {"viewport": DESKTOP, "locale": "en-GB", "timezone_id": "UTC"}
        context = browser.new_context(base_url=server, **{**defaults, **options})
        context.set_default_timeout(PATIENCE_MS)
        context.set_default_navigation_timeout(30_000)  # the first request builds every route's forms
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on(
            "console", lambda message: troubles.append(message.text) if "Content Security" in message.text else None
        )
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert troubles == []


@pytest.fixture
def page(new_page: Callable[..., Page]) -> Page:
    """A desktop browser that nobody has signed in with."""
    return new_page()


@pytest.fixture
def sign_in(server: str) -> Callable[[Page, Person], None]:
    """Signs a browser in: `sign_in(page, labeler)`."""

    def sign_in(page: Page, person: Person) -> None:  # noqa: F811
        page.context.add_cookies([{"name": security.SESSION_COOKIE, "value": person.token, "url": server}])

    return sign_in


@pytest.fixture
def check_accessibility() -> Callable[..., None]:
    """Checks the page as it stands against WCAG 2.2 AA, as far as a program can; or by some of axe's rules alone."""

    def check(page: Page, *rules: str) -> None:
        chosen = {"type": "rule", "values": list(rules)} if rules else {"type": "tag", "values": WCAG}
        if not page.evaluate("'axe' in window"):
            page.evaluate(AXE_SCRIPT)
        found = page.evaluate(
            "options => axe.run(options).then((results) => results.violations)",
            {"runOnly": chosen, "resultTypes": ["violations"]},
        )
        violations = [
            f"{violation['id']}: {violation['help']}: {node['html'][:200]} ({node.get('failureSummary', '')[:300]})"
            for violation in found
            for node in violation["nodes"]
        ]
        assert violations == [], "\n".join(violations)

    return check

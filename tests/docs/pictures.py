"""The pictures of README.md and the docs, taken from an installation of their own: the project of `podium story`.

    .venv/bin/python -m tests.docs.pictures     a minute on two free cores; writes docs/pictures/*.png, light and dark

The story is told by a seed and trains nothing, so the pictures show today's pages and the same work each time.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

from app import embedded_postgres
from tests.browser.conftest import FLAGS
from tests.docs.pages import ROOT

FOLDER = ROOT / "docs" / "pictures"
SIZE = {"width": 1200, "height": 750}
MOST_BYTES = 150_000
PROJECT = "/projects/story"


def main() -> None:
    with installation() as (address, link), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        cookies = become_admin(browser, address, link)
        for theme in ("light", "dark"):
            context = browser.new_context(base_url=address, viewport=SIZE, color_scheme=theme, reduced_motion="reduce")
            context.add_cookies(cookies)
            take_all(context.new_page(), theme)
            context.close()
        browser.close()


@contextmanager
def installation() -> Iterator[tuple[str, str]]:
    """A web process over a told story; its address, and the first admin's link."""
    home = Path(tempfile.mkdtemp(prefix="podium-pictures-"))
    environment = os.environ | {"PODIUM_HOME": str(home), "PODIUM_DEVICE": "cpu", "PYTHONUNBUFFERED": "1"}
    environment["DATABASE_URL"] = embedded_postgres.start(home / "postgres")
    command = [sys.executable, "-m", "app.cli"]
    try:
        for words in (["migrate"], ["story"]):
            subprocess.run([*command, *words], env=environment, cwd=ROOT, check=True)
        web = subprocess.Popen(
            [*command, "serve", "--port", "0"], env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        try:
            assert web.stdout is not None
            said = [web.stdout.readline() for _ in range(2)]
            yield said[0].split()[-1], said[1].split()[-1]
        finally:
            web.terminate()
            web.wait()
    finally:
        embedded_postgres.stop(home / "postgres")
        shutil.rmtree(home, ignore_errors=True)


def become_admin(browser: Browser, address: str, link: str) -> list[dict[str, str]]:
    """Follow the one-time link, and accept the guidelines, so that there is something to rank. Returns the cookies."""
    context = browser.new_context(base_url=address)
    page = context.new_page()
    page.goto(link)
    page.get_by_label("Your name").fill("Ada")
    page.get_by_label("E-mail address").fill("ada@example.org")
    page.get_by_label("Password").fill("correct horse battery")
    page.get_by_role("button", name="Make my account").click()
    page.goto(f"{PROJECT}/guidelines")
    page.get_by_role("button", name="I have read this and will follow it").click()
    return context.cookies()


def take_all(page: Page, theme: str) -> None:
    page.goto(f"{PROJECT}/rank")
    expect(page.locator("html[data-ready=rank]")).to_be_attached()
    if page.locator(".column[data-rank='2'] .chip").count() == 0:  # else the draft brings back what was ranked
        page.locator(".completion[data-letter=A]").focus()
        page.keyboard.press("2")
        page.keyboard.press("1")
    take(page, "rank", theme)
    page.goto(PROJECT)
    take(page, "project", theme)
    page.goto(f"{PROJECT}/rounds/6")
    page.locator("#stage-ppo").evaluate("stage => stage.scrollIntoView()")
    take(page, "round", theme)
    page.goto(f"{PROJECT}/policies")
    take(page, "policies", theme)


def take(page: Page, name: str, theme: str) -> None:
    """One picture, once everything that it shows has been loaded."""
    page.wait_for_load_state("networkidle") if name not in ("project", "round") else page.wait_for_timeout(1500)
    path = FOLDER / f"{name}-{theme}.png"
    page.screenshot(path=path, animations="disabled", caret="hide")
    size = path.stat().st_size
    assert size <= MOST_BYTES, f"{path.name} has {size:,} bytes"
    print(re.sub(r"^.*/docs/", "docs/", str(path)), f"{size:,} bytes")


if __name__ == "__main__":
    main()

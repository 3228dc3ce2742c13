# ruff: noqa: F811 - fixtures are found by name
"""A newcomer's onboarding slates: the researchers' answer and reason stand there after each, before the next one."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy.orm import Session

from app.labeling.models import Slate
from app.projects.models import Project
from tests.app.conftest import Person
from tests.app.labeling.conftest import MakeSlate, make_slate  # noqa: F401
from tests.app.quality.known import make_known
from tests.browser.conftest import WebServer
from tests.browser.steps import TEXTS, SignIn, card, open_ranking, wait_until_settled


@pytest.fixture
def lessons(researcher: Person, session: Session, make_slate: MakeSlate) -> list[Slate]:
    """Two onboarding slates whose texts are best in the order they were made."""
    return [
        make_known(
            researcher,
            session,
            make_slate(TEXTS[:4], prompt=f"Lesson {number}"),
            kind="onboarding",
            reason=f"Right beats **sorry** {number}.",
        )
        for number in (1, 2)
    ]


def rank_as_shown(page: Page) -> None:
    card(page, "A").focus()
    for rank in "1234":
        page.keyboard.press(rank)
    wait_until_settled(page)
    page.keyboard.press("Control+Enter")


@pytest.mark.usefixtures("lessons")
def test_after_an_onboarding_slate_the_researchers_answer_is_read_before_the_next_one(
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    check_accessibility: Callable[[Page], None],
) -> None:
    open_ranking(page, sign_in, labeler, project)
    first = page.locator(".prompt").inner_text()
    rank_as_shown(page)
    expect(page.get_by_role("heading", name="The researchers' answer")).to_be_visible()
    assert page.locator(".prompt").inner_text() == first  # the slate it is about
    expect(page.locator(".lesson-reason")).to_contain_text("Right beats")
    expect(page.locator(".lesson-agreement")).to_contain_text("% of the pairs")
    for letter, mine in zip("ABCD", (1, 2, 3, 4), strict=True):
        theirs = TEXTS.index(plain(card(page, letter).locator(".text").inner_text())) + 1
        expect(card(page, letter).locator(".lesson-ranks")).to_have_text(f"You: {mine} · Researchers: {theirs}")
    check_accessibility(page)
    expect(page.get_by_role("button", name="Next slate")).to_be_focused()
    wait_until_settled(page)
    page.keyboard.press("Enter")
    expect(page.locator(".lesson")).to_have_count(0)
    expect(page.locator(".prompt")).to_contain_text("Lesson")
    assert page.locator(".prompt").inner_text() != first


def plain(shown: str) -> str:
    """The text as it was written, of what Markdown and MathML made of it."""
    return next(text for text in TEXTS if text[:6].replace("*", "") == shown.strip()[:6])


@pytest.mark.usefixtures("lessons")
def test_while_the_server_is_away_the_next_slate_waits_for_the_lesson(
    page: Page, web: WebServer, sign_in: SignIn, labeler: Person, project: Project
) -> None:
    with page.expect_response(lambda response: response.url.endswith("/screens")):
        open_ranking(page, sign_in, labeler, project)
    first = page.locator(".prompt").inner_text()
    web.stop()
    rank_as_shown(page)
    expect(page.locator("#banner")).to_contain_text("cannot be reached")
    page.keyboard.press("Control+Enter")
    assert page.locator(".prompt").inner_text() == first
    web.start()
    answer = page.get_by_role("heading", name="The researchers' answer")
    expect(answer).to_be_visible()  # it asks again every few seconds


@pytest.mark.usefixtures("lessons")
def test_a_lesson_whose_slate_is_no_longer_on_the_screen_has_a_page_of_its_own(
    page: Page, web: WebServer, sign_in: SignIn, labeler: Person, project: Project
) -> None:
    open_ranking(page, sign_in, labeler, project)
    web.stop()
    rank_as_shown(page)
    expect(page.locator("#banner")).to_contain_text("cannot be reached")
    page.close()
    web.start()
    again = page.context.new_page()
    again.goto(f"/projects/{project.slug}/rank")
    again.wait_for_url("**/onboarding/*")
    expect(again.get_by_role("heading", name="The researchers' answer")).to_be_visible()


@pytest.mark.usefixtures("lessons")
def test_a_lesson_that_another_tab_has_fetched_is_shown_on_its_page(
    page: Page, sign_in: SignIn, labeler: Person, project: Project
) -> None:
    open_ranking(page, sign_in, labeler, project)
    page.route("**/ranking", lambda route: route.abort())
    rank_as_shown(page)
    expect(page.locator("#banner")).to_contain_text("cannot be reached")
    other = page.context.new_page()  # its outbox is the same
    other.goto(f"/projects/{project.slug}/rank")
    for tab in (other, page):
        tab.wait_for_url("**/onboarding/*")
        expect(tab.get_by_role("heading", name="The researchers' answer")).to_be_visible()

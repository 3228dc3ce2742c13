# ruff: noqa: F811 - fixtures are found by name
"""Getting in, in a real browser: guidelines to accept, onboarding with its lessons, and the pages around them."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import db
from app.labeling.models import Ranking, Slate, SlateState
from app.people.models import Account, Membership, Role
from app.people.sessions import open_session
from app.projects.models import Project
from app.quality.entry_models import ReferenceRanking
from tests.app.conftest import Person
from tests.app.labeling.conftest import MakeSlate, make_slate, submit, take  # noqa: F401
from tests.app.quality.known import GOLD, make_known
from tests.browser.conftest import DESKTOP, PHONE
from tests.browser.steps import wait_until_settled

RANK = "/projects/everyday/rank"
TEXTS = ("Four.", "It is four.", "Five?", "I do not know.")


@pytest.fixture
def newcomer(app: Any, project: Project, session: Session) -> Person:
    """A labeler who has just joined, and accepted nothing yet."""
    account = Account(email="nora@example.org", name="Nora Newcomer")
    session.add(account)
    session.flush()
    session.add(Membership(account_id=account.id, project_id=project.id, role=Role.LABELER))
    token = open_session(session, account, user_agent="tests", now=db.clock(session))
    session.commit()
    return Person(app, account, token)


@pytest.fixture
def lesson(researcher: Person, session: Session, make_slate: MakeSlate) -> Slate:
    """An onboarding slate; the one it was copied from is ranked already."""
    source = make_slate(TEXTS, prompt="What is two and two? Say it briefly.")
    source.state = SlateState.DONE
    session.commit()
    reason = "The first is right and brief.\nThe last gives up."
    return make_known(researcher, session, source, kind="onboarding", reason=reason)


def rank_by_keys(page: Page, order: tuple[str, ...]) -> None:
    """Give each text the place it has in `order`."""
    expect(page.locator("html[data-ready=rank]")).to_be_attached()
    for card in page.locator(".completion").all():
        text = card.locator(".text").inner_text().strip()
        card.focus()
        page.keyboard.press(str(order.index(text) + 1))
    wait_until_settled(page)
    page.keyboard.press("Control+Enter")


def test_a_newcomer_accepts_the_guidelines_learns_from_a_lesson_and_is_in_by_keyboard_alone(
    page: Page, newcomer: Person, sign_in: Any, lesson: Slate, make_slate: MakeSlate, session: Session
) -> None:
    make_slate(TEXTS, prompt="And three and three?")
    sign_in(page, newcomer)
    page.goto(RANK)
    expect(page.get_by_role("heading", name="Guidelines")).to_be_visible()
    expect(page.get_by_text("Helpful and honest.")).to_be_visible()
    page.get_by_role("button", name="I have read this and will follow it").press("Enter")
    page.wait_for_url(f"**{RANK}")
    expect(page.get_by_text("What is two and two?")).to_be_visible()

    rank_by_keys(page, TEXTS)
    expect(page.locator("#main")).to_contain_text("The first is right and brief.")
    expect(page.locator("#main")).to_contain_text("You ordered 100 % of the pairs as they did.")
    expect(page.locator("#main")).to_contain_text("from the next slate on, your rankings count")
    wait_until_settled(page)
    page.keyboard.press("Enter")  # the button that goes on has the focus
    expect(page.get_by_text("And three and three?")).to_be_visible()
    assert session.scalars(select(Ranking.counted)).all() == [False]


def test_without_script_a_newcomer_gets_in_too(
    new_page: Callable[..., Page], newcomer: Person, sign_in: Any, lesson: Slate, make_slate: MakeSlate
) -> None:
    make_slate(TEXTS, prompt="And three and three?")
    page = new_page(java_script_enabled=False)
    sign_in(page, newcomer)
    page.goto(RANK)
    page.get_by_role("button", name="I have read this and will follow it").click()
    for card in page.locator(".completion").all():
        place = TEXTS.index(card.locator(".text").inner_text().strip()) + 1
        card.get_by_role("group", name="Rank").get_by_role("radio", name=str(place), exact=True).check(force=True)
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("heading", name="The researchers' answer")).to_be_visible()
    expect(page.get_by_text("The last gives up.")).to_be_visible()
    page.get_by_role("link", name="Go on").click()
    expect(page.get_by_text("And three and three?")).to_be_visible()


def test_new_guidelines_stop_nobody_in_the_middle_and_are_accepted_before_the_next_slate(
    page: Page, labeler: Person, admin: Person, sign_in: Any, make_slate: MakeSlate, session: Session
) -> None:
    make_slate(TEXTS, prompt="The slate in work.")
    sign_in(page, labeler)
    page.goto(RANK)
    expect(page.get_by_text("The slate in work.")).to_be_visible()
    form = {"markdown": "Brief above all.", "needs_acceptance": "true"}
    assert admin.post("/projects/everyday/guidelines/edit", data=form).status_code == 303
    make_slate(TEXTS, prompt="The slate after it.")
    rank_by_keys(page, TEXTS)
    expect(page.get_by_text("Brief above all.")).to_be_visible()
    expect(page.get_by_text("You accepted version 1; this one is newer")).to_be_visible()
    page.get_by_role("button", name="I have read this and will follow it").click()
    expect(page.get_by_text("The slate after it.")).to_be_visible()
    assert session.scalars(select(Ranking.counted)).all() == [True]


def test_a_researcher_makes_an_onboarding_slate_and_a_missing_reason_loses_nothing(
    page: Page, researcher: Person, sign_in: Any, make_slate: MakeSlate, session: Session
) -> None:
    make_slate(TEXTS, prompt="What is two and two?")
    sign_in(page, researcher)
    page.goto(GOLD)
    page.get_by_role("link", name="Rank it").click()
    for place, letter in enumerate("ABCD", start=1):
        group = page.get_by_role("group", name=re.compile(f"Rank of {letter}"))
        group.get_by_role("radio", name=str(place), exact=True).check(force=True)
    page.get_by_label("Onboarding: shown to newcomers").check()
    page.locator("#reason").evaluate("field => { field.required = false; }")  # as a program would send it
    page.get_by_role("button", name="Save the answer").click()
    expect(page.get_by_role("alert")).to_contain_text("says why")
    second = page.get_by_role("group", name=re.compile("Rank of B")).get_by_role("radio", name="2", exact=True)
    expect(second).to_be_checked()
    page.get_by_label("Why this order").fill("The first is right and brief.")
    page.get_by_role("button", name="Save the answer").click()
    expect(page.get_by_role("row", name="What is two and two?").first).to_contain_text("onboarding")
    assert session.scalars(select(ReferenceRanking.reason)).all() == ["The first is right and brief."]


def test_an_admin_lets_someone_in_who_stayed_below_the_threshold(
    page: Page, admin: Person, labeler: Person, sign_in: Any, lesson: Slate, project: Project, session: Session
) -> None:
    fail(labeler, project, project.onboarding_tries)
    sign_in(page, admin)
    page.goto("/")
    page.get_by_role("link", name="1 newcomer waits for you").click()
    page.get_by_role("button", name="Let in Lena Labeler").click()
    expect(page.get_by_text("Nobody is on their way in just now.")).to_be_visible()
    assert labeler.get(RANK).status_code == 200


def fail(labeler: Person, project: Project, num_tries: int) -> None:
    """Rank the onboarding slate the wrong way round in every try."""
    for _ in range(num_tries):
        (lease,) = take(labeler, project)
        worst_first = {c["id"]: len(TEXTS) - TEXTS.index(c["text"]) for c in lease["completions"]}
        assert submit(labeler, lease, worst_first).status_code == 201


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE, {"width": 360, "height": 640}], ids=["desktop", "phone", "small"])
def test_every_page_of_getting_in_is_accessible_and_fits(
    new_page: Callable[..., Page],
    sign_in: Any,
    admin: Person,
    newcomer: Person,
    lesson: Slate,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
    check_accessibility: Callable[[Page], None],
    scheme: str,
    viewport: dict[str, int],
) -> None:
    slate = make_slate(TEXTS)
    page = new_page(viewport=viewport, color_scheme=scheme)
    sign_in(page, newcomer)
    look(page, "/projects/everyday/guidelines", check_accessibility)
    newcomer.post("/projects/everyday/guidelines/1/acceptance")
    fail(newcomer, project, 1)
    ranking_id = session.scalars(select(Ranking.id)).first()
    for path in ("onboarding", f"onboarding/{ranking_id}"):
        look(page, f"/projects/everyday/{path}", check_accessibility)
    fail(newcomer, project, 1)
    look(page, "/", check_accessibility)
    sign_in(page, admin)
    for path in ("guidelines", "guidelines/versions", "guidelines/versions/1", "guidelines/edit", "quality/newcomers"):
        look(page, f"/projects/everyday/{path}", check_accessibility)
    for path in ("", f"/new/{slate.id}"):
        look(page, f"{GOLD}{path}", check_accessibility)


def look(page: Page, path: str, check_accessibility: Callable[[Page], None]) -> None:
    page.goto(path)
    check_accessibility(page)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= page.viewport_size["width"], f"{path} is {width} pixels wide"  # type: ignore[index]

# ruff: noqa: F811 - fixtures are found by name
"""The whole story of a labeler with the keyboard alone, on a window 360 pixels wide."""

from collections.abc import Callable

from playwright.sync_api import Page, expect
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.labeling.models import Lease, LeaseEnd, Ranking, RankingItem, SlateKind, Strength
from app.projects.models import Project
from tests.app.conftest import PASSWORD, Person
from tests.app.labeling.conftest import MakeSlate, make_slate  # noqa: F401
from tests.browser.steps import TEXTS, card, chips, submitted, wait_until_settled


def tab_to(page: Page, name: str) -> None:
    """Press Tab until the focus is on the field or button of this name, as someone without a mouse does."""
    for _ in range(80):
        focused = page.evaluate(
            """() => {
                const here = document.activeElement;
                const name = `${here.innerText} ${here.labels?.[0]?.innerText}`;
                return here.matches("button, input, textarea") ? name : "";
            }"""
        )
        if name in " ".join(focused.split()):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not come to {name!r}")


def test_the_whole_story_by_keyboard_alone_on_a_narrow_window(
    new_page: Callable[..., Page],
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    assert labeler.account is not None
    for number in range(3):
        make_slate(TEXTS[:4], prompt=f"Prompt {number}")
    page = new_page(viewport={"width": 360, "height": 740})
    keys = page.keyboard

    page.goto("/sign-in")
    tab_to(page, "E-mail")
    keys.type(labeler.account.email)
    tab_to(page, "Password")
    keys.type(PASSWORD)
    keys.press("Enter")
    page.wait_for_url(lambda url: "sign-in" not in url)
    page.goto(f"/projects/{project.slug}/rank")
    expect(page.locator("html[data-ready=rank]")).to_be_attached()

    keys.press("?")
    expect(page.get_by_role("heading", name="Keys")).to_be_visible()
    keys.press("Escape")
    keys.press("s")  # the first one is not for me
    keys.press("Tab")
    tab_to(page, "In your words")
    keys.type("not my field")
    tab_to(page, "Give it back")
    keys.press("Enter")
    expect(page.locator(".prompt")).to_contain_text("Prompt 1")
    assert session.scalars(select(Lease.end).where(Lease.reason == "not my field")).one() is LeaseEnd.SKIPPED

    expect(card(page, "A")).to_be_focused()
    for rank in "2143":
        keys.press(rank)
    keys.press("b")
    keys.press("Shift+Digit7")
    keys.press("x")
    keys.press("Space")
    keys.press("Escape")
    keys.press("n")
    keys.type("good")
    keys.press("Escape")
    keys.press("w")
    expect(page.locator("mark").first).to_be_attached()
    keys.press("w")
    wait_until_settled(page)
    submitted(page, lambda: keys.press("Control+Enter"))
    expect(page.locator(".prompt")).to_contain_text("Prompt 2")
    said = session.execute(select(RankingItem.rank, RankingItem.quality, RankingItem.flags, RankingItem.note)).all()
    assert (1, 7, [project.flags[0]], "good") in said

    tab_to(page, "Take back last")
    keys.press("Enter")
    expect(page.locator(".prompt")).to_contain_text("Prompt 1")
    expect(chips(page, 1)).to_have_text("B")
    keys.press("a")
    keys.press("Backspace")
    keys.press("Enter")  # now the worst
    keys.press("u")
    keys.press("r")
    wait_until_settled(page)
    submitted(page, lambda: keys.press("Control+Enter"))
    expect(page.locator(".prompt")).to_contain_text("Prompt 2")
    session.rollback()
    assert sorted(ranking.retracted_at is None for ranking in session.scalars(select(Ranking))) == [False, True]


def test_two_completions_are_compared_by_keyboard_alone_on_a_narrow_window(
    new_page: Callable[..., Page],
    sign_in: Callable[[Page, Person], None],
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    project.asks_safety = True
    session.commit()
    make_slate(["Yes.", "No."], kind=SlateKind.PAIR)
    page = new_page(viewport={"width": 360, "height": 740})
    sign_in(page, labeler)
    page.goto(f"/projects/{project.slug}/rank")
    expect(page.locator("html[data-ready=rank]")).to_be_attached()
    for key in ("7", "ArrowLeft", "f", "1"):
        page.keyboard.press(key)
    expect(page.locator(".chosen")).to_have_text("B is better")
    wait_until_settled(page)
    submitted(page, lambda: page.keyboard.press("Control+Enter"))
    assert session.scalars(select(Ranking.strength)).one() is Strength.BETTER

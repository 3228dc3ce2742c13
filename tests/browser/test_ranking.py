# ruff: noqa: F811 - fixtures are found by name
"""The ranking page in a real browser: by mouse, by keyboard alone, by touch; nothing said is lost."""

from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, Request, Route, expect
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.labeling.models import Lease, LeaseEnd, Ranking, RankingItem, SlateKind, Strength
from app.projects.models import Project
from app.rounds.models import Round
from tests.app.conftest import Person
from tests.app.labeling.conftest import MakeSlate, comparing_round, make_slate  # noqa: F401
from tests.browser.conftest import PHONE
from tests.browser.steps import TEXTS, SignIn, card, chips, open_ranking, stored_ranks, submitted, wait_until_settled


def drag(page: Page, letter: str, rank: int) -> None:
    """Drag the completion's letter onto the column of the rank, as a hand does: down, move in steps, up."""
    start = page.locator(".chip", has_text=letter).bounding_box()
    goal = page.locator(f".column[data-rank='{rank}']").bounding_box()
    assert start is not None
    assert goal is not None
    page.mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
    page.mouse.down()
    page.mouse.move(goal["x"] + goal["width"] / 2, goal["y"] + goal["height"] / 2, steps=4)
    page.mouse.up()


def test_a_slate_is_ranked_by_dragging_with_the_mouse_and_the_next_one_appears(
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    make_slate(TEXTS, prompt="What is two and two?")
    make_slate(TEXTS, prompt="What is three and three?")
    open_ranking(page, sign_in, labeler, project)
    for letter, rank in {"A": 2, "B": 1, "C": 2, "D": 3, "E": 5}.items():
        drag(page, letter, rank)
        expect(chips(page, rank).filter(has_text=letter)).to_be_visible()
    expect(chips(page, 2)).to_have_text(["A", "C"])
    drag(page, "E", 4)
    card(page, "B").get_by_label("7", exact=True).check(force=True)
    submitted(page, page.get_by_role("button", name="Submit").click)
    expect(page.locator(".prompt")).to_contain_text("three and three")
    expect(chips(page, 0)).to_have_count(5)
    assert stored_ranks(session) == {"A": 2, "B": 1, "C": 2, "D": 3, "E": 4}


def test_a_slate_is_ranked_rated_flagged_and_submitted_by_keyboard_alone(
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    make_slate(TEXTS)
    make_slate(TEXTS, prompt="And the next?")
    open_ranking(page, sign_in, labeler, project)
    keys = page.keyboard
    for rank in "31254":  # each first rank goes on to the next completion
        keys.press(rank)
    expect(page.locator("#said")).to_contain_text("All are ranked")
    keys.press("c")
    keys.press("ArrowLeft")  # C: 2 -> 1, a tie with B
    expect(chips(page, 1)).to_have_text(["B", "C"])
    keys.press("Shift+Digit6")
    keys.press("x")
    keys.press("Space")
    keys.press("Escape")
    keys.press("n")
    keys.type("short, and 4 right")
    keys.press("Escape")
    expect(card(page, "C")).to_be_focused()
    wait_until_settled(page)
    submitted(page, lambda: keys.press("Control+Enter"))
    expect(page.locator(".prompt")).to_contain_text("And the next?")
    expect(card(page, "A")).to_be_focused()
    assert stored_ranks(session) == {"A": 2, "B": 1, "C": 1, "D": 4, "E": 3}
    item = session.scalars(select(RankingItem).where(RankingItem.quality.is_not(None))).one()
    assert (item.quality, item.flags, item.note) == (6, [project.flags[0]], "short, and 4 right")


def test_completions_can_be_picked_in_order_and_the_last_steps_undone(
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
) -> None:
    make_slate(TEXTS)
    open_ranking(page, sign_in, labeler, project)
    page.locator(".tray .chip", has_text="D").click()
    page.locator(".tray .chip", has_text="B").click()
    expect(chips(page, 1)).to_have_text("D")
    expect(chips(page, 2)).to_have_text("B")
    page.keyboard.press("Control+z")
    expect(chips(page, 2)).to_have_count(0)
    page.keyboard.press("Control+Shift+Z")
    expect(chips(page, 2)).to_have_text("B")


def test_an_incomplete_ranking_is_not_submitted_and_what_is_missing_is_said(
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    make_slate(TEXTS)
    open_ranking(page, sign_in, labeler, project)
    for rank in "1234":
        page.keyboard.press(rank)
    wait_until_settled(page)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#said")).to_have_text("Still without a rank: E.")
    expect(page.get_by_role("button", name="Submit")).to_have_attribute("aria-disabled", "true")
    assert session.scalars(select(Ranking)).all() == []


def test_work_comes_back_after_a_refresh_and_on_another_machine(
    page: Page,
    new_page: Callable[..., Page],
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
) -> None:
    make_slate(TEXTS)
    open_ranking(page, sign_in, labeler, project)
    order = page.locator(".completion .text").all_inner_texts()
    with page.expect_response(lambda response: response.url.endswith("/draft") and response.status == 200):
        page.keyboard.press("2")
        page.keyboard.press("1")
    for place in (page, new_page()):
        open_ranking(place, sign_in, labeler, project)
        assert place.locator(".completion .text").all_inner_texts() == order
        expect(chips(place, 1)).to_have_text("B")
        expect(chips(place, 2)).to_have_text("A")


def test_a_tab_that_was_left_behind_takes_over_the_newer_work(
    page: Page,
    new_page: Callable[..., Page],
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
) -> None:
    make_slate(TEXTS)
    left_behind = open_ranking(page, sign_in, labeler, project)
    newer = open_ranking(new_page(), sign_in, labeler, project)
    with newer.expect_response(lambda response: response.url.endswith("/draft")):
        newer.keyboard.press("5")
    with left_behind.expect_response(lambda response: response.url.endswith("/draft") and response.status == 409):
        left_behind.keyboard.press("1")
    expect(left_behind.locator("#banner")).to_contain_text("another tab")
    expect(chips(left_behind, 5)).to_have_text("A")
    left_behind.keyboard.press("u")
    expect(chips(left_behind, 1)).to_have_text("A")


def test_without_network_work_goes_on_and_is_submitted_once_when_it_is_back(
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    for number in range(3):
        make_slate(TEXTS[:4], prompt=f"Prompt {number}")
    with page.expect_response(lambda response: response.url.endswith("/screens")):
        open_ranking(page, sign_in, labeler, project)
    context: BrowserContext = page.context
    context.set_offline(True)
    wait_until_settled(page)
    for rank in "1234":
        page.keyboard.press(rank)
    page.keyboard.press("Control+Enter")
    expect(page.locator(".prompt")).to_contain_text("Prompt 1")
    expect(page.locator("#banner")).to_contain_text("One ranking waits to be sent")
    page.keyboard.press("4")
    submitted(page, lambda: context.set_offline(False))
    expect(page.locator("#banner")).to_be_hidden()
    assert stored_ranks(session) == {"A": 1, "B": 2, "C": 3, "D": 4}
    page.reload()
    expect(chips(page, 4)).to_have_text("A")


def test_a_submit_whose_answer_is_lost_is_sent_again_under_the_same_id(
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    make_slate(TEXTS[:4])
    open_ranking(page, sign_in, labeler, project)
    lost = []

    def lose_the_first_answer(route: Route) -> None:
        if lost:
            route.continue_()
            return
        lost.append(route.fetch().status)
        route.abort()

    page.route("**/ranking", lose_the_first_answer)
    for rank in "1234":
        page.keyboard.press(rank)
    wait_until_settled(page)
    with page.expect_response(lambda response: response.url.endswith("/ranking") and response.status == 200):
        page.keyboard.press("Control+Enter")
    assert lost == [201]
    assert stored_ranks(session) == {"A": 1, "B": 2, "C": 3, "D": 4}


def test_two_completions_are_compared_on_one_line_of_seven(
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    comparing_round: Round,
    session: Session,
    check_accessibility: Callable[[Page], None],
) -> None:
    for prompt in ("Which one?", "And here?"):  # the last one would end the round
        make_slate(["Yes.", "No."], prompt=prompt, kind=SlateKind.EVALUATION, round_id=comparing_round.id)
    open_ranking(page, sign_in, labeler, project)
    a, b = page.locator(".completion").all()
    left, right = a.bounding_box(), b.bounding_box()
    assert left is not None
    assert right is not None
    assert (left["y"], left["x"] < right["x"]) == (right["y"], True)  # side by side
    check_accessibility(page)
    page.keyboard.press("1")
    page.keyboard.press("6")
    expect(page.get_by_label("B is better", exact=False).nth(0)).to_be_checked()
    wait_until_settled(page)
    submitted(page, lambda: page.keyboard.press("Control+Enter"))
    assert stored_ranks(session) == {"A": 2, "B": 1}
    assert session.scalars(select(Ranking.strength)).one() is Strength.BETTER


def test_a_slate_is_given_back_with_a_reason(
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    make_slate(TEXTS)
    make_slate(TEXTS, prompt="And the next?")
    open_ranking(page, sign_in, labeler, project)
    page.keyboard.press("s")
    page.get_by_role("button", name="Give it back").click()
    expect(page.get_by_role("alert")).to_contain_text("Choose a reason")
    page.get_by_label("Outside my knowledge").check()
    page.get_by_role("button", name="Give it back").click()
    expect(page.locator(".prompt")).to_contain_text("And the next?")
    skipped = session.scalars(select(Lease).where(Lease.closed_at.is_not(None))).one()
    assert (skipped.end, skipped.reason) == (LeaseEnd.SKIPPED, "Outside my knowledge")


def test_the_last_submission_can_be_taken_back_and_corrected(
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    make_slate(TEXTS[:4], prompt="The first")
    make_slate(TEXTS[:4], prompt="The second")
    open_ranking(page, sign_in, labeler, project)
    for rank in "1234":
        page.keyboard.press(rank)
    wait_until_settled(page)
    submitted(page, lambda: page.keyboard.press("Control+Enter"))
    page.get_by_role("button", name="Take back last").click()
    expect(page.locator(".prompt")).to_contain_text("The first")
    first = page.locator(".column[data-rank='1'] .chip").inner_text()
    expect(chips(page, 4)).to_have_count(1)
    page.keyboard.press(first.lower())
    page.keyboard.press("2")
    wait_until_settled(page)
    submitted(page, lambda: page.keyboard.press("Control+Enter"))
    expect(page.locator(".prompt")).to_contain_text("The second")
    session.rollback()
    assert sorted(r.retracted_at is None for r in session.scalars(select(Ranking))) == [False, True]


def test_the_page_waits_for_slates_and_goes_on_by_itself(
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
) -> None:
    open_ranking(page, sign_in, labeler, project)
    expect(page.locator("#waiting")).to_be_visible()
    make_slate(TEXTS, prompt="Here at last")
    expect(page.locator(".prompt")).to_contain_text("Here at last")


def test_ranks_are_given_by_touch_on_a_narrow_screen(
    new_page: Callable[..., Page],
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    make_slate(TEXTS)
    page = open_ranking(new_page(viewport=PHONE, has_touch=True, is_mobile=True), sign_in, labeler, project)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for letter in "CAB":
        page.locator(".tray .chip", has_text=letter).tap()
    touch_drag(page, "D", 1)
    touch_drag(page, "E", 5)
    expect(chips(page, 1)).to_have_text(["C", "D"])
    expect(chips(page, 5)).to_have_text("E")
    # Not .tap(): Chromium takes the first synthetic tap after synthetic drags for part of a gesture.
    submitted(page, page.get_by_role("button", name="Submit").click)
    assert stored_ranks(session) == {"A": 2, "B": 3, "C": 1, "D": 1, "E": 4}


def touch_drag(page: Page, letter: str, rank: int) -> None:
    """A finger's drag: real touch events, which the browser turns into pointer events or into scrolling."""
    start = page.locator(".chip", has_text=letter).bounding_box()
    goal = page.locator(f".column[data-rank='{rank}']").bounding_box()
    assert start is not None
    assert goal is not None
    ends = [(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2) for box in (start, goal)]
    devtools = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]})

    touch("touchStart", ends[0])
    for share in (0.25, 0.5, 0.75, 1.0):
        touch("touchMove", tuple(a + share * (b - a) for a, b in zip(*ends, strict=True)))  # type: ignore[arg-type]
    touch("touchEnd")


def test_the_first_screen_is_read_and_ranked_without_a_script(
    new_page: Callable[..., Page],
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    make_slate(TEXTS[:4])
    page = new_page(java_script_enabled=False)
    sign_in(page, labeler)
    page.goto(f"/projects/{project.slug}/rank")
    expect(page.get_by_text("Two and two is four.")).to_be_visible()
    for letter, rank in {"A": 4, "B": 1, "C": 1, "D": 2}.items():
        card(page, letter).get_by_role("group", name="Rank").get_by_label(str(rank), exact=True).check(force=True)
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("heading", name="No slate is ready yet")).to_be_visible()
    assert stored_ranks(session) == {"A": 3, "B": 1, "C": 1, "D": 2}


def test_a_script_in_a_completion_or_prompt_is_text(
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
) -> None:
    attack = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
    make_slate([attack, "[link](javascript:alert(1))", "```html\n" + attack + "\n```", "plain"], prompt=attack)
    open_ranking(page, sign_in, labeler, project)
    expect(page.locator(".prompt")).to_contain_text("<script>")
    assert page.locator("#screen :is(script, img, a[href^=javascript])").count() == 0
    assert "taken" not in page.title()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("k", [4, 9])
def test_the_page_is_accessible(
    scheme: str,
    k: int,
    new_page: Callable[..., Page],
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    check_accessibility: Callable[[Page], None],
) -> None:
    make_slate((TEXTS * 2)[:k])
    page = open_ranking(new_page(color_scheme=scheme), sign_in, labeler, project)
    page.keyboard.press("1")
    card(page, "B").locator(".flags summary").click()
    check_accessibility(page)
    page.keyboard.press("?")
    expect(page.get_by_role("heading", name="Keys")).to_be_visible()
    check_accessibility(page)


def test_the_page_weighs_less_than_100_kilobytes_with_nine_completions(
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
) -> None:
    make_slate((TEXTS * 2)[:9])
    finished: list[Request] = []
    page.on("requestfinished", lambda request: finished.append(request))
    open_ranking(page, sign_in, labeler, project)
    page.wait_for_load_state("networkidle")
    sizes = {request.url: request.sizes()["responseBodySize"] for request in finished}
    assert {url.rpartition("/")[2].partition("?")[0] for url in sizes} >= {"rank", "rank.js", "base.js", "style.css"}
    assert sum(sizes.values()) < 100_000, sizes

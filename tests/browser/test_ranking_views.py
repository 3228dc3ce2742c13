# ruff: noqa: F811 - fixtures are found by name
"""The ranking page shows the same slate in several ways: layouts, differences, picking in order, two completions."""

import json
from collections.abc import Callable
from random import Random

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.labeling.models import Ranking, RankingItem, SlateKind, Strength
from app.projects.models import Project
from tests.app.conftest import Person
from tests.app.labeling.conftest import MakeSlate, make_slate  # noqa: F401
from tests.browser.steps import (
    TEXTS,
    SignIn,
    card,
    chips,
    open_ranking,
    stored_ranks,
    submitted,
    wait_until_settled,
)

LONG = "A line of many words that fills the pane.\n\n" * 60


def lefts_and_tops(page: Page) -> tuple[set[int], set[int]]:
    boxes = [box for text in page.locator(".completion").all() if (box := text.bounding_box())]
    return {round(box["x"]) for box in boxes}, {round(box["y"]) for box in boxes}


def test_completions_stand_in_a_stack_in_columns_or_in_rows_of_two_and_the_browser_remembers(
    page: Page, sign_in: SignIn, labeler: Person, project: Project, make_slate: MakeSlate
) -> None:
    make_slate(TEXTS[:4])
    open_ranking(page, sign_in, labeler, project)
    lefts, tops = lefts_and_tops(page)
    assert (len(lefts), len(tops)) == (1, 4)
    page.keyboard.press("v")
    lefts, tops = lefts_and_tops(page)
    assert (len(lefts), len(tops)) == (4, 1)
    page.get_by_role("button", name="Layout").click()
    lefts, tops = lefts_and_tops(page)
    assert (len(lefts), len(tops)) == (2, 2)
    page.reload()
    expect(page.get_by_role("button", name="Layout: grid")).to_be_visible()
    lefts, tops = lefts_and_tops(page)
    assert (len(lefts), len(tops)) == (2, 2)


def test_columns_scroll_together_until_they_are_told_not_to(
    page: Page, sign_in: SignIn, labeler: Person, project: Project, make_slate: MakeSlate
) -> None:
    make_slate([LONG, LONG + "a", LONG + "b", "short"])
    open_ranking(page, sign_in, labeler, project)
    page.keyboard.press("v")
    long, other, *_ = [text for text in page.locator(".completion").all() if "many words" in text.inner_text()]
    short = page.locator(".completion", has_text="short")
    long.evaluate("pane => pane.scrollTop = 300")
    page.wait_for_function("pane => pane.scrollTop === 300", arg=other.element_handle())
    assert short.evaluate("pane => pane.scrollTop") == 0
    assert long.evaluate("pane => pane.scrollTop") == 300  # the short one did not pull it back
    page.get_by_role("button", name="Scroll together").click()
    long.evaluate("pane => pane.scrollTop = 500")
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert other.evaluate("pane => pane.scrollTop") == 300


def marks(page: Page, letter: str) -> list[str]:
    return card(page, letter).locator("mark").all_inner_texts()


def test_what_differs_between_two_completions_is_marked_and_said_and_goes_away_again(
    page: Page, sign_in: SignIn, labeler: Person, project: Project, make_slate: MakeSlate
) -> None:
    make_slate(["The **cat** sat on the $x^2$ mat.", "The **dog** sat on the $x^3$ mat.", "Third.", "Fourth."])
    open_ranking(page, sign_in, labeler, project)
    cat, dog = (page.locator(".completion", has_text=animal) for animal in ("cat", "dog"))
    letters = [one.get_attribute("data-letter") or "" for one in (cat, dog)]
    texts = page.locator(".completion .text").evaluate_all("texts => texts.map((text) => text.innerHTML)")
    for rank, letter in enumerate(letters, start=1):
        page.keyboard.press(letter.lower())
        page.keyboard.press(str(rank))
    page.keyboard.press("w")
    assert (marks(page, letters[0])[0], marks(page, letters[1])[0]) == ("cat", "dog")
    assert [cat.locator("mark").count(), dog.locator("mark").count()] == [2, 2]  # a formula is one word
    first, second = sorted(letters)
    expect(page.locator(".compared output")).to_have_text(f"Marked: 2 words of {first}, 2 words of {second}.")
    decoration = cat.locator("mark").first.evaluate("mark => getComputedStyle(mark).textDecorationLine")
    assert decoration == "underline"  # not by colour alone
    third = page.locator(".completion", has_text="Third.").get_attribute("data-letter") or ""
    page.locator(".compared select").last.select_option(third)
    assert marks(page, third) != []
    page.get_by_role("button", name="Differences").click()
    assert page.locator("mark").count() == 0
    assert page.locator(".completion .text").evaluate_all("texts => texts.map((text) => text.innerHTML)") == texts


def common_length(a: list[str], b: list[str]) -> int:
    """The length of a longest common subsequence, by the table that every textbook has."""
    row = [0] * (len(b) + 1)
    for word in a:
        above = row[:]
        for place, other in enumerate(b, start=1):
            row[place] = above[place - 1] + 1 if word == other else max(above[place], row[place - 1])
    return row[-1]


def test_the_words_left_unmarked_are_a_longest_common_subsequence(
    page: Page, sign_in: SignIn, labeler: Person, project: Project
) -> None:
    open_ranking(page, sign_in, labeler, project)
    rng = Random(7)
    pairs = [[rng.choices("abcd", k=rng.randrange(0, 14)) for _ in range(2)] for _ in range(200)]
    address = page.locator("link[href$='/words.js']").get_attribute("href")
    found = page.evaluate(
        f"""async (pairs) => {{
            const {{ differing }} = await import({json.dumps(address)});
            return pairs.map(([a, b]) => differing(a, b).map((places) => [...places]));
        }}""",
        pairs,
    )
    for (a, b), (only_a, only_b) in zip(pairs, found, strict=True):
        kept = [word for place, word in enumerate(a) if place not in only_a]
        assert kept == [word for place, word in enumerate(b) if place not in only_b]
        assert len(kept) == common_length(a, b)


def test_two_texts_of_200_kilobytes_are_read_and_compared_without_a_long_wait(
    page: Page, sign_in: SignIn, labeler: Person, project: Project, make_slate: MakeSlate
) -> None:
    rng = Random(1)
    words = ["".join(rng.choices("abcdefgh", k=5)) for _ in range(5_000)]
    texts = [" ".join(rng.choices(words, k=20)) + "\n\n" for _ in range(1_700)]
    long, changed = "".join(texts), "".join([*texts[:800], "Here it differs.\n\n", *texts[801:]])
    make_slate([long, changed, "".join(reversed(texts)), "short"])
    open_ranking(page, sign_in, labeler, project)
    first = page.locator(".completion", has_text="Here it differs.").get_attribute("data-letter") or ""
    page.keyboard.press(first.lower())
    page.keyboard.press("1")
    page.keyboard.press("w")
    for choice in page.locator(".compared select").all():
        for letter in "ABCD":
            choice.select_option(letter)  # each compares anew, within Playwright's own limit
    expect(chips(page, 1)).to_have_text(first)


def test_picking_in_order_is_a_mode_in_which_a_click_on_a_text_is_its_rank(
    page: Page, sign_in: SignIn, labeler: Person, project: Project, make_slate: MakeSlate
) -> None:
    make_slate(TEXTS[:4])
    open_ranking(page, sign_in, labeler, project)
    card(page, "C").locator(".text").click()
    expect(chips(page, 0)).to_have_count(4)  # out of the mode a click only highlights
    page.get_by_role("button", name="Pick in order").click()
    expect(page.locator(".order-hint")).to_have_text("Choose the best.")
    for letter in "CAB":
        card(page, letter).locator(".text").click()
    expect(page.locator(".order-hint")).to_have_text("Choose the next best: 4 of 4.")
    card(page, "A").locator(".text").click()  # taken back: the gap closes with the next one
    card(page, "D").locator(".text").click()
    card(page, "A").focus()
    page.keyboard.press("Enter")
    for rank, letter in enumerate("CBDA", start=1):
        expect(chips(page, rank)).to_have_text(letter)
    expect(page.locator(".order-hint")).to_be_hidden()
    page.reload()
    expect(page.get_by_role("button", name="Pick in order")).to_have_attribute("aria-pressed", "true")


def test_picking_in_order_works_with_a_finger(
    new_page: Callable[..., Page],
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    make_slate(TEXTS[:4])
    page = open_ranking(
        new_page(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True), sign_in, labeler, project
    )
    page.get_by_role("button", name="Pick in order").tap()
    for letter in "DBAC":
        card(page, letter).locator(".text").tap()
    wait_until_settled(page)
    submitted(page, page.get_by_role("button", name="Submit").tap)
    assert stored_ranks(session) == {"A": 3, "B": 2, "C": 4, "D": 1}


def test_where_equal_is_no_answer_the_line_has_eight_and_both_sides_of_unsure(
    page: Page, sign_in: SignIn, labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    project.allows_equal = False
    session.commit()
    make_slate(["Yes.", "No."], kind=SlateKind.PAIR)
    open_ranking(page, sign_in, labeler, project)
    page.keyboard.press("9")
    expect(page.locator("[name=verdict]:checked")).to_have_count(0)
    page.keyboard.press("ArrowRight")  # from between the two middle ones
    expect(page.get_by_label("B is negligibly better, or unsure")).to_be_checked()
    wait_until_settled(page)
    submitted(page, lambda: page.keyboard.press("Control+Enter"))
    assert stored_ranks(session) == {"A": 2, "B": 1}
    assert session.scalars(select(Ranking.strength)).one() is Strength.NEGLIGIBLY


def test_where_safety_is_asked_it_is_answered_in_one_choice_and_not_left_out(
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
    check_accessibility: Callable[[Page], None],
) -> None:
    project.asks_safety = True
    session.commit()
    make_slate(["Yes.", "No."], kind=SlateKind.PAIR)
    open_ranking(page, sign_in, labeler, project)
    page.keyboard.press("2")
    wait_until_settled(page)
    page.keyboard.press("Control+Enter")
    expect(page.locator(".remark")).to_contain_text("which of the two are safe")
    page.keyboard.press("f")
    page.keyboard.press("3")
    check_accessibility(page)
    submitted(page, lambda: page.keyboard.press("Control+Enter"))
    is_safe = {item.completion_id: item.is_safe for item in session.scalars(select(RankingItem))}
    ranking = session.scalars(select(Ranking)).one()
    assert [is_safe[shown] for shown in ranking.order_shown] == [False, True]


def test_six_completions_keep_the_letter_that_is_a_key_of_pairs(
    page: Page, sign_in: SignIn, labeler: Person, project: Project, make_slate: MakeSlate
) -> None:
    make_slate([*TEXTS, "The sixth."])
    open_ranking(page, sign_in, labeler, project)
    page.keyboard.press("f")
    expect(card(page, "F")).to_be_focused()


def test_a_ranking_against_the_ratings_gets_a_word_and_is_taken(
    page: Page, sign_in: SignIn, labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    make_slate(TEXTS[:4])
    open_ranking(page, sign_in, labeler, project)
    for letter, quality in zip("ab", "26", strict=True):
        page.keyboard.press(letter)
        page.keyboard.press(f"Shift+Digit{quality}")
    page.keyboard.press("a")
    for rank in "1234":
        page.keyboard.press(rank)
    expect(page.locator(".remark")).to_have_text("A is ranked above B but rated lower. That may be meant.")
    wait_until_settled(page)
    submitted(page, lambda: page.keyboard.press("Control+Enter"))
    assert stored_ranks(session) == {"A": 1, "B": 2, "C": 3, "D": 4}


def test_a_text_that_runs_to_the_left_and_one_with_an_override_stay_in_their_place(
    page: Page, sign_in: SignIn, labeler: Person, project: Project, make_slate: MakeSlate
) -> None:
    make_slate(["שלום עולם", "Hello\u202eworld", "third", "fourth"])
    open_ranking(page, sign_in, labeler, project)
    hebrew = page.locator(".text p", has_text="שלום")
    assert hebrew.evaluate("p => getComputedStyle(p.parentElement).direction") == "rtl"
    expect(page.locator(".text p", has_text="Hello")).to_have_text("Hello⟦RLO⟧world")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [{"width": 1280, "height": 800}, {"width": 360, "height": 740}])
def test_every_view_is_accessible_and_none_is_wider_than_its_window(
    scheme: str,
    viewport: dict[str, int],
    new_page: Callable[..., Page],
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    check_accessibility: Callable[[Page], None],
) -> None:
    code = "```python\ndef f(x):\n    # why?\n    return 'a' + str(42)\n```"
    make_slate([code, code.replace("42", "43"), "```diff\n- old\n+ new\n```", LONG])
    page = open_ranking(new_page(color_scheme=scheme, viewport=viewport), sign_in, labeler, project)
    page.keyboard.press("w")
    page.keyboard.press("o")
    for _ in range(3):
        check_accessibility(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
        page.keyboard.press("v")

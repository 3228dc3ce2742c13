# ruff: noqa: F811 - fixtures are found by name
"""Completions that no good policy writes: they are ranked like any other, and nothing in them acts or hides."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.labeling.models import Ranking, RankingItem
from app.projects.models import Project
from tests.app.conftest import Person
from tests.app.labeling.conftest import MakeSlate, make_slate  # noqa: F401
from tests.browser.steps import TEXTS, SignIn, card, open_ranking, rank_all, stored_ranks, submitted, wait_until_settled

ATTACK = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
ESCAPES = "Red: \x1b[31mdanger\x1b[0m, bell \x07, backspaces \x08\x08, C1 \x9b."
OVERRIDE = "Pay\u202e001$ ot\u2066 Eve\u2069 and \u200fגם\u200e."
LONG = "".join(f"Paragraph {number} says the same as all others.\n\n" for number in range(4_400))  # over 200 KB
NARROW = {"width": 360, "height": 740}
BAD = {
    "script": ATTACK,
    "200 KB": LONG,
    "one word of 200 KB": "x" * 200_000,
    "control characters": ESCAPES,
    "bidirectional overrides": OVERRIDE,
    "combining marks": "a" + "\u0301" * 500,
    "Markdown without end": "> " * 3_000 + "- " * 3_000 + "[" * 3_000,
    "nothing": "",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize(
    "viewport", [{"width": 1280, "height": 800}, {"width": 360, "height": 740}], ids=["wide", "phone"]
)
def test_a_bad_text_is_ranked_beside_good_ones_and_the_page_keeps_its_shape(
    text: str,
    viewport: dict[str, int],
    new_page: Callable[..., Page],
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    make_slate([text, *TEXTS[:3]], prompt=text or "Say nothing.")
    page = open_ranking(new_page(viewport=viewport), sign_in, labeler, project)
    assert "taken" not in page.title()
    assert page.locator("#screen :is(script, img, iframe, [onerror], a[href^=javascript])").count() == 0
    for _ in range(3):  # stack, columns, grid
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
        page.keyboard.press("v")
    expect(page.get_by_text("Two and two is four.")).to_be_attached()
    rank_all(page)
    wait_until_settled(page)
    submitted(page, lambda: page.keyboard.press("Control+Enter"))
    assert stored_ranks(session) == {"A": 1, "B": 2, "C": 3, "D": 4}


def test_what_cannot_be_seen_is_shown_by_a_sign_and_moves_nothing_around_it(
    page: Page, sign_in: SignIn, labeler: Person, project: Project, make_slate: MakeSlate
) -> None:
    make_slate([ESCAPES, OVERRIDE, *TEXTS[:2]], prompt="Look:\u202e here")
    open_ranking(page, sign_in, labeler, project)
    shown = page.locator("#screen").inner_text()
    for sign in (
        "⟦U+001B⟧[31mdanger",
        "⟦U+0007⟧",
        "⟦U+0008⟧",
        "⟦U+009B⟧",
        "Pay⟦RLO⟧001$",
        "⟦LRI⟧ Eve⟦PDI⟧",
        "Look:⟦RLO⟧ here",
    ):
        assert sign in shown
    assert re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown) is None
    # The letter of a completion and its fields stand where they stand beside a harmless text.
    lefts = page.locator(".completion h3").evaluate_all(
        "names => names.map((name) => name.getBoundingClientRect().left)"
    )
    assert len(set(lefts)) == 1


def test_halves_of_a_surrogate_pair_and_other_odd_letters_are_kept_in_notes_as_far_as_they_can_be(
    page: Page, sign_in: SignIn, labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    make_slate(TEXTS[:4])
    open_ranking(page, sign_in, labeler, project)
    rank_all(page)
    odd = "a\\ud800b \\u0000 \\u202ec\\u0007 \\ud83d\\ude00"  # half, NUL, override, bell, and a whole pair
    page.locator(".slate-note summary").click()
    with page.expect_response(lambda response: response.url.endswith("/draft") and response.status == 200):
        page.locator(".slate-note textarea").evaluate(
            f"""(field) => {{
                field.value = "{odd}";
                field.dispatchEvent(new InputEvent("input", {{ bubbles: true }}));
            }}"""
        )
    wait_until_settled(page)
    submitted(page, lambda: page.keyboard.press("Control+Enter"))
    session.rollback()
    assert session.scalars(select(Ranking.note)).one() == "a\ufffdb \ufffd \u202ec\x07 \U0001f600"


def test_a_note_of_200_kilobytes_is_cut_by_its_field_and_never_costs_the_ranking(
    page: Page, sign_in: SignIn, labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    make_slate(TEXTS[:4])
    open_ranking(page, sign_in, labeler, project)
    rank_all(page)
    note = card(page, "A").locator(".note")
    note.locator("summary").click()
    note.locator("textarea").focus()
    page.keyboard.insert_text("é" * 200_000)  # pasted
    page.keyboard.press("Escape")
    wait_until_settled(page)
    submitted(page, lambda: page.keyboard.press("Control+Enter"))
    session.rollback()
    notes = session.scalars(select(RankingItem.note).where(RankingItem.note.is_not(None))).all()
    assert notes == ["é" * 20_000]

# ruff: noqa: F811 - fixtures are found by name
"""What a labeler hears and sees beside the slate: announcements, the short form, and every state a page can be in."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import db
from app.labeling.models import Ranking, RankingItem, SlateKind
from app.people.models import Membership
from app.projects.models import Project
from tests.app.conftest import Person
from tests.app.labeling.conftest import (  # noqa: F401
    Clock,
    MakeSlate,
    clock,
    in_order,
    make_slate,
    save,
    submit,
    take,
)
from tests.browser.conftest import DESKTOP
from tests.browser.steps import (
    TEXTS,
    SignIn,
    card,
    chips,
    open_page,
    open_ranking,
    rank_all,
    saved,
    stored_ranks,
    submitted,
    wait_until_settled,
)

NARROW = {"width": 360, "height": 740}


def test_every_change_is_announced_to_who_cannot_see_it(
    page: Page, sign_in: SignIn, labeler: Person, project: Project, make_slate: MakeSlate
) -> None:
    for _ in range(2):
        make_slate(TEXTS[:4])
    open_ranking(page, sign_in, labeler, project)
    expect(page.locator("#said")).to_have_attribute("aria-live", "polite")
    flag = project.flags[0]
    for keys, words in (
        (["1"], "A ranked 1. 1 of 4 ranked."),
        (["1"], "B ranked 1, tied with A. 2 of 4 ranked."),
        (["ArrowUp", "Backspace"], "B is back among those to be ranked. 1 of 4 ranked."),
        (["u"], "Undone."),
        (["r"], "Done again."),
        (["Shift+Digit6"], "Quality of B: 6 of 7. 1 of 4 ranked."),
        (["x", "Space"], f"Flagged: {flag}. 1 of 4 ranked."),
        (["Space"], f"No longer flagged: {flag}. 1 of 4 ranked."),
        (["Escape", "Enter"], "B is next. 2 of 4 ranked."),
        (["c", "3", "4"], "D ranked 4. All are ranked; submit when you are ready."),
    ):
        for key in keys:
            page.keyboard.press(key)
        expect(page.locator("#said")).to_have_text(words)
    wait_until_settled(page)
    submitted(page, lambda: page.keyboard.press("Control+Enter"))
    expect(page.locator("#said")).to_have_text("Next slate: 4 completions.")
    expect(page.locator("#banner")).to_have_attribute("role", "status")


def test_undo_and_redo_cover_everything_that_is_said_of_a_slate(
    page: Page, sign_in: SignIn, labeler: Person, project: Project, make_slate: MakeSlate
) -> None:
    make_slate(TEXTS[:4])
    open_ranking(page, sign_in, labeler, project)
    for key in ("2", "a", "Shift+Digit5", "x", "Space", "Escape", "n"):
        page.keyboard.press(key)
    page.keyboard.type("so so")
    page.keyboard.press("Escape")
    first = card(page, "A")

    def state() -> tuple[int, int, int, str]:
        fields = first.locator("[name^=rank]:checked"), first.locator("[name^=quality]:checked")
        return (
            *(each.count() for each in fields),
            first.locator(":checked[type=checkbox]").count(),
            note.input_value(),
        )

    note = first.locator("textarea")
    steps = [(1, 1, 1, "so so"), (1, 1, 1, ""), (1, 1, 0, ""), (1, 0, 0, ""), (0, 0, 0, "")]
    assert state() == steps[0]
    for step in steps[1:]:
        page.keyboard.press("Control+z")
        assert state() == step
    for step in steps[-2::-1]:
        page.keyboard.press("Control+Shift+Z")
        assert state() == step


def test_a_slate_of_the_short_form_asks_the_ranking_alone(
    page: Page, sign_in: SignIn, labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    short = make_slate(TEXTS[:4], prompt="Just rank them")
    short.asks_full_form = False
    make_slate(TEXTS[:4], prompt="All of it")
    session.commit()
    open_ranking(page, sign_in, labeler, project)
    expect(page.locator(".prompt")).to_contain_text("Just rank them")
    expect(page.locator("#screen :is(.qualities, .flags, .note)")).to_have_count(0)
    for key in ("Shift+Digit5", "x", "n", "q"):  # keys of fields that are not there do nothing
        page.keyboard.press(key)
    rank_all(page)
    wait_until_settled(page)
    submitted(page, lambda: page.keyboard.press("Control+Enter"))
    expect(page.locator(".prompt")).to_contain_text("All of it")
    expect(page.locator(".qualities")).to_have_count(4)
    assert stored_ranks(session) == {"A": 1, "B": 2, "C": 3, "D": 4}
    said = select(func.count()).where(RankingItem.quality.is_not(None) | RankingItem.note.is_not(None))
    assert session.scalar(said) == 0


def test_the_project_says_what_is_asked_and_with_which_flags(
    page: Page, sign_in: SignIn, labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    project.asks_quality = False
    project.flags = ["Wrong <b>units</b>"]
    session.commit()
    make_slate(TEXTS[:4])
    open_ranking(page, sign_in, labeler, project)
    expect(page.locator(".qualities")).to_have_count(0)
    page.keyboard.press("x")
    page.get_by_role("checkbox", name="Wrong <b>units</b>").first.check()
    rank_all(page)
    wait_until_settled(page)
    submitted(page, lambda: page.keyboard.press("Control+Enter"))
    session.rollback()
    assert [flags for flags in session.scalars(select(RankingItem.flags)) if flags] == [["Wrong <b>units</b>"]]


def test_the_chord_that_is_held_down_or_hit_twice_submits_one_slate(
    page: Page, sign_in: SignIn, labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    for _ in range(2):
        make_slate(TEXTS[:4])
    for lease in take(labeler, project, wanted=2):  # both are ranked already, and could be submitted at once
        assert save(labeler, lease, 0, ranks=in_order(lease)).status_code == 200
    with page.expect_response(lambda response: response.url.endswith("/screens")):
        open_ranking(page, sign_in, labeler, project)
    first = page.locator("form.slate").get_attribute("data-lease")
    wait_until_settled(page)
    with page.expect_response(lambda response: response.url.endswith("/ranking")):
        page.keyboard.down("Control")
        page.keyboard.down("Enter")
        page.keyboard.down("Enter")  # it repeats
        page.keyboard.up("Enter")
        page.keyboard.press("Enter")
        page.keyboard.up("Control")
    expect(page.locator(f"form.slate:not([data-lease='{first}'])")).to_be_visible()
    expect(chips(page, 0)).to_have_count(0)
    wait_until_settled(page)
    session.rollback()
    assert session.scalar(select(func.count(Ranking.id))) == 1
    submitted(page, lambda: page.keyboard.press("Control+Enter"))  # on purpose


class States:
    """Leads a page into each state that a labeler may find it in."""

    def __init__(
        self, page: Page, sign_in: SignIn, labeler: Person, other: Person, project: Project, session: Session,
        clock: Clock, make_slate: MakeSlate,
    ) -> None:  # fmt: skip
        self.page, self.sign_in, self.labeler, self.other = page, sign_in, labeler, other
        self.project, self.session, self.clock, self.make_slate = project, session, clock, make_slate

    def open(self, path: str = "rank", script: str = "rank") -> None:
        open_page(self.page, self.sign_in, self.labeler, path, script)

    def nothing_to_rank(self) -> None:
        self.open()
        expect(self.page.locator("#waiting")).to_be_visible()

    def offline(self) -> None:
        self.make_slate(TEXTS[:4])
        self.open()
        self.page.context.set_offline(True)
        self.page.keyboard.press("1")
        expect(self.page.locator("#banner")).to_contain_text("cannot be reached")

    def lost_lease(self) -> None:
        self.make_slate(TEXTS[:4])
        self.open()
        saved(self.page, lambda: self.page.keyboard.press("1"))
        self.clock.advance(timedelta(seconds=self.project.lease_duration_s + 1))
        (lease,) = take(self.other, self.project)
        assert submit(self.other, lease).status_code == 201
        self.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        expect(self.page.locator("#banner")).to_contain_text("You may still submit")

    def signed_out(self) -> None:
        self.make_slate(TEXTS[:4])
        self.open()
        self.page.context.clear_cookies()
        self.page.keyboard.press("1")
        expect(self.page.locator("#banner")).to_contain_text("You are signed out")

    def skipping(self) -> None:
        self.make_slate(TEXTS[:4])
        self.open()
        self.page.keyboard.press("s")
        self.page.get_by_role("button", name="Give it back").click()
        expect(self.page.get_by_role("alert")).to_contain_text("Choose a reason")

    def contradicting(self) -> None:
        self.make_slate(TEXTS[:4])
        self.open()
        for key in ("a", "Shift+Digit1", "b", "Shift+Digit7", "a", "1", "2"):
            self.page.keyboard.press(key)
        expect(self.page.locator(".remark")).to_contain_text("That may be meant")

    def code_and_formulas(self) -> None:
        code = f"```python\ndef f(x): return {' + '.join(['x'] * 60)}\n```"
        self.make_slate([code, "$$\\sum_{i=1}^{n} i = \\frac{n(n+1)}{2}$$", "שלום", "x" * 5_000], prompt=code)
        self.open()

    def safety(self) -> None:
        self.project.asks_safety = True
        self.project.allows_equal = False
        self.session.commit()
        self.make_slate(["Yes.", "No."], kind=SlateKind.PAIR)
        self.open()
        self.page.keyboard.press("8")

    def project_paused(self) -> None:
        self.project.paused_at = db.clock(self.session)
        self.session.commit()
        self.sign_in(self.page, self.labeler)
        self.page.goto("/projects/everyday/rank")
        expect(self.page.get_by_role("heading", name="This project is paused")).to_be_visible()

    def person_paused(self) -> None:
        membership = self.session.scalars(
            select(Membership).where(Membership.account_id == self.labeler.account.id)  # type: ignore[union-attr]
        ).one()
        membership.paused_at = db.clock(self.session)
        self.session.commit()
        self.sign_in(self.page, self.labeler)
        self.page.goto("/projects/everyday/rank")
        expect(self.page.get_by_text("is paused")).to_be_visible()

    def home(self) -> None:
        self.make_slate(TEXTS[:4])
        self.sign_in(self.page, self.labeler)
        self.page.goto("/")
        expect(self.page.get_by_role("heading", name="My projects")).to_be_visible()

    def own_statistics(self) -> None:
        self.sign_in(self.page, self.labeler)
        self.page.goto("/projects/everyday/mine")
        expect(self.page.get_by_role("heading", name="My statistics")).to_be_visible()

    def writing_refused(self) -> None:
        self.project.task_weights = {"write": 1}
        self.session.commit()
        self.open("write/few_shot", "write")
        self.page.get_by_role("button", name="Submit").click()
        expect(self.page.get_by_role("alert")).to_be_visible()
        expect(self.page.locator("#banner")).to_be_hidden()  # it is said once


STATES = [name for name in vars(States) if not name.startswith("_") and name != "open"]


@pytest.mark.parametrize("state", STATES)
def test_every_state_is_accessible_light_and_dark_and_fits_its_window(
    state: str,
    new_page: Callable[..., Page],
    sign_in: SignIn,
    labeler: Person,
    other_labeler: Person,
    project: Project,
    session: Session,
    clock: Clock,
    make_slate: MakeSlate,
    check_accessibility: Callable[[Page], None],
) -> None:
    page = new_page(reduced_motion="reduce")  # colours are themselves at once
    getattr(States(page, sign_in, labeler, other_labeler, project, session, clock, make_slate), state)()
    schemes: list[Any] = ["light", "dark"]
    for viewport in (DESKTOP, NARROW):
        page.set_viewport_size(viewport)
        for scheme in schemes:
            page.emulate_media(color_scheme=scheme)
            check_accessibility(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


def test_without_a_script_nothing_is_offered_that_needs_one(
    new_page: Callable[..., Page], sign_in: SignIn, labeler: Person, make_slate: MakeSlate
) -> None:
    make_slate(TEXTS[:4])
    page = new_page(java_script_enabled=False)
    sign_in(page, labeler)
    page.goto("/projects/everyday/rank")
    expect(page.get_by_role("button", name="Submit")).to_be_visible()
    for name in ("Pick in order", "Differences", "Layout", "Skip…", "Undo"):
        expect(page.get_by_role("button", name=name)).to_have_count(0)
    expect(chips(page, 0)).to_have_count(0)

# ruff: noqa: F811 - fixtures are found by name
"""Drafts through what happens to pages and machines: crashes, sign-outs, other machines, pages of another version."""

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Error, Page, expect
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.labeling.models import Draft, Ranking, RankingItem
from app.labeling.task_models import Writing
from app.projects.models import Project
from tests.app.conftest import PASSWORD, Person
from tests.app.labeling.conftest import MakeSlate, ids, make_slate, save, take  # noqa: F401
from tests.browser.conftest import WebServer
from tests.browser.steps import (
    TEXTS,
    SignIn,
    chips,
    open_ranking,
    saved,
    stored_ranks,
    submitted,
    wait_until_settled,
)


def crash(page: Page) -> None:
    with contextlib.suppress(Error):
        page.goto("chrome://crash", timeout=3_000)


@pytest.mark.parametrize("server_is_down", [False, True], ids=["saved", "never saved"])
def test_a_page_that_crashes_comes_back_as_it_was(
    server_is_down: bool,
    page: Page,
    web: WebServer,
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    make_slate(TEXTS[:4])
    open_ranking(page, sign_in, labeler, project)
    if server_is_down:
        web.stop()
        page.keyboard.press("3")
        expect(page.locator("#banner")).to_contain_text("kept in this browser")
    else:
        saved(page, lambda: page.keyboard.press("3"))
    crash(page)
    if server_is_down:
        web.start()
    again = open_ranking(page.context.new_page(), sign_in, labeler, project)
    expect(chips(again, 3)).to_have_text("A")
    for rank in "124":
        again.keyboard.press({"1": "b", "2": "c", "4": "d"}[rank])
        again.keyboard.press(rank)
    wait_until_settled(again)
    submitted(again, lambda: again.keyboard.press("Control+Enter"))
    assert stored_ranks(session) == {"A": 3, "B": 1, "C": 2, "D": 4}


def test_work_is_there_after_signing_out_and_in_again_at_another_machine(
    page: Page, new_page: Callable[..., Page], labeler: Person, project: Project, make_slate: MakeSlate
) -> None:
    make_slate(TEXTS[:4])
    assert labeler.account is not None
    email = labeler.account.email

    def enter(place: Page) -> Page:
        place.goto("/sign-in?next=/projects/everyday/rank")
        place.get_by_label("E-mail").fill(email)
        place.get_by_label("Password").fill(PASSWORD)
        place.get_by_role("button", name="Sign in").click()
        expect(place.locator("html[data-ready=rank]")).to_be_attached()
        return place

    enter(page)
    order = page.locator(".completion .text").all_inner_texts()
    saved(page, lambda: page.keyboard.press("2"))
    page.locator(".menu-right summary").click()
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in**")
    page.goto("/projects/everyday/rank")
    expect(page.locator(".completion")).to_have_count(0)  # whoever sits here next reads nothing
    elsewhere = enter(new_page())
    assert elsewhere.locator(".completion .text").all_inner_texts() == order
    expect(chips(elsewhere, 2)).to_have_text("A")
    saved(elsewhere, lambda: elsewhere.keyboard.press("1"))
    expect(chips(enter(page), 1)).to_have_text("A")  # and back at the first one, what was done since


def test_what_was_done_without_a_network_is_one_undo_away_when_another_machine_went_on(
    page: Page,
    new_page: Callable[..., Page],
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
) -> None:
    make_slate(TEXTS[:4])
    open_ranking(page, sign_in, labeler, project)
    page.route("**/draft", lambda route: route.abort())
    page.keyboard.press("4")
    expect(page.locator("#banner")).to_contain_text("kept in this browser")
    page.close(run_before_unload=False)
    elsewhere = open_ranking(new_page(), sign_in, labeler, project)
    saved(elsewhere, lambda: elsewhere.keyboard.press("1"))
    again = open_ranking(page.context.new_page(), sign_in, labeler, project)
    expect(chips(again, 1)).to_have_text("A")  # the newer one, of the server
    expect(again.locator("#banner")).to_contain_text("Undo brings back yours")
    again.keyboard.press("u")
    expect(chips(again, 4)).to_have_text("A")
    again.reload()
    expect(chips(again, 4)).to_have_text("A")
    expect(again.locator("#banner")).to_be_hidden()


OLD = {
    "missing fields": lambda first: {"ranks": {first: 2}},
    "unknown fields": lambda first: {"ranks": {first: 2}, "stars": {first: 5}, "version": "0.1", "flags": {}},
    "fields of another kind": lambda first: {
        "ranks": {first: 2},
        "qualities": [1, 2],
        "flags": {first: "Hallucination"},
        "note": {"text": "hm"},
        "strength": 3,
        "is_safe": "yes",
        "active_s": "long",
        "idle_s": None,
    },
    "completions that are no more": lambda first: {
        "ranks": {first: 2, "00000000-0000-4000-8000-000000000000": 1},
        "qualities": {"x": 3},
    },
}


@pytest.mark.parametrize("content", OLD.values(), ids=OLD.keys())
def test_a_draft_that_another_version_of_the_page_left_on_the_server_is_read_as_far_as_it_is_known(
    content: Callable[[str], dict[str, Any]],
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    make_slate(TEXTS[:4])
    (lease,) = take(labeler, project)
    assert save(labeler, lease, 0, ranks={}, note="x").status_code == 200
    session.execute(update(Draft).values(content=content(ids(lease)[0])))
    session.commit()
    open_ranking(page, sign_in, labeler, project)
    expect(chips(page, 2)).to_have_text("A")
    expect(chips(page, 0)).to_have_count(3)
    expect(page.locator("input[name^=quality]:checked")).to_have_count(0)
    expect(page.locator(".flags input:checked")).to_have_count(0)
    for key in "b1c3d4":
        page.keyboard.press(key)
    wait_until_settled(page)
    submitted(page, lambda: page.keyboard.press("Control+Enter"))
    assert stored_ranks(session) == {"A": 2, "B": 1, "C": 3, "D": 4}
    ranking = session.scalars(select(Ranking)).one()
    assert 0 <= (ranking.active_s or 0) < 60
    assert session.scalars(select(RankingItem.quality)).all() == [None] * 4


@pytest.mark.parametrize(
    "kept", ["{", '"text"', "[]", "7", "null", '{"revision": "x"}', '{"content": 3, "revision": 0}']
)
def test_a_copy_in_the_browser_that_cannot_be_read_costs_nothing(
    kept: str,
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    slate = make_slate(TEXTS[:4])
    assert labeler.account is not None
    first = min(str(completion.id) for completion in slate.completions)
    for key in (f"draft.{first}", "outbox.everyday", "outbox.everyday.x", "last.everyday"):
        item = json.dumps(f"podium.{labeler.account.id}.{key}")
        page.add_init_script(f"localStorage.getItem({item}) ?? localStorage.setItem({item}, {json.dumps(kept)})")
    open_ranking(page, sign_in, labeler, project)
    for key in "a1b2c3d4":
        page.keyboard.press(key)
    wait_until_settled(page)
    submitted(page, lambda: page.keyboard.press("Control+Enter"))
    assert stored_ranks(session) == {"A": 1, "B": 2, "C": 3, "D": 4}


WRITTEN = {
    "missing fields": {"answer": "So."},
    "unknown fields": {"answer": "So.", "title": "Old", "prompt": "Why?", "tone": 3},
    "fields of another kind": {
        "answer": "So.",
        "prompt": ["Why?"],
        "pairs": "none",
        "turns": {"a": 1},
        "active_s": "x",
    },
}


@pytest.mark.parametrize("content", WRITTEN.values(), ids=WRITTEN.keys())
def test_a_piece_of_writing_that_another_version_of_the_page_left_is_read_as_far_as_it_is_known(
    content: dict[str, Any], page: Page, sign_in: SignIn, labeler: Person, project: Project, session: Session
) -> None:
    project.task_weights = {"write": 1}
    session.commit()
    sign_in(page, labeler)
    page.goto("/projects/everyday/write/plain")
    saved(page, lambda: page.get_by_label("Answer", exact=True).fill("x"))
    session.execute(update(Writing).values(content=content))
    session.commit()
    page.goto("/projects/everyday/write/plain")
    expect(page.locator("html[data-ready=write]")).to_be_attached()
    expect(page.get_by_label("Answer", exact=True)).to_have_value("So.")
    page.get_by_label("Prompt", exact=True).fill("Why?")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_text("What you wrote lately")).to_be_visible()

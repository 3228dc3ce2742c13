# ruff: noqa: F811 - fixtures are found by name
"""What could lose a labeler's work, and does not: a server that goes down, a lease that runs out, tabs, old pages."""

import json
from collections.abc import Callable
from datetime import timedelta

from playwright.sync_api import Page, Route, expect
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.labeling.models import Draft, Lease, LeaseEnd, Ranking, RankingItem, SlateKind
from app.projects.models import Guidelines, Project
from tests.app.conftest import Person
from tests.app.labeling.conftest import Clock, MakeSlate, clock, make_slate, submit, take  # noqa: F401
from tests.browser.conftest import WebServer
from tests.browser.steps import (
    TEXTS,
    SignIn,
    card,
    chips,
    num_rankings,
    open_ranking,
    rank_all,
    saved,
    stored_ranks,
    submitted,
    wait_until_settled,
)


def test_a_server_that_goes_down_costs_nothing_and_gets_every_ranking_once_when_it_is_back(
    page: Page,
    web: WebServer,
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
    web.stop()
    for number in range(2):
        expect(page.locator(".prompt")).to_contain_text(f"Prompt {number}")
        rank_all(page)
        wait_until_settled(page)
        page.keyboard.press("Control+Enter")
    expect(page.locator("#banner")).to_contain_text("2 rankings wait to be sent")
    assert num_rankings(session) == 0
    web.start()
    expect(page.locator(".prompt")).to_contain_text("Prompt 2")  # it asks again every few seconds
    expect(page.locator("#banner")).to_be_hidden()
    assert num_rankings(session) == 2
    page.reload()
    expect(page.locator(".prompt")).to_contain_text("Prompt 2")
    assert num_rankings(session) == 2


def test_a_draft_made_while_the_server_was_down_outlives_the_tab(
    page: Page, web: WebServer, sign_in: SignIn, labeler: Person, project: Project, make_slate: MakeSlate
) -> None:
    make_slate(TEXTS[:4])
    open_ranking(page, sign_in, labeler, project)
    web.stop()
    page.keyboard.press("3")
    expect(page.locator("#banner")).to_contain_text("kept in this browser")
    page.close(run_before_unload=False)
    web.start()
    again = page.context.new_page()
    saved(again, lambda: open_ranking(again, sign_in, labeler, project) and None)
    expect(chips(again, 3)).to_have_text("A")


def test_between_a_submit_and_the_next_text_nothing_waits_for_the_network(
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    for number in range(2):
        make_slate(TEXTS[:4], prompt=f"Prompt {number}")
    with page.expect_response(lambda response: response.url.endswith("/screens")):
        open_ranking(page, sign_in, labeler, project)
    held: list[Route] = []
    page.route("**/*", lambda route: held.append(route))  # from now on no answer comes
    rank_all(page)
    wait_until_settled(page)
    page.keyboard.press("Control+Enter")
    expect(page.locator(".prompt")).to_contain_text("Prompt 1")
    assert num_rankings(session) == 0
    assert any(route.request.url.endswith("/ranking") for route in held)
    for route in held:
        route.abort()


def test_a_lease_that_was_lost_and_is_free_again_goes_on_with_its_work(
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    other_labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    clock: Clock,
    session: Session,
) -> None:
    make_slate(TEXTS[:4])
    open_ranking(page, sign_in, labeler, project)
    order = page.locator(".completion .text").all_inner_texts()
    saved(page, lambda: page.keyboard.press("2"))
    clock.advance(timedelta(seconds=project.lease_duration_s + 1))
    assert len(take(other_labeler, project)) == 1
    clock.advance(timedelta(seconds=project.lease_duration_s + 1))
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # they come back to the tab
    expect(page.locator("#banner")).to_contain_text("yours again, with your work")
    assert page.locator(".completion .text").all_inner_texts() == order
    expect(chips(page, 2)).to_have_text("A")
    card(page, "B").focus()
    for rank in "134":
        page.keyboard.press(rank)
    wait_until_settled(page)
    submitted(page, lambda: page.keyboard.press("Control+Enter"))
    assert stored_ranks(session) == {"A": 2, "B": 1, "C": 3, "D": 4}
    assert session.scalars(select(Ranking.counted)).one()


def test_work_on_a_slate_that_others_took_meanwhile_is_stored_beside_those_that_count(
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    other_labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    clock: Clock,
    session: Session,
) -> None:
    make_slate(TEXTS[:4])
    open_ranking(page, sign_in, labeler, project)
    saved(page, lambda: rank_all(page))
    clock.advance(timedelta(seconds=project.lease_duration_s + 1))
    (lease,) = take(other_labeler, project)
    assert submit(other_labeler, lease).status_code == 201
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("#banner")).to_contain_text("You may still submit")
    submitted(page, lambda: page.keyboard.press("Control+Enter"))
    expect(page.locator("#banner")).to_contain_text("kept, beside the rankings that count")
    session.rollback()
    assert sorted(session.scalars(select(Ranking.counted))) == [False, True]


def test_of_two_tabs_that_submit_the_same_slate_the_first_one_stands(
    page: Page,
    new_page: Callable[..., Page],
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    make_slate(TEXTS[:4], prompt="The first")
    make_slate(TEXTS[:4], prompt="The second")
    first = open_ranking(page, sign_in, labeler, project)
    second = open_ranking(new_page(), sign_in, labeler, project)
    second.route("**/draft", lambda route: route.abort())
    rank_all(first, "1234")
    rank_all(second, "4321")
    wait_until_settled(first)
    submitted(first, lambda: first.keyboard.press("Control+Enter"))
    second.keyboard.press("Control+Enter")
    expect(second.locator("#banner")).to_contain_text("the first ranking stands")
    expect(second.locator(".prompt")).to_contain_text("The second")
    assert stored_ranks(session) == {"A": 1, "B": 2, "C": 3, "D": 4}


def test_a_ranking_that_is_refused_comes_back_as_it_was_left(
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    make_slate(["Yes.", "No."], kind=SlateKind.PAIR)
    open_ranking(page, sign_in, labeler, project)
    project.asks_safety = True  # since the page was drawn
    session.commit()
    page.keyboard.press("2")
    wait_until_settled(page)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#banner")).to_contain_text("whether they are safe")
    expect(page.get_by_role("radio", name="A is better", exact=True)).to_be_checked()
    page.get_by_label("Both", exact=True).check(force=True)
    wait_until_settled(page)
    submitted(page, lambda: page.keyboard.press("Control+Enter"))
    assert stored_ranks(session) == {"A": 1, "B": 2}
    assert list(session.scalars(select(RankingItem.is_safe))) == [True, True]


def test_a_draft_of_another_version_of_the_page_is_read_as_far_as_it_is_known(
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    slate = make_slate(TEXTS[:4])
    (lease,) = take(labeler, project)
    first, second, *_ = [completion["id"] for completion in lease["completions"]]
    old = {
        "ranks": {first: 2, second: 99, "no id": 1, "00000000-0000-4000-8000-000000000000": 1},
        "qualities": "none",
        "flags": {first: "Hallucination"},
        "stars": {first: 5},
        "strength": "hugely",
        "active_s": -3,
        "note": "still here",
    }
    key = f"podium.{labeler.account.id}.draft.{min(str(completion.id) for completion in slate.completions)}"  # type: ignore[union-attr]
    kept = json.dumps({"content": old, "revision": 0})
    page.add_init_script(f"localStorage.setItem({json.dumps(key)}, {json.dumps(kept)})")
    saved(page, lambda: open_ranking(page, sign_in, labeler, project) and None)
    expect(chips(page, 2)).to_have_text("A")
    expect(chips(page, 0)).to_have_count(3)
    expect(page.locator(".slate-note textarea")).to_have_value("still here")
    session.rollback()
    assert session.scalars(select(Draft)).one().content == {"ranks": {first: 2}, "note": "still here"}


def test_signing_out_elsewhere_keeps_the_work_until_the_next_sign_in(
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    person: Callable[..., Person],
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    make_slate(TEXTS[:4])
    open_ranking(page, sign_in, labeler, project)
    page.context.clear_cookies()
    rank_all(page)
    expect(page.locator("#banner")).to_contain_text("You are signed out")
    expect(page.locator("#banner").get_by_role("link", name="Sign in")).to_be_visible()
    wait_until_settled(page)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#banner")).to_contain_text("One ranking waits")
    assert num_rankings(session) == 0
    submitted(page, lambda: open_ranking(page, sign_in, labeler, project) and None)
    assert stored_ranks(session) == {"A": 1, "B": 2, "C": 3, "D": 4}


def test_a_project_that_was_paused_still_takes_what_is_in_hand(
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    make_slate(TEXTS[:4])
    open_ranking(page, sign_in, labeler, project)
    project.paused_at = session.scalar(select(func.now()))
    session.commit()
    rank_all(page)
    wait_until_settled(page)
    submitted(page, lambda: page.keyboard.press("Control+Enter"))
    expect(page.locator("#banner")).to_contain_text("paused")
    assert session.scalars(select(Lease.end)).one() is LeaseEnd.SUBMITTED


def test_a_save_whose_answer_was_lost_is_sent_again_as_it_was_and_is_no_other_tabs_work(
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    make_slate(TEXTS[:4])
    open_ranking(page, sign_in, labeler, project)
    bodies: list[str | None] = []

    def lose_the_first_answer(route: Route) -> None:
        bodies.append(route.request.post_data)
        if len(bodies) == 1:
            route.fetch()
            route.abort()
        else:
            route.continue_()

    page.route("**/draft", lose_the_first_answer)
    page.keyboard.press("1")
    expect(page.locator("#banner")).to_contain_text("cannot be reached")
    with page.expect_response(lambda response: len(json.loads(response.request.post_data)["content"]["ranks"]) == 2):
        card(page, "B").focus()
        page.keyboard.press("2")  # and time at work goes on: what there is to say now is another draft
    assert bodies[1] == bodies[0]
    expect(page.locator("#banner")).to_be_hidden()
    draft = session.scalars(select(Draft)).one()
    assert sorted(draft.content["ranks"].values()) == [1, 2]


def test_work_that_never_left_this_browser_is_one_undo_away_when_it_went_on_elsewhere(
    page: Page,
    new_page: Callable[..., Page],
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    make_slate(TEXTS[:4])
    open_ranking(page, sign_in, labeler, project)
    page.route("**/draft", lambda route: route.abort())
    page.keyboard.press("3")
    expect(page.locator("#banner")).to_contain_text("kept in this browser")
    elsewhere = open_ranking(new_page(), sign_in, labeler, project)
    saved(elsewhere, lambda: elsewhere.keyboard.press("1"))
    page.unroute("**/draft")
    page.reload()
    expect(page.locator("#banner")).to_contain_text("in another tab or on another machine")
    expect(chips(page, 1)).to_have_text("A")
    saved(page, page.get_by_role("button", name="Undo").click)
    expect(chips(page, 3)).to_have_text("A")


def test_time_at_work_and_time_away_are_kept_apart(
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    page.clock.install()
    make_slate(TEXTS[:4])
    open_ranking(page, sign_in, labeler, project)

    def begin() -> None:
        page.keyboard.press("1")
        page.clock.run_for(1_000)

    saved(page, begin)  # or the page's patience would run out with its clock
    page.clock.run_for(29_000)
    page.clock.run_for(600_000)  # nobody there
    for rank in "234":
        page.keyboard.press(rank)
    page.clock.run_for(10_000)
    submitted(page, lambda: page.keyboard.press("Control+Enter"))
    ranking = session.scalars(select(Ranking)).one()
    assert ranking.active_s is not None
    assert ranking.idle_s is not None
    assert 60 <= ranking.active_s <= 80  # a minute passes before no key means away
    assert 560 <= ranking.idle_s <= 580


def test_new_guidelines_are_shown_once_the_work_in_hand_is_submitted(
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    make_slate(TEXTS[:4])
    open_ranking(page, sign_in, labeler, project)
    session.add(Guidelines(project_id=project.id, version=2, markdown="# Now look for brevity"))
    session.commit()
    rank_all(page)
    wait_until_settled(page)
    submitted(page, lambda: page.keyboard.press("Control+Enter"))
    expect(page.get_by_role("heading", name="Now look for brevity")).to_be_visible()
    assert num_rankings(session) == 1

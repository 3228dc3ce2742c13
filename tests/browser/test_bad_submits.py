# ruff: noqa: F811 - fixtures are found by name
"""Submits that meet a world that has changed: other people, other tabs, pauses, a new policy. Each is kept, once."""

from collections.abc import Callable
from uuid import uuid4

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import db
from app.labeling.models import Draft, Ranking, RankingItem, Slate, SlateState
from app.people.models import Labeler, Membership
from app.policies.models import PolicyState
from app.policies.promotion import promote
from app.projects.models import Project
from tests.app.conftest import Person
from tests.app.labeling.conftest import MakeSlate, make_slate, submit, take  # noqa: F401
from tests.app.loop import make_version
from tests.browser.conftest import WebServer
from tests.browser.steps import (
    TEXTS,
    SignIn,
    card,
    chips,
    open_ranking,
    rank_all,
    stored_ranks,
    submitted,
    wait_until_settled,
)

IN_ORDER = {"A": 1, "B": 2, "C": 3, "D": 4}


def press_submit(page: Page) -> None:
    wait_until_settled(page)
    page.keyboard.press("Control+Enter")


def rankings(session: Session) -> list[Ranking]:
    session.rollback()
    return list(session.scalars(select(Ranking).order_by(Ranking.submitted_at)))


def submit_as_the_page_does(page: Page, lease_id: str, completion_ids: list[str]) -> int:
    """The status of a submit that the page's own sign-in and proof go with."""
    form = {"ranking_id": str(uuid4()), "ranks": {each: place for place, each in enumerate(completion_ids, start=1)}}
    status: int = page.evaluate(
        """([path, form]) => fetch(path, {
            method: "POST",
            headers: {
                "Content-Type": "application/json",
                "X-CSRF-Token": document.querySelector("meta[name=csrf-token]").content,
            },
            body: JSON.stringify(form),
        }).then((response) => response.status)""",
        [f"/api/v1/leases/{lease_id}/ranking", form],
    )
    return status


def ids_shown(page: Page) -> list[str]:
    shown: list[str] = page.locator(".completion").evaluate_all("cards => cards.map((card) => card.dataset.id)")
    return shown


def lease_shown(page: Page) -> str:
    return page.locator("form.slate").get_attribute("data-lease") or ""


def test_of_two_people_who_submit_the_same_lease_only_its_owner_is_heard(
    page: Page,
    new_page: Callable[..., Page],
    sign_in: SignIn,
    labeler: Person,
    other_labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    make_slate(TEXTS[:4], overlap=2)
    owner = open_ranking(page, sign_in, labeler, project)
    other = open_ranking(new_page(), sign_in, other_labeler, project)
    assert submit_as_the_page_does(other, lease_shown(owner), ids_shown(owner)) == 404
    assert rankings(session) == []
    rank_all(owner)
    submitted(owner, lambda: press_submit(owner))
    assert submit_as_the_page_does(other, lease_shown(other), ids_shown(other)) == 201  # their own is taken
    by = [session.get_one(Labeler, ranking.labeler_id).account_id for ranking in rankings(session)]
    assert labeler.account is not None
    assert other_labeler.account is not None
    assert by == [labeler.account.id, other_labeler.account.id]


def test_whoever_signs_in_at_the_same_browser_never_submits_the_work_of_the_one_before(
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    other_labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    make_slate(TEXTS[:4], overlap=2)
    open_ranking(page, sign_in, labeler, project)
    rank_all(page, "4321")
    sign_in(page, other_labeler)  # in another tab
    press_submit(page)
    expect(page.locator("#banner")).to_contain_text("One ranking waits to be sent")
    page.reload()  # now it is the other one's page
    expect(page.locator("html[data-ready=rank]")).to_be_attached()
    expect(chips(page, 0)).to_have_count(4)
    assert rankings(session) == []
    submitted(page, lambda: open_ranking(page, sign_in, labeler, project) and None)
    (ranking,) = rankings(session)
    assert labeler.account is not None
    assert session.get_one(Labeler, ranking.labeler_id).account_id == labeler.account.id
    assert stored_ranks(session) == {"A": 4, "B": 3, "C": 2, "D": 1}


def test_a_tab_whose_ranking_another_tab_has_sent_no_longer_says_that_it_waits(
    page: Page, sign_in: SignIn, labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    make_slate(TEXTS[:4], prompt="The first")
    make_slate(TEXTS[:4], prompt="The second")
    open_ranking(page, sign_in, labeler, project)
    page.route("**/ranking", lambda route: route.abort())
    rank_all(page)
    press_submit(page)
    expect(page.locator("#banner")).to_contain_text("One ranking waits to be sent")
    other = page.context.new_page()
    submitted(other, lambda: open_ranking(other, sign_in, labeler, project) and None)
    expect(page.locator("#banner:not([hidden])")).to_have_count(0)
    assert stored_ranks(session) == IN_ORDER


def test_two_tabs_of_one_browser_send_what_waits_once_when_the_server_is_back(
    page: Page,
    web: WebServer,
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    make_slate(TEXTS[:4], prompt="The first")
    make_slate(TEXTS[:4], prompt="The second")
    open_ranking(page, sign_in, labeler, project)
    other = page.context.new_page()
    with other.expect_response(lambda response: response.url.endswith("/screens")):
        open_ranking(other, sign_in, labeler, project)
    web.stop()
    rank_all(page)
    press_submit(page)
    rank_all(other, "4321")
    press_submit(other)
    expect(other.locator("#banner")).to_contain_text("2 rankings wait to be sent")
    web.start()
    for tab in (page, other):
        expect(tab.locator("#banner:not([hidden])", has_text="cannot be reached")).to_have_count(0)
        expect(tab.locator(".prompt")).to_contain_text("The second")
    told = [tab.locator("#banner").filter(has_text="first ranking stands").count() for tab in (page, other)]
    assert sum(told) >= 1
    assert stored_ranks(session) == IN_ORDER
    assert [key for key in page.evaluate("Object.keys(localStorage)") if ".outbox." in key] == []


def test_a_tab_shows_the_next_slate_when_another_tab_has_submitted_this_one(
    page: Page, sign_in: SignIn, labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    make_slate(TEXTS[:4], prompt="The first")
    make_slate(TEXTS[:4], prompt="The second")
    open_ranking(page, sign_in, labeler, project)
    other = page.context.new_page()
    open_ranking(other, sign_in, labeler, project)
    rank_all(page)
    submitted(page, lambda: press_submit(page))
    card(other, "A").focus()
    other.keyboard.press("2")  # its save is refused: the slate was submitted
    expect(other.locator("#banner")).to_contain_text("submitted or given back in another tab")
    expect(other.locator(".prompt")).to_contain_text("The second")
    session.rollback()
    assert session.scalars(select(Draft)).all() == []
    assert stored_ranks(session) == IN_ORDER


def test_a_submit_is_sent_although_the_browser_has_no_room_left_to_keep_it(
    page: Page, sign_in: SignIn, labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    for number in range(3):
        make_slate(TEXTS[:4], prompt=f"Prompt {number}")
    open_ranking(page, sign_in, labeler, project)
    rank_all(page)
    submitted(page, lambda: press_submit(page))
    expect(page.locator(".prompt")).to_contain_text("Prompt 1")
    page.evaluate(
        """() => {
            for (let size = 1 << 22; size >= 1; size = size >> 1) {
                try {
                    for (let number = 0; ; number += 1) localStorage.setItem(`${size} ${number}`, "x".repeat(size));
                } catch {}
            }
        }"""
    )
    rank_all(page)
    submitted(page, lambda: press_submit(page))
    expect(page.locator(".prompt")).to_contain_text("Prompt 2")
    assert len(rankings(session)) == 2


@pytest.fixture
def membership(labeler: Person, session: Session) -> Membership:
    assert labeler.account is not None
    return session.scalars(select(Membership).where(Membership.account_id == labeler.account.id)).one()


def test_somebody_paused_in_the_middle_hands_in_what_they_began_and_gets_no_more(
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    membership: Membership,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    make_slate(TEXTS[:4], prompt="In hand")
    with page.expect_response(lambda response: response.url.endswith("/screens")):  # what it would fetch ahead
        open_ranking(page, sign_in, labeler, project)
    make_slate(TEXTS[:4], prompt="Not for them")
    membership.paused_at = db.clock(session)
    session.commit()
    rank_all(page)
    submitted(page, lambda: press_submit(page))
    expect(page.locator("#banner")).to_contain_text("paused")
    expect(page.locator(".prompt")).to_have_count(0)
    assert [ranking.counted for ranking in rankings(session)] == [True]
    membership.paused_at = None
    session.commit()
    expect(page.locator(".prompt")).to_contain_text("Not for them")  # it asks every few seconds
    expect(page.locator("#banner")).to_be_hidden()


def promote_a_new_policy(session: Session, project: Project) -> None:
    version = make_version(session, project, 2, PolicyState.CANDIDATE)
    promote(session, project, version, account=None, now=db.clock(session))
    session.commit()


def test_what_was_begun_on_the_old_policy_counts_after_a_new_one_was_promoted(
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    begun = make_slate(TEXTS[:4], prompt="In hand")
    with page.expect_response(lambda response: response.url.endswith("/screens")):  # what it would fetch ahead
        open_ranking(page, sign_in, labeler, project)
    unstarted = make_slate(TEXTS[:4], prompt="Of the old policy")
    promote_a_new_policy(session, project)
    rank_all(page)
    submitted(page, lambda: press_submit(page))
    expect(page.locator("#waiting")).to_be_visible()
    expect(page.locator("#banner")).to_be_hidden()
    assert [(ranking.slate_id, ranking.counted) for ranking in rankings(session)] == [(begun.id, True)]
    states = {row.id: row.state for row in session.execute(select(Slate.id, Slate.state))}
    assert states == {begun.id: SlateState.DONE, unstarted.id: SlateState.RETIRED}


def test_what_was_begun_before_the_policy_changed_twice_and_its_lease_ran_out_is_still_kept(
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    slate = make_slate(TEXTS[:4])
    open_ranking(page, sign_in, labeler, project)
    slate.state, slate.retired_at = SlateState.RETIRED, db.clock(session)
    session.commit()
    rank_all(page)
    submitted(page, lambda: press_submit(page))
    assert stored_ranks(session) == IN_ORDER
    assert session.scalar(select(func.count()).select_from(RankingItem)) == 4

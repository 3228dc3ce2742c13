# ruff: noqa: F811 - fixtures are found by name
"""A browser whose clock is hours off, either way: slates are held, kept, counted and submitted as anywhere else."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.labeling.models import Demonstration, Draft, Lease, Ranking
from app.projects.models import Project
from tests.app.conftest import Person
from tests.app.labeling.conftest import MakeSlate, make_slate, submit, take  # noqa: F401
from tests.browser.steps import TEXTS, SignIn, card, chips, open_ranking, stored_ranks, wait_until_settled

OFF = [timedelta(hours=11), timedelta(0), timedelta(hours=-11)]


def set_clock(page: Page, off: timedelta) -> None:
    """The browser's idea of the time; its timers run on."""
    page.clock.set_system_time(datetime.now(UTC) + off)


@pytest.mark.parametrize("off", OFF, ids=str)
def test_a_slate_is_drafted_reopened_and_submitted_under_a_clock_that_is_wrong(
    off: timedelta,
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    make_slate(TEXTS[:4], prompt="The first")
    make_slate(TEXTS[:4], prompt="The second")
    set_clock(page, off)
    open_ranking(page, sign_in, labeler, project)
    with page.expect_response(lambda response: response.url.endswith("/draft") and response.status == 200):
        page.keyboard.press("2")
    expect(page.locator(".saved")).to_have_text("saved")
    page.reload()
    expect(chips(page, 2)).to_have_text("A")
    card(page, "B").focus()
    for rank in "134":
        page.keyboard.press(rank)
    wait_until_settled(page)
    with page.expect_response(lambda response: response.url.endswith("/ranking") and response.status == 201):
        page.keyboard.press("Control+Enter")
    expect(page.locator(".prompt")).to_contain_text("The second")
    assert stored_ranks(session) == {"A": 2, "B": 1, "C": 3, "D": 4}
    now = session.scalar(select(func.now()))
    ranking = session.scalars(select(Ranking)).one()
    assert abs(now - ranking.submitted_at) < timedelta(minutes=5)  # the database's time
    assert ranking.counted
    assert 0 <= (ranking.active_s or 0) < 60
    assert all(lease.expires_at > now for lease in session.scalars(select(Lease).where(Lease.closed_at.is_(None))))


@pytest.mark.parametrize("off", OFF[::2], ids=str)
def test_a_clock_that_is_set_in_the_middle_of_a_slate_counts_no_time_and_loses_no_work(
    off: timedelta,
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    make_slate(TEXTS[:4])
    set_clock(page, timedelta(0))
    open_ranking(page, sign_in, labeler, project)
    page.keyboard.press("1")
    set_clock(page, off)
    for rank in "234":
        page.keyboard.press(rank)
    wait_until_settled(page)
    with page.expect_response(lambda response: response.url.endswith("/ranking") and response.status == 201):
        page.keyboard.press("Control+Enter")
    ranking = session.scalars(select(Ranking)).one()
    assert 0 <= (ranking.active_s or 0) < 60
    assert 0 <= (ranking.idle_s or 0) < 60
    assert stored_ranks(session) == {"A": 1, "B": 2, "C": 3, "D": 4}


@pytest.mark.parametrize("off", OFF[::2], ids=str)
def test_of_two_machines_the_one_that_saved_last_is_newer_whatever_its_clock_says(
    off: timedelta,
    page: Page,
    new_page: Callable[..., Page],
    sign_in: SignIn,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    make_slate(TEXTS[:4])
    set_clock(page, off)
    wrong = open_ranking(page, sign_in, labeler, project)
    right = open_ranking(new_page(), sign_in, labeler, project)
    with wrong.expect_response(lambda response: response.url.endswith("/draft") and response.status == 200):
        wrong.keyboard.press("3")
    with right.expect_response(lambda response: response.url.endswith("/draft") and response.status == 409):
        right.keyboard.press("1")
    expect(chips(right, 3)).to_have_text("A")
    draft = session.scalars(select(Draft)).one()
    assert list(draft.content["ranks"].values()) == [3]


@pytest.mark.parametrize("off", OFF[::2], ids=str)
def test_a_piece_of_writing_is_kept_and_submitted_under_a_clock_that_is_wrong(
    off: timedelta, page: Page, sign_in: SignIn, labeler: Person, project: Project, session: Session
) -> None:
    project.task_weights = {"write": 1}
    session.commit()
    set_clock(page, off)
    sign_in(page, labeler)
    page.goto("/projects/everyday/write/plain")
    expect(page.locator("html[data-ready=write]")).to_be_attached()
    with page.expect_response(lambda response: response.url.endswith("/draft") and response.status == 200):
        page.get_by_label("Prompt", exact=True).fill("Why?")
    page.reload()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("Why?")
    page.get_by_label("Answer", exact=True).fill("So.")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_text("What you wrote lately")).to_be_visible()
    demonstration = session.scalars(select(Demonstration)).one()
    assert demonstration.text == "So."
    assert 0 <= (demonstration.active_s or 0) < 60


def test_the_day_of_a_labeler_begins_at_their_own_midnight(
    new_page: Callable[..., Page], sign_in: SignIn, labeler: Person, project: Project, make_slate: MakeSlate
) -> None:
    for number in range(3):
        make_slate(TEXTS[:4], prompt=f"Prompt {number}")
    (lease,) = take(labeler, project)
    assert submit(labeler, lease).status_code == 201
    page = new_page(timezone_id="Pacific/Kiritimati")  # 14 hours ahead
    with page.expect_request(re.compile("/screens$")) as asked:
        open_ranking(page, sign_in, labeler, project)
    since = datetime.fromisoformat(asked.value.post_data_json["since"])
    assert since.astimezone(UTC).hour == 10
    expect(page.locator(".place")).to_have_text("slate 2 today")

# ruff: noqa: F811 - fixtures are found by name
"""The mix of tasks in a real browser: after each one comes the next by the weights, and nothing is lost on the way."""

from playwright.sync_api import Page, Route, expect
from sqlalchemy.orm import Session

from app.projects.models import Project
from tests.app.conftest import Person
from tests.app.labeling.conftest import MakeSlate, make_slate, submit, take  # noqa: F401
from tests.browser.steps import (
    TEXTS,
    SignIn,
    num_rankings,
    open_page,
    open_ranking,
    rank_all,
    submitted,
    wait_until_settled,
)

ROOT = "/projects/everyday"


def mix(session: Session, project: Project, **weights: float) -> None:
    project.task_weights = weights
    session.commit()


def until_another(page: Page) -> int:
    return int(page.locator("#slates").get_attribute("data-until-another") or 0)


def open_before_the_last_ranking(
    page: Page, sign_in: SignIn, labeler: Person, project: Project, session: Session
) -> int:
    """The ranking page, where another task is due after one more slate; returns how many were ranked before."""
    while until_another(open_ranking(page, sign_in, labeler, project)) > 1:
        assert submit(labeler, take(labeler, project)[0]).status_code == 201
    with page.expect_response("**/screens"):
        page.reload()
    return num_rankings(session)


def rank_and_submit(page: Page) -> None:
    rank_all(page)
    wait_until_settled(page)
    page.keyboard.press("Control+Enter")


def test_the_ranking_page_goes_to_another_task_when_it_is_due_and_not_before(
    page: Page, sign_in: SignIn, labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    mix(session, project, rank=2, write=1)
    for number in range(8):
        make_slate(TEXTS[:4], prompt=f"Prompt {number}")
    open_ranking(page, sign_in, labeler, project)
    due = until_another(page)
    for number in range(due):
        expect(page.locator(".prompt")).to_contain_text(f"Prompt {number}")
        rank_and_submit(page)
    page.wait_for_url(f"**{ROOT}/write/plain")
    assert num_rankings(session) == due
    page.get_by_label("Prompt", exact=True).fill("Why?")
    page.get_by_label("Answer", exact=True).fill("So.")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("html[data-ready=rank]")).to_be_attached()  # no two in a row of what is one in three
    expect(page.locator(".prompt")).to_contain_text(f"Prompt {due}")


def test_where_rankings_are_all_that_is_asked_the_page_is_never_left(
    page: Page, sign_in: SignIn, labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    for number in range(3):
        make_slate(TEXTS[:4], prompt=f"Prompt {number}")
    open_ranking(page, sign_in, labeler, project)
    page.evaluate("window.isTheSame = true")
    for number in range(3):
        expect(page.locator(".prompt")).to_contain_text(f"Prompt {number}")
        submitted(page, lambda: rank_and_submit(page))
    expect(page.get_by_role("heading", name="No slate is ready yet")).to_be_visible()
    assert page.evaluate("window.isTheSame")
    assert num_rankings(session) == 3


def test_when_no_slate_is_left_another_task_comes_at_once(
    page: Page, sign_in: SignIn, labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    mix(session, project, rank=1000, write=0.001)
    make_slate(TEXTS[:4])
    open_ranking(page, sign_in, labeler, project)
    rank_and_submit(page)
    page.wait_for_url(f"**{ROOT}/write/plain")
    assert num_rankings(session) == 1
    page.goto(f"{ROOT}/rank")  # whoever comes here by themselves is not sent away
    expect(page.locator("html[data-ready=rank]")).to_be_attached()
    page.get_by_role("link", name="go on with another task").click()
    page.wait_for_url(f"**{ROOT}/write/plain")


def test_while_the_server_is_away_ranking_goes_on_though_another_task_is_due(
    page: Page, sign_in: SignIn, labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    mix(session, project, rank=2, write=1)
    for number in range(8):
        make_slate(TEXTS[:4], prompt=f"Prompt {number}")
    done = open_before_the_last_ranking(page, sign_in, labeler, project, session)
    held: list[Route] = []
    page.route("**/ranking", lambda route: held.append(route))  # no answer comes, and no error either
    rank_and_submit(page)
    expect(page.locator(".prompt")).to_contain_text(f"Prompt {done + 1}")
    assert num_rankings(session) == done
    with page.expect_response("**/ranking"):
        held[0].continue_()
    assert num_rankings(session) == done + 1


def test_a_ranking_that_is_refused_is_told_before_any_other_task(
    page: Page, sign_in: SignIn, labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    mix(session, project, rank=2, write=1)
    for number in range(8):
        make_slate(TEXTS[:4], prompt=f"Prompt {number}")
    done = open_before_the_last_ranking(page, sign_in, labeler, project, session)
    refusal = {"code": "incomplete_ranking", "detail": "Something is missing."}
    page.route("**/ranking", lambda route: route.fulfill(status=422, json=refusal))
    rank_and_submit(page)
    expect(page.locator("#banner")).to_contain_text("Something is missing.")
    expect(page.locator(".prompt")).to_contain_text(f"Prompt {done + 1}")
    assert page.url.endswith(f"{ROOT}/rank")


def test_a_task_that_is_not_on_offer_says_what_is_and_leads_there(
    page: Page, sign_in: SignIn, labeler: Person, project: Project, session: Session
) -> None:
    mix(session, project, converse=1)
    sign_in(page, labeler)
    page.goto(f"{ROOT}/write")
    expect(page.locator("main")).to_contain_text("It asks for: conversing.")
    page.get_by_role("link", name="Go on with another task").click()
    page.wait_for_url(f"**{ROOT}/converse")


def test_the_project_switcher_leads_to_the_next_task(
    page: Page, sign_in: SignIn, labeler: Person, project: Project, session: Session
) -> None:
    mix(session, project, write=1)
    open_page(page, sign_in, labeler, "write/plain", "write")
    page.goto(f"{ROOT}/guidelines")
    page.locator("summary", has_text="Everyday requests").click()
    page.get_by_role("link", name="Everyday requests").click()
    page.wait_for_url(f"**{ROOT}/write/plain")
    page.goto("/")
    page.get_by_role("link", name="Start working").click()
    page.wait_for_url(f"**{ROOT}/write/plain")

"""Writing demonstrations in a real browser: kept through everything, submitted once, marked where it was suggested."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from playwright.sync_api import Page, Response, Route, expect
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import clock
from app.labeling.models import Demonstration
from app.labeling.task_models import Writing
from app.projects.models import Project
from app.prompts.models import Split
from app.rounds import model_requests
from tests.app.conftest import Person
from tests.app.loop import make_prompts
from tests.browser.conftest import PHONE
from tests.browser.steps import SignIn, open_page, saved


@pytest.fixture(autouse=True)
def _writing_is_on_offer(session: Session, project: Project) -> None:
    project.task_weights = {"answer": 1, "write": 1}
    project.use_cases = ["Write a letter"]
    session.commit()


@pytest.fixture
def prompt(session: Session, project: Project) -> str:
    (prompt,) = make_prompts(session, project, Split.TRAIN)
    prompt.messages = [{"role": "user", "content": "What is a **slate**?"}]
    session.commit()
    return "What is a slate?"


def open_writing(page: Page, sign_in: SignIn, person: Person, path: str) -> Page:
    return open_page(page, sign_in, person, path, "write")


def lose_the_first_save(page: Page, is_back: list[bool] | None = None) -> list[str | None]:
    """The server stores the first draft and its answer is lost; the next ones do not reach it until it is back.

    Returns what was sent so far.
    """
    bodies: list[str | None] = []

    def lose(route: Route) -> None:
        bodies.append(route.request.post_data)
        if len(bodies) == 1:
            route.fetch()
            route.abort()
        elif is_back is None or is_back:
            route.continue_()
        else:
            route.abort()

    page.route("**/draft", lose)
    return bodies


def is_saved_with(words: str) -> Callable[[Response], bool]:
    return lambda response: response.url.endswith("/draft") and words in (response.request.post_data or "")


def texts(session: Session) -> list[str]:
    session.rollback()
    return list(session.scalars(select(Demonstration.text).order_by(Demonstration.created_at)))


def test_an_answer_is_counted_previewed_and_submitted_by_keys(
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    session: Session,
    prompt: str,
    check_accessibility: Callable[[Page], None],
) -> None:
    open_writing(page, sign_in, labeler, "answer")
    expect(page.get_by_role("region", name="Prompt")).to_contain_text(prompt)
    page.get_by_label("Your answer").fill("Some *completions* of one prompt.")
    expect(page.locator("#look em")).to_have_text("completions")
    expect(page.locator("#look .lengths")).to_contain_text("tokens of at most 256")
    check_accessibility(page)
    page.get_by_label("Your answer").press("Control+Enter")
    page.wait_for_url("**/write/plain")  # no prompt is left to answer: the other task
    assert texts(session) == ["Some *completions* of one prompt."]


def test_a_draft_survives_a_refresh_and_another_machine(
    page: Page, new_page: Callable[..., Page], sign_in: SignIn, labeler: Person, session: Session
) -> None:
    open_writing(page, sign_in, labeler, "write/plain")
    saved(page, lambda: page.get_by_label("Prompt", exact=True).fill("Why?"))
    page.reload()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("Why?")
    elsewhere = open_writing(new_page(), sign_in, labeler, "write/plain")
    expect(elsewhere.get_by_label("Prompt", exact=True)).to_have_value("Why?")
    saved(elsewhere, lambda: elsewhere.get_by_label("Answer", exact=True).fill("So."))
    # The tab that was left behind does not overwrite it, and what was written there is not lost either.
    page.get_by_label("Answer", exact=True).fill("Because.")
    expect(page.locator("#banner")).to_contain_text("in another tab or on another machine")
    expect(page.get_by_label("Answer", exact=True)).to_have_value("So.")
    saved(page, page.get_by_role("button", name="Bring back what I wrote here").click)
    expect(page.get_by_label("Answer", exact=True)).to_have_value("Because.")


def test_what_is_written_without_a_network_is_kept_and_submitted_once(
    page: Page, sign_in: SignIn, labeler: Person, session: Session
) -> None:
    open_writing(page, sign_in, labeler, "write/plain")
    page.context.set_offline(True)
    page.get_by_label("Prompt", exact=True).fill("Why?")
    page.get_by_label("Answer", exact=True).fill("So.")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#banner")).to_contain_text("cannot be reached")
    expect(page.locator("#banner")).to_contain_text("waits to be sent")
    page.context.set_offline(False)
    page.wait_for_url("**/write/plain")
    expect(page.get_by_text("What you wrote lately")).to_be_visible()
    assert texts(session) == ["So."]


def test_a_submit_whose_answer_was_lost_is_stored_once(
    page: Page, sign_in: SignIn, labeler: Person, session: Session
) -> None:
    open_writing(page, sign_in, labeler, "write/plain")
    page.get_by_label("Prompt", exact=True).fill("Why?")
    page.get_by_label("Answer", exact=True).fill("So.")
    calls: list[int] = []

    def lose_the_first_answer(route: Route) -> None:
        response = route.fetch()
        calls.append(response.status)
        route.abort() if len(calls) == 1 else route.fulfill(response=response)

    page.route("**/demonstration", lose_the_first_answer)
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_text("What you wrote lately")).to_be_visible()
    assert calls == [201, 200]
    assert texts(session) == ["So."]


def test_a_save_whose_answer_was_lost_is_sent_again_as_it_was_and_is_no_other_tabs_work(
    page: Page, sign_in: SignIn, labeler: Person, session: Session
) -> None:
    open_writing(page, sign_in, labeler, "write/plain")
    bodies = lose_the_first_save(page)
    page.get_by_label("Prompt", exact=True).fill("Why?")
    expect(page.locator("#banner")).to_contain_text("cannot be reached")
    with page.expect_response(is_saved_with("So.")):
        page.get_by_label("Answer", exact=True).fill("So.")
    assert bodies[1] == bodies[0]
    expect(page.locator("#banner")).to_be_hidden()
    expect(page.locator("#saved")).to_have_text("Saved")
    session.rollback()
    writing = session.scalars(select(Writing)).one()
    assert (writing.content["prompt"], writing.content["answer"], writing.revision) == ("Why?", "So.", 2)


def test_what_was_written_after_a_save_whose_answer_was_lost_outlives_a_reload(
    page: Page, sign_in: SignIn, labeler: Person, session: Session
) -> None:
    open_writing(page, sign_in, labeler, "write/plain")
    bodies = lose_the_first_save(page, until_let_through := [])
    page.get_by_label("Prompt", exact=True).fill("Why?")
    expect(page.locator("#banner")).to_contain_text("cannot be reached")
    page.get_by_label("Answer", exact=True).fill("So.")
    until_let_through.append(True)
    with page.expect_response(is_saved_with("So.")):
        page.reload()
    assert bodies[-2] == bodies[0]
    expect(page.locator("#saved")).to_have_text("Saved")
    expect(page.locator("#banner")).to_be_hidden()
    expect(page.get_by_label("Answer", exact=True)).to_have_value("So.")


def test_what_is_missing_is_said_and_nothing_is_lost(
    page: Page, sign_in: SignIn, labeler: Person, session: Session
) -> None:
    open_writing(page, sign_in, labeler, "write/few_shot")
    page.get_by_label("Instruction").fill("Say the opposite.")
    page.get_by_label("Query").nth(0).fill("good")
    page.get_by_label("Response").nth(0).fill("bad")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("alert")).to_contain_text("at least 2 pairs")
    page.get_by_role("button", name="One more pair").click()
    page.get_by_label("Query").nth(2).fill("hot")
    page.get_by_label("Response").nth(2).fill("cold")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_text("What you wrote lately")).to_be_visible()
    assert texts(session) == ["cold"]


def test_a_text_beyond_all_measure_is_refused_in_words_and_stays_in_the_field(
    page: Page, sign_in: SignIn, labeler: Person, session: Session
) -> None:
    open_writing(page, sign_in, labeler, "write/plain")
    page.get_by_label("Prompt", exact=True).fill("Why?")
    page.get_by_label("Answer", exact=True).fill("x" * 200_000)
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("alert")).to_contain_text("at most 100000 characters")
    expect(page.get_by_label("Answer", exact=True)).to_have_value("x" * 200_000)
    page.get_by_label("Answer", exact=True).fill("So.")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_text("What you wrote lately")).to_be_visible()
    assert texts(session) == ["So."]


def test_a_suggestion_is_put_into_the_answer_by_the_labeler_alone_and_marked(
    page: Page, sign_in: SignIn, labeler: Person, session: Session, prompt: str
) -> None:
    open_writing(page, sign_in, labeler, "answer")
    page.get_by_role("button", name="Suggest an answer").click()
    expect(page.locator("#suggestion")).to_contain_text("The policy is writing")
    with page.expect_response(lambda response: "/suggestions/" in response.url and response.status == 200):
        pass
    claim = model_requests.claim_request(session, owner="s", duration=timedelta(minutes=1), now=clock(session))
    assert claim is not None
    model_requests.answer(session, claim, {"completions": [{"text": "A grey stone."}]}, now=clock(session))
    session.commit()
    expect(page.locator(".suggested")).to_have_text("A grey stone.")
    expect(page.get_by_label("Your answer")).to_have_value("")
    page.get_by_role("button", name="Put it into the answer").click()
    expect(page.get_by_label("Your answer")).to_have_value("A grey stone.")
    page.get_by_role("button", name="Submit").click()
    page.wait_for_url("**/write/plain")
    session.rollback()
    demonstration = session.scalars(select(Demonstration)).one()
    assert (demonstration.suggestion, demonstration.text) == ("A grey stone.", "A grey stone.")


def test_a_prompt_is_given_back_with_a_reason(
    page: Page, sign_in: SignIn, labeler: Person, session: Session, prompt: str
) -> None:
    open_writing(page, sign_in, labeler, "answer")
    page.get_by_text("Give it back…").click()
    page.get_by_label("Why?").select_option("The prompt makes no sense")
    page.get_by_role("button", name="Give it back").click()
    page.wait_for_url("**/write/plain")
    session.rollback()
    assert session.scalars(select(Writing.reason).where(Writing.end == "skipped")).one() == "The prompt makes no sense"


def test_what_was_submitted_is_taken_back_and_is_the_draft_again(
    page: Page, sign_in: SignIn, labeler: Person, session: Session
) -> None:
    open_writing(page, sign_in, labeler, "write/plain")
    page.get_by_label("Prompt", exact=True).fill("Why?")
    page.get_by_label("Answer", exact=True).fill("So.")
    page.get_by_role("button", name="Submit").click()
    page.get_by_role("button", name="Take back").click()
    expect(page.get_by_label("Answer", exact=True)).to_have_value("So.")
    session.rollback()
    assert session.scalars(select(Demonstration.retracted_at)).one() is not None


def test_a_whole_conversation_on_a_phone(
    new_page: Callable[..., Page],
    sign_in: SignIn,
    labeler: Person,
    session: Session,
    check_accessibility: Callable[[Page], None],
) -> None:
    page = open_writing(new_page(viewport=PHONE, has_touch=True), sign_in, labeler, "write/both_sides")
    page.get_by_label("User, turn 1").fill("Hello")
    page.get_by_label("Assistant, turn 2").fill("Hi!")
    page.get_by_role("button", name="Two more turns").tap()
    page.get_by_label("User, turn 3").fill("And you?")
    page.get_by_label("Assistant, turn 4").fill("Fine.")
    check_accessibility(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_role("button", name="Submit").tap()
    expect(page.get_by_text("What you wrote lately")).to_be_visible()
    assert sorted(texts(session)) == ["Fine.", "Hi!"]


def test_everything_is_written_and_submitted_without_a_script(
    new_page: Callable[..., Page], sign_in: SignIn, labeler: Person, session: Session
) -> None:
    page = new_page(java_script_enabled=False)
    sign_in(page, labeler)
    page.goto("/projects/everyday/write/user_based")
    page.get_by_label("Prompt", exact=True).fill("Dear aunt,")
    page.get_by_label("Answer", exact=True).fill("Thank you.")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("alert")).to_contain_text("use case")
    page.get_by_label("Use case").select_option("Write a letter")
    page.get_by_role("button", name="Submit").click()
    assert texts(session) == ["Thank you."]

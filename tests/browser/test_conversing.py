"""Conversing in a real browser: replies appear one by one, one is chosen, and nothing that was said is lost."""

import re
from collections.abc import Callable
from random import Random

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.labeling import conversation_replies
from app.labeling.models import Completion, Demonstration, Ranking, RankingItem
from app.labeling.task_models import ConversationTurn, Writing
from app.projects.models import Project
from tests.app.conftest import Person
from tests.app.labeling.test_conversations import TEXTS, claim, fill
from tests.browser.conftest import PHONE
from tests.browser.steps import SignIn, open_page, saved


@pytest.fixture(autouse=True)
def _conversing_is_on_offer(session: Session, project: Project) -> None:
    project.task_weights = {"converse": 1}
    project.max_k = 4
    session.commit()


def open_conversation(page: Page, sign_in: SignIn, person: Person) -> Page:
    return open_page(page, sign_in, person, "converse", "converse")


def say(page: Page, session: Session, text: str) -> None:
    """Say something, and have it answered at once."""
    page.get_by_role("textbox").fill(text)
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("heading", name="Replies are being written…")).to_be_visible()
    fill(session, claim(session))
    announce(session)


def announce(session: Session) -> None:
    for slate_id in session.scalars(select(ConversationTurn.slate_id)):
        conversation_replies.announce(session, slate_id)
    session.commit()


def test_replies_appear_as_they_are_finished_and_the_chosen_one_is_the_next_turn(
    page: Page,
    sign_in: SignIn,
    labeler: Person,
    session: Session,
    check_accessibility: Callable[[Page], None],
) -> None:
    open_conversation(page, sign_in, labeler)
    check_accessibility(page)
    page.get_by_label("Begin the conversation").fill("Hello")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".reply.is-waiting")).to_have_count(4)
    held = claim(session)
    conversation_replies.add_reply(session, held.claim, "Hi there.", Random(2))
    session.commit()
    expect(page.locator(".reply:not(.is-waiting)")).to_have_text(re.compile("Hi there."))
    letter = page.locator(".reply:not(.is-waiting) h3").text_content()
    check_accessibility(page)
    fill(session, held)
    announce(session)
    expect(page.get_by_role("heading", name="Which reply is best?")).to_be_visible()
    expect(page.get_by_role("region", name=f"Reply {letter}")).to_contain_text("Hi there.")
    check_accessibility(page)
    page.get_by_label(f"Go on with {letter}").check()
    page.get_by_label("How much better is it?").select_option("slightly better")
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_role("region", name="Conversation so far")).to_contain_text("Hi there.")
    expect(page.get_by_label("Your next turn")).to_be_focused()
    session.rollback()
    ranking = session.scalars(select(Ranking)).one()
    assert (ranking.strength, ranking.is_pick) == ("slightly", True)


def test_replies_are_ranked_and_the_best_is_edited_with_the_keyboard_alone(
    page: Page, sign_in: SignIn, labeler: Person, session: Session
) -> None:
    open_conversation(page, sign_in, labeler)
    page.get_by_role("textbox").focus()
    page.keyboard.type("Hello")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".reply.is-waiting")).to_have_count(4)
    fill(session, claim(session))
    announce(session)
    expect(page.get_by_role("heading", name="Which reply is best?")).to_be_visible()
    for place in range(4):
        first = page.locator(".reply").nth(place).get_by_role("radio").first
        first.focus()
        page.keyboard.press("Space")
        for _ in range(place):
            page.keyboard.press("ArrowRight")
    expect(page.locator(".reply").first.locator("[name=chosen]")).to_be_checked()  # rank 1 is what one goes on with
    best = page.locator(".reply [data-text]").first.get_attribute("data-text")
    page.get_by_role("button", name="Start from the chosen reply").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("The reply, if you would change it")).to_have_value(best or "")
    page.keyboard.press("End")
    page.keyboard.type(" And you?")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("region", name="Conversation so far")).to_contain_text(f"{best} And you?")
    session.rollback()
    assert session.scalars(select(Demonstration.text)).one() == f"{best} And you?"
    ranking = session.scalars(select(Ranking)).one()
    ranks = {item.completion_id: item.rank for item in session.scalars(select(RankingItem))}
    assert [ranks[shown] for shown in ranking.order_shown] == [1, 2, 3, 4]
    assert session.get_one(Completion, ranking.order_shown[0]).text == best


def test_a_conversation_goes_on_after_a_refresh_and_on_another_machine(
    page: Page, new_page: Callable[..., Page], sign_in: SignIn, labeler: Person, session: Session
) -> None:
    open_conversation(page, sign_in, labeler)
    say(page, session, "Hello")
    expect(page.get_by_role("heading", name="Which reply is best?")).to_be_visible()
    order = page.locator(".reply [data-text]").evaluate_all("replies => replies.map(reply => reply.dataset.text)")
    saved(page, page.locator(".reply").nth(2).locator("[name=chosen]").check)
    page.reload()
    expect(page.locator(".reply").nth(2).locator("[name=chosen]")).to_be_checked()
    elsewhere = open_conversation(new_page(), sign_in, labeler)
    shown = elsewhere.locator(".reply [data-text]")
    assert shown.evaluate_all("replies => replies.map(reply => reply.dataset.text)") == order
    expect(elsewhere.locator(".reply").nth(2).locator("[name=chosen]")).to_be_checked()
    elsewhere.get_by_label("How much better is it?").select_option("better")
    elsewhere.get_by_role("button", name="Go on").click()
    expect(elsewhere.get_by_label("Your next turn")).to_be_visible()
    # The tab that was left behind cannot choose again; it shows how the conversation went on.
    page.get_by_label("How much better is it?").select_option("better")
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_label("Your next turn")).to_be_visible()
    session.rollback()
    assert len(session.scalars(select(Ranking)).all()) == 1


def test_what_is_said_without_a_network_is_sent_once_when_it_is_back(
    page: Page, sign_in: SignIn, labeler: Person, session: Session
) -> None:
    open_conversation(page, sign_in, labeler)
    page.context.set_offline(True)
    page.get_by_role("textbox").fill("Hello")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#banner")).to_contain_text("waits to be sent")
    page.context.set_offline(False)
    expect(page.locator(".reply.is-waiting")).to_have_count(4)
    session.rollback()
    assert len(session.scalars(select(ConversationTurn)).all()) == 1


def test_a_turn_is_taken_back_and_the_conversation_finished(
    page: Page, sign_in: SignIn, labeler: Person, session: Session
) -> None:
    open_conversation(page, sign_in, labeler)
    say(page, session, "Hello")
    page.get_by_role("button", name="Take my turn back").click()
    expect(page.get_by_label("Begin the conversation")).to_have_value("Hello")
    say(page, session, "Hello again")
    page.locator(".reply").first.locator("[name=chosen]").check()
    page.get_by_label("How much better is it?").select_option("better")
    page.get_by_role("button", name="Go on").click()
    page.get_by_role("button", name="Finish this conversation").click()
    expect(page.get_by_label("Begin the conversation")).to_have_value("")
    session.rollback()
    assert len(session.scalars(select(Writing).where(Writing.closed_at.is_not(None))).all()) == 1


def test_conversing_on_a_phone(
    new_page: Callable[..., Page],
    sign_in: SignIn,
    labeler: Person,
    session: Session,
    check_accessibility: Callable[[Page], None],
) -> None:
    page = open_conversation(new_page(viewport=PHONE, has_touch=True, color_scheme="dark"), sign_in, labeler)
    say(page, session, "Hello")
    expect(page.get_by_role("heading", name="Which reply is best?")).to_be_visible()
    check_accessibility(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator(".reply [data-text]").count() == len(TEXTS)

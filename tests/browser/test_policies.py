"""The pages of policies in a real browser: trying two versions out as their answers come, deciding with a reason."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy.orm import Session

from app.projects.models import Project
from tests.app.conftest import Person
from tests.app.loop import make_what_a_round_needs
from tests.app.policies.test_history import run_round
from tests.app.policies.test_try_outs import answer_all
from tests.browser.conftest import PHONE

POLICIES = "/projects/everyday/policies"


@pytest.fixture
def judged(session: Session, project: Project) -> Project:
    """Version 2 is a candidate that people compared with version 1."""
    make_what_a_round_needs(session, project)
    run_round(session, project, "wwtl")
    return project


def test_answers_of_two_versions_appear_by_themselves_and_the_conversation_goes_on(
    page: Page,
    sign_in: Callable[[Page, Person], None],
    check_accessibility: Callable[[Page], None],
    researcher: Person,
    session: Session,
    judged: Project,
) -> None:
    sign_in(page, researcher)
    page.goto(f"{POLICIES}/2")
    page.get_by_role("link", name="Try it").click()
    expect(page.get_by_label("Left")).to_have_value("2")
    page.get_by_label("Prompt").fill("Is rain wet?")
    page.get_by_label("Most tokens").fill("9999")
    page.get_by_role("button", name="Ask both").click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing was asked")
    expect(page.get_by_label("Prompt")).to_have_value("Is rain wet?")
    page.get_by_label("Most tokens").fill("20")
    page.get_by_role("button", name="Ask both").click()
    expect(page.get_by_text("No sampler is at work")).to_be_visible()
    check_accessibility(page)

    answer_all(session)
    expect(page.get_by_text("Nothing of this enters the project's data")).to_be_visible()
    expect(page.get_by_text("From 2 by")).to_be_visible()
    page.get_by_role("link", name="go on from here").first.click()
    assert page.locator("textarea[name=turns]").count() == 3
    check_accessibility(page)


def test_an_admin_decides_with_a_reason_and_finds_it_in_the_history(
    new_page: Callable[..., Page], sign_in: Callable[[Page, Person], None], admin: Person, judged: Project
) -> None:
    page = new_page(viewport=PHONE)
    sign_in(page, admin)
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(POLICIES)
    page.get_by_role("link", name="Version 2, ppo, candidate, from version 1").click()
    page.get_by_label("Reason").fill("Kinder, and as long as before.")
    page.get_by_role("button", name="Promote").click()
    expect(page.get_by_role("heading", name="Policy version 2")).to_contain_text("current")
    page.goto(POLICIES)
    expect(page.get_by_role("row", name="Version 2 was promoted")).to_contain_text("Kinder, and as long as before.")
    page.get_by_label("Reason").fill("Too long after all.")
    page.get_by_role("button", name="Roll back to version 1").click()
    page.goto(POLICIES)
    expect(page.get_by_text("It was rolled back to, replacing version 2")).to_be_visible()


def test_rejecting_a_candidate_by_its_button(
    page: Page, sign_in: Callable[[Page, Person], None], admin: Person, judged: Project
) -> None:
    sign_in(page, admin)
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(f"{POLICIES}/2")
    page.get_by_label("Reason").fill("Too terse.")
    page.get_by_role("button", name="Reject").click()
    expect(page.get_by_role("heading", name="Policy version 2")).to_contain_text("rejected")
    expect(page.get_by_text("“Too terse.”")).to_be_visible()


def test_labels_lead_from_a_version_to_a_slate_and_back(
    page: Page, sign_in: Callable[[Page, Person], None], researcher: Person, judged: Project
) -> None:
    sign_in(page, researcher)
    page.goto(f"{POLICIES}/2")
    page.get_by_role("link", name="4 rankings of 1 person").click()
    page.get_by_role("region", name="One by one").get_by_role("link").first.click()
    expect(page.get_by_text("It reached 1 policy version")).to_be_visible()
    page.get_by_role("link", name="version 2").click()
    expect(page.get_by_role("heading", name="Policy version 2")).to_be_visible()

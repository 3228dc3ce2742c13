"""The pages of reward models in a real browser: an evaluation asked for, watched and read; texts scored by hand."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy.orm import Session

from app.db import clock
from app.projects.models import Project
from app.reward_models import claims
from app.settings import Settings
from tests.app.conftest import Person
from tests.app.loop import HOUR
from tests.app.reward_models.fitted import fit, good, make_loop, naive, run_evaluation
from tests.app.reward_models.test_pages import answer
from tests.browser.conftest import PHONE

ROOT = "/projects/everyday/reward-models"


@pytest.fixture
def loop(session: Session, project: Project, settings: Settings) -> Project:
    """Rankings, and two reward models that rounds fitted to them."""
    make_loop(session, project)
    fit(session, settings, project, naive)
    fit(session, settings, project, good)
    return project


def is_too_wide(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth > innerWidth"))


@pytest.mark.usefixtures("loop")
def test_an_evaluation_is_asked_for_watched_and_read_and_two_are_compared(
    page: Page,
    sign_in: Callable[[Page, Person], None],
    check_accessibility: Callable[[Page], None],
    site_admin: Person,
    session: Session,
    settings: Settings,
) -> None:
    sign_in(page, site_admin)
    page.goto(ROOT)
    check_accessibility(page)
    page.get_by_label("Or one from elsewhere").fill("someone/reward")
    page.get_by_role("button", name="Evaluate").click()
    expect(page.get_by_text("No trainer is at work")).to_be_visible()
    check_accessibility(page)
    claim = claims.claim_evaluation(session, owner="trainer", duration=-HOUR, now=clock(session))
    assert claim is not None
    claims.report_progress(session, claim, num_scored=5, num_slates=20)
    session.commit()
    expect(page.get_by_text("5 of 20 slates are scored")).to_be_visible()  # by itself
    check_accessibility(page)
    run_evaluation(session, settings, good)
    expect(page.get_by_role("heading", name="Calibration")).to_be_visible()
    assert page.locator("img.score-chart").evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    check_accessibility(page)
    page.get_by_role("link", name="Where the model and people disagree").click()
    expect(page.get_by_role("heading", name="People prefer").first).to_be_visible()
    check_accessibility(page)
    page.goto(ROOT)
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_text("McNemar's test, exact, two-sided")).to_be_visible()
    check_accessibility(page)


@pytest.mark.usefixtures("loop")
def test_texts_are_scored_by_hand_on_a_phone(
    new_page: Callable[..., Page],
    sign_in: Callable[[Page, Person], None],
    check_accessibility: Callable[[Page], None],
    researcher: Person,
    session: Session,
) -> None:
    page = new_page(viewport=PHONE)
    sign_in(page, researcher)
    for path in ("", "/2", "/evaluations/2/disagreements", "/compare?first=1&second=2"):
        page.goto(ROOT + path)
        assert not is_too_wide(page), path
    page.goto(f"{ROOT}/2")
    page.get_by_role("link", name="Score a text").click()
    page.get_by_label("Prompt").fill("How do I boil an egg?")
    page.get_by_label("Completion 1").fill("Cold water.")
    page.get_by_role("button", name="One more completion").click()
    expect(page.get_by_label("Completion 1")).to_have_value("Cold water.")
    page.get_by_label("Completion 4").fill("Boiling water, seven minutes.")
    page.get_by_role("button", name="Score", exact=True).last.click()
    expect(page.get_by_text("No sampler is at work")).to_be_visible()
    answer(session, scores=[-0.5, 1.5])
    expect(page.get_by_role("heading", name="1.500 completion 2")).to_be_visible()  # by itself
    expect(page.get_by_label("Completion 1")).to_have_value("Cold water.")
    assert not is_too_wide(page)
    check_accessibility(page)

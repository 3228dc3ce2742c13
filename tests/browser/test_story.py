# ruff: noqa: F811 - fixtures are found by name
"""The whole story as a stranger lives it: `podium up`, the link it printed, a browser, real models, a real round."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from app.db import clock, driver_url
from app.labeling.models import Completion, Lease
from app.policies.models import PolicyVersion
from app.projects.service import get_project
from app.simulation.crowd import Crowd
from app.simulation.people import hire
from tests.browser.test_ranking import chips, drag, submitted, wait_until_settled
from tests.installation import Installation, installation  # noqa: F401

ROOT = "/projects/starter"
A_ROUND_MS = 600_000
# The smallest round that is one: real recipes, few steps.
SETTINGS = {
    "reward.num_epochs": "1",
    "ppo.num_steps": "2",
    "ppo.batch_size": "32",
    "ppo.minibatch_size": "16",
    "ppo.value_warmup_steps": "0",
    "ppo.num_evaluation_prompts": "16",
    "evaluate.num_prompts": "32",
}


@pytest.fixture
def page(browser: Browser, installation: Installation) -> Iterator[Page]:
    context = browser.new_context(
        base_url=installation.address, locale="en-GB", viewport={"width": 1280, "height": 800}
    )
    context.set_default_timeout(30_000)
    page = context.new_page()
    page.on("dialog", lambda dialog: dialog.accept())
    yield page
    context.close()


@pytest.fixture
def database(installation: Installation) -> Iterator[Session]:
    engine = create_engine(driver_url(installation.database_url))
    with Session(engine) as session:
        yield session
    engine.dispose()


@pytest.mark.timeout(1200)
def test_a_stranger_goes_once_round_the_whole_loop(page: Page, installation: Installation, database: Session) -> None:
    become_the_admin(page, installation.line("Open this link once").rpartition(" ")[2])
    accept_the_guidelines(page)
    rank_by_mouse(page)
    rank_by_keyboard(page)
    let_others_rank(installation, database, 60)

    start_a_small_round(page)
    expect(page.get_by_text("of 2 comparisons are in")).to_be_visible(timeout=A_ROUND_MS)
    expect(page.get_by_alt_text("KL to the reference policy by step")).to_be_visible()
    expect(page.locator("#stage-ppo")).to_contain_text("What it writes")

    compare_blind(page, 2)
    page.goto(f"{ROOT}/policies/2")
    expect(page.get_by_text("of 2 blind comparisons")).to_be_visible()
    page.get_by_role("button", name="Promote").click()
    expect(page.get_by_role("heading", name="Policy version 2")).to_contain_text("current")

    rank_what_the_new_policy_writes(page, database)


def become_the_admin(page: Page, link: str) -> None:
    page.goto(link)
    page.get_by_label("Your name").fill("Ada")
    page.get_by_label("E-mail address").fill("ada@example.org")
    page.get_by_label("Password").fill("three words together")
    page.get_by_role("button", name="Make my account").click()
    expect(page.get_by_role("link", name="Rank", exact=True)).to_be_visible()


def accept_the_guidelines(page: Page) -> None:
    """The one click between the first link and the first slate."""
    page.goto(f"{ROOT}/rank")
    page.get_by_role("button", name="I have read this and will follow it").click()
    page.wait_for_url(f"**{ROOT}/rank")


def open_a_slate(page: Page) -> int:
    """Go to the ranking page; returns K."""
    page.goto(f"{ROOT}/rank")
    expect(page.locator("html[data-ready=rank]")).to_be_attached()
    expect(page.locator(".completion").first).to_be_visible(timeout=60_000)
    return page.locator(".completion").count()


def rank_by_mouse(page: Page) -> None:
    num_completions = open_a_slate(page)
    assert 4 <= num_completions <= 9
    for number, letter in enumerate("ABCDEFGHI"[:num_completions], start=1):
        drag(page, letter, number)
    expect(chips(page, 0)).to_have_count(0)
    submitted(page, page.get_by_role("button", name="Submit").click)


def rank_by_keyboard(page: Page) -> None:
    num_completions = open_a_slate(page)
    for rank in range(1, num_completions + 1):
        page.keyboard.press(str(rank))
    wait_until_settled(page)
    submitted(page, lambda: page.keyboard.press("Control+Enter"))


def let_others_rank(installation: Installation, database: Session, num_rankings: int) -> None:
    keys = hire(database, get_project(database, "starter"), 2, now=clock(database))
    database.commit()
    assert Crowd(installation.address, "starter", keys).rank(num_rankings) == num_rankings


def start_a_small_round(page: Page) -> None:
    page.goto(ROOT)
    page.get_by_role("link", name="Start round").first.click()
    for summary in page.locator("details.stage-settings summary").all():
        if summary.is_visible():
            summary.click()
    for name, value in SETTINGS.items():
        page.locator(f"[id='{name}']").fill(value)
    page.get_by_label("Blind comparisons at the end").fill("2")
    page.get_by_role("button", name="Start round").click()
    page.wait_for_url("**/rounds/1")


def compare_blind(page: Page, num_comparisons: int) -> None:
    """Judge slates, whichever kind comes, until the round has its comparisons."""
    for _ in range(30):
        page.goto(f"{ROOT}/rounds/1")
        if page.get_by_role("heading", name="Round 1").get_by_text("succeeded").count():
            return
        num_completions = open_a_slate(page)
        if num_completions == 2:
            page.keyboard.press("2")
        else:
            for rank in range(1, num_completions + 1):
                page.keyboard.press(str(rank))
        wait_until_settled(page)
        submitted(page, lambda: page.keyboard.press("Control+Enter"))
    raise AssertionError(f"the round did not get its {num_comparisons} comparisons")


def rank_what_the_new_policy_writes(page: Page, database: Session) -> None:
    """Slates already leased stay; the ones after them are the new policy's."""
    new = database.scalars(select(PolicyVersion.id).where(PolicyVersion.number == 2)).one()
    for _ in range(5):
        rank_by_keyboard(page)
        database.rollback()
        newest = select(Lease.slate_id).where(Lease.end == "submitted").order_by(Lease.closed_at.desc()).limit(1)
        writers = select(Completion.policy_version_id).where(Completion.slate_id == newest.scalar_subquery())
        if set(database.scalars(writers)) == {new}:
            return
    raise AssertionError("the new policy wrote none of the next slates")

# ruff: noqa: F811 - fixtures are found by name
"""A round's page shows the truth whatever becomes of its connection, and its forms work by hand and by script."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy.orm import Session

from app.db import clock
from app.projects.models import Project
from app.rounds import claims, heart, results
from app.rounds.claims import StageClaim
from app.rounds.events import Events
from app.rounds.models import Phase
from tests.app.conftest import Person
from tests.app.loop import run_stage
from tests.app.rounds.stages import claimed, start
from tests.browser.conftest import WebServer
from tests.browser.ready import project  # noqa: F401

ROUND = "/projects/everyday/rounds/1"


@pytest.fixture
def held(session: Session, project: Project) -> StageClaim:
    """A round whose PPO stage a trainer runs."""
    start(session, project, "reward", "ppo")
    run_stage(session)
    held = claimed(session)
    report(session, held, 1)
    return held


@pytest.fixture
def admin_page(page: Page, admin: Person, sign_in: Callable[[Page, Person], None]) -> Page:
    sign_in(page, admin)
    return page


def report(session: Session, held: StageClaim, step: int) -> None:
    results.record_metrics(session, held, [{"step": step, "at": 0, "kl": step / 4}])
    sample = {"step": step, "position": 0, "prompt": "Hi", "completion": f"Written at {step}", "score": 1, "kl": 2}
    results.record_samples(session, held, [sample])
    session.commit()


def shows(page: Page, step: int) -> None:
    expect(page.get_by_alt_text(f"KL to the reference policy by step; newest: rollouts {step / 4:g}")).to_be_visible()
    expect(page.get_by_role("cell", name=f"Written at {step}")).to_be_visible()


def test_points_that_come_while_the_server_is_away_are_shown_when_it_is_back(
    admin_page: Page, session: Session, held: StageClaim, web: WebServer
) -> None:
    page = admin_page
    page.goto(ROUND)
    shows(page, 1)
    web.stop()
    expect(page.get_by_text("The connection is gone")).to_be_visible()
    for step in (2, 3, 4):
        report(session, held, step)
    shows(page, 1)  # the last known state, and not an empty page
    web.start()
    shows(page, 4)
    expect(page.get_by_text("The connection is gone")).to_be_hidden()
    page.get_by_alt_text("KL to the reference policy").click()
    expect(page.get_by_role("rowheader")).to_have_count(4)  # every point


def test_a_laptop_that_is_opened_after_hours_shows_the_truth(
    admin_page: Page, session: Session, held: StageClaim, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = admin_page
    page.clock.install()
    page.goto(ROUND)
    shows(page, 1)
    monkeypatch.setattr(Events, "call", lambda self, topic: None)  # a connection that looks alive and says nothing
    report(session, held, 2)
    page.clock.fast_forward(3 * 3600 * 1000)
    shows(page, 2)


def test_a_failed_stage_is_retried_with_the_setting_that_its_advice_names(
    admin_page: Page,
    session: Session,
    held: StageClaim,
    check_accessibility: Callable[[Page], None],
) -> None:
    page = admin_page
    page.goto(ROUND)
    claims.report(session, held, "The recipe starts.", Phase.COMPUTING)
    error = {
        "code": "out_of_memory",
        "message": "the recipe ran out of memory on cpu",
        "advice": "lower ppo.micro_batch_tokens=16384, which changes nothing else",
        "last_lines": "out of memory",
    }
    claims.fail_stage(session, held, error, now=clock(session))
    session.commit()
    expect(page.get_by_role("region", name="What went wrong")).to_contain_text("computing, at step 1 of at most 500")
    check_accessibility(page)
    page.get_by_role("link", name="Retry with micro batch tokens 8192").click()
    expect(page.get_by_label("micro batch tokens")).to_have_value("8192")
    check_accessibility(page)
    page.get_by_role("button", name="Retry round 1").click()
    expect(page.get_by_role("heading", name="Round 1")).to_contain_text("queued")
    expect(
        page.get_by_text("ppo.micro_batch_tokens=8192 (was 16384); goes on from its last checkpoint")
    ).to_be_visible()


def test_the_estimate_follows_what_is_typed_and_risky_values_are_marked(
    admin_page: Page, session: Session, project: Project
) -> None:
    heart.beat(session, "here", "trainer", "", now=clock(session), device="cpu", memory_gb=4.0)
    session.commit()
    page = admin_page
    page.goto("/projects/everyday/rounds/new")
    ppo = page.locator("fieldset", has_text="Improve the policy")
    ppo.locator("summary").first.click()
    estimate = page.get_by_role("region", name="What it would take")
    risk = ppo.get_by_text("Careful below 0.001")
    expect(risk).not_to_have_class("risk is-risky")
    ppo.get_by_label("kl coef").fill("0")
    expect(risk).to_have_class("risk is-risky")
    expect(estimate.get_by_role("row", name="ppo")).to_contain_text("may not fit")
    ppo.get_by_label("tuning").select_option("lora")
    page.get_by_label("grpo", exact=True).check()
    expect(estimate.get_by_role("row", name="grpo")).to_be_visible()
    ppo.get_by_label("kl budget").press("Enter")  # a slip of the finger starts nothing
    page.wait_for_load_state()
    expect(page.get_by_role("heading", name="Start a round")).to_be_visible()
    expect(page.get_by_label("kl coef").first).to_have_value("0")

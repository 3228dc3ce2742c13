# ruff: noqa: F811 - fixtures are found by name
"""The admin's pages in a real browser: start a round, watch it live, judge, promote."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import clock
from app.projects.models import Project
from app.rounds import claims, heart, results
from app.rounds.conclusions import conclude_if_compared
from app.rounds.models import Round
from tests.app.conftest import Person
from tests.app.loop import HOUR, compare, evaluation_slates, run_stage
from tests.browser.conftest import PHONE
from tests.browser.ready import project  # noqa: F401


@pytest.fixture
def admin_page(page: Page, admin: Person, sign_in: Callable[[Page, Person], None]) -> Page:
    """The admin's browser; it says yes when asked."""
    sign_in(page, admin)
    page.on("dialog", lambda dialog: dialog.accept())
    return page


def start_round(page: Page) -> None:
    page.goto("/projects/everyday/rounds/new")
    page.get_by_label("Blind comparisons at the end").fill("2")
    page.get_by_role("button", name="Start round").click()
    page.wait_for_url("**/rounds/1")


def test_a_round_from_its_start_to_the_promotion(admin_page: Page, session: Session, project: Project) -> None:
    page = admin_page
    start_round(page)
    expect(page.get_by_role("heading", name="Round 1")).to_contain_text("queued")

    run_stage(session)  # the trainer fits the reward model, and the page that is open shows it
    session.commit()
    expect(page.locator("#stage-reward")).to_contain_text("succeeded")

    claim = claims.claim_stage(session, owner="trainer", duration=HOUR, now=clock(session))
    assert claim is not None
    results.record_metrics(session, claim, [{"step": 1, "at": 0, "kl": 0.5}, {"step": 2, "at": 1, "kl": 0.75}])
    session.commit()
    chart = page.get_by_alt_text("KL to the reference policy by step; newest: rollouts 0.75")
    expect(chart).to_be_visible()
    assert chart.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    results.record_metrics(session, claim, [{"step": 3, "at": 2, "kl": 1.25}])
    session.commit()
    expect(page.get_by_alt_text("KL to the reference policy by step; newest: rollouts 1.25")).to_be_visible()
    claims.release_stage(session, claim, "The trainer was stopped.")

    run_stage(session)
    run_stage(session, num_pairs=6)
    session.commit()
    expect(page.get_by_text("0 of 2 comparisons are in")).to_be_visible()
    round = session.scalars(select(Round)).one()
    compare(session, round, evaluation_slates(session, round)[0], "win")
    conclude_if_compared(session, round.id, clock(session))  # as a submit does
    session.commit()
    expect(page.get_by_text("1 of 2 comparisons are in")).to_be_visible()
    page.get_by_role("button", name="End it with what is in").click()

    page.get_by_role("link", name="Look at it and promote it or reject it").click()
    page.get_by_role("button", name="Promote").click()
    expect(page.get_by_role("heading", name="Policy version 2")).to_contain_text("current")
    page.get_by_role("link", name="Project", exact=True).click()
    expect(page.get_by_text("Version 2 writes the next slates.")).to_be_visible()


def test_a_wrong_setting_is_marked_and_what_was_typed_stays(admin_page: Page, project: Project) -> None:
    page = admin_page
    page.goto("/projects/everyday/rounds/new")
    ppo = page.locator("fieldset", has_text="Improve the policy")
    ppo.locator(".stage-settings > summary").click()
    ppo.get_by_label("kl coef").fill("-1")
    ppo.get_by_label("kl budget").fill("25")
    page.get_by_role("button", name="Start round").click()
    expect(page.get_by_role("alert")).to_contain_text("ppo.kl_coef must be at least 0")
    expect(ppo.get_by_label("kl coef")).to_have_value("-1")
    expect(ppo.get_by_label("kl coef")).to_have_attribute("aria-invalid", "true")
    expect(ppo.get_by_label("kl budget")).to_have_value("25")


def test_the_settings_of_a_stage_that_is_not_chosen_are_out_of_the_way(admin_page: Page, project: Project) -> None:
    page = admin_page
    page.goto("/projects/everyday/rounds/new")
    settings = page.locator("fieldset", has_text="Improve the policy").locator(".stage-settings")
    expect(settings).to_be_visible()
    page.get_by_label("ppo", exact=True).uncheck()
    expect(settings).to_be_hidden()


def test_a_chart_has_its_table_and_its_file(admin_page: Page, session: Session, project: Project) -> None:
    page = admin_page
    start_round(page)
    claim = claims.claim_stage(session, owner="trainer", duration=HOUR, now=clock(session))
    assert claim is not None
    results.record_metrics(session, claim, [{"step": 1, "at": 0, "loss": 0.5}])
    session.commit()
    page.get_by_alt_text("Loss by step").click()
    expect(page.get_by_role("cell", name="0.5")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download CSV").click()
    assert download.value.path().read_text() == "step,loss\n1,0.5\n"


def test_every_page_of_the_admin_is_accessible_by_daylight_on_a_phone_and_fits(
    new_page: Callable[..., Page],
    sign_in: Callable[[Page, Person], None],
    check_accessibility: Callable[[Page], None],
    site_admin: Person,
    session: Session,
    project: Project,
) -> None:
    page = new_page(color_scheme="light", viewport=PHONE)
    sign_in(page, site_admin)
    start_round(page)
    run_stage(session)
    claim = claims.claim_stage(session, owner="trainer", duration=HOUR, now=clock(session))
    assert claim is not None
    results.record_metrics(session, claim, [{"step": 1, "at": 0, "kl": 0.5}])
    heart.beat(session, "box/1", "sampler", "fills everyday", now=clock(session))
    claims.release_stage(session, claim, "The trainer was stopped.")
    run_stage(session)
    run_stage(session, num_pairs=6)
    session.commit()
    root = "/projects/everyday"
    addresses = [root, f"{root}/rounds", f"{root}/rounds/1", f"{root}/rounds/new", f"{root}/rounds/1/ppo/charts/kl"]
    addresses += [f"{root}/policies", f"{root}/policies/2", f"{root}/settings", "/projects/new"]
    for address in addresses:
        page.goto(address)
        check_accessibility(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), address

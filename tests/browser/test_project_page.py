# ruff: noqa: F811 - fixtures are found by name
"""The cockpit in a real browser: the living picture, also when the network or the web goes away, and the wizard."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, expect
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import clock
from app.projects.models import Project
from app.rounds import claims, heart
from app.rounds.service import start_round
from tests.app.conftest import Person
from tests.app.loop import HOUR, run_stage
from tests.browser.conftest import PHONE, WebServer
from tests.browser.ready import project  # noqa: F401

ROOT = "/projects/everyday"
GONE = "The connection is gone"


@pytest.fixture
def admin_page(page: Page, admin: Person, sign_in: Callable[[Page, Person], None], project: Project) -> Page:
    """The project's page before the admin, connected."""
    sign_in(page, admin)
    with page.expect_request(f"**{ROOT}/events"):
        page.goto(ROOT)
    return page


def run_a_round(session: Session, project: Project) -> None:
    """A round is started, its reward model is fitted, and a trainer works on the policy."""
    start_round(session, project, stages=("reward", "ppo"), overrides={}, account=None, now=clock(session))
    run_stage(session)
    claims.claim_stage(session, owner="trainer", duration=HOUR, now=clock(session))
    heart.beat(session, "trainer@box", "trainer", "round 1 ppo", now=clock(session))
    session.commit()


def expect_the_round(page: Page) -> None:
    now = page.locator("#loop-now")
    expect(now).to_contain_text("round 1")
    expect(now).to_contain_text("running")
    expect(now).to_contain_text("ppo: starting")
    expect(page.locator("#loop-reward")).to_contain_text("71.0")
    expect(page.locator("#loop-policy")).to_contain_text("a new one is trained")


def test_the_picture_follows_what_happens_and_moves_nothing_else(
    admin_page: Page, session: Session, project: Project
) -> None:
    page = admin_page
    policies = page.locator("#loop-policy a")
    policies.focus()
    policies.evaluate("link => (link.isTheSame = true)")
    run_a_round(session, project)
    expect_the_round(page)
    expect(policies).to_be_focused()
    assert policies.evaluate("link => link.isTheSame")  # made like its copy, not put in its place
    flows = page.locator(".flow-now")
    expect(flows).to_have_count(1)
    assert flows.evaluate("arrow => arrow.closest('li').id") == "loop-reward"
    policies.press("Enter")
    page.wait_for_url("**/policies")


def test_a_laptop_that_was_shut_shows_the_truth_when_it_wakes(
    admin_page: Page, session: Session, project: Project
) -> None:
    page = admin_page
    page.context.set_offline(True)
    run_a_round(session, project)
    expect(page.locator("#loop-now")).to_contain_text("no round")
    page.context.set_offline(False)
    expect_the_round(page)
    expect(page.get_by_text(GONE)).to_be_hidden()


def test_a_web_process_that_comes_back_is_found_by_the_open_page(
    admin_page: Page, web: WebServer, session: Session, project: Project
) -> None:
    page = admin_page
    page.evaluate("window.isTheSame = true")
    web.stop()
    expect(page.get_by_text(GONE)).to_be_visible()
    run_a_round(session, project)
    web.start()
    expect_the_round(page)
    expect(page.get_by_text(GONE)).to_be_hidden()
    assert page.evaluate("window.isTheSame")  # without loading the page anew: what was being read stays in view


def test_whoever_was_signed_out_meanwhile_is_led_to_sign_in(admin_page: Page, admin: Person, web: WebServer) -> None:
    page = admin_page
    web.stop()
    expect(page.get_by_text(GONE)).to_be_visible()
    page.context.clear_cookies()
    web.start()
    page.wait_for_url("**/sign-in**")


def test_the_page_that_leads_to_sign_in_is_asked_for_once_however_long_it_takes(
    admin_page: Page, admin: Person, web: WebServer
) -> None:
    page = admin_page
    web.stop()
    asked: list[Route] = []
    page.route(f"**{ROOT}", lambda route: asked.append(route))  # a server that takes its time
    page.context.clear_cookies()
    web.start()
    while not asked:
        page.wait_for_timeout(50)
    for _ in range(3):  # refused, the page looks again whether anything is heard
        with page.expect_response(f"**{ROOT}/events"):
            pass
    assert len(asked) == 1  # a second navigation throws the first away: a slow server would never lead anywhere
    asked[0].continue_()
    page.wait_for_url("**/sign-in**")


def test_what_needs_a_person_stands_first_and_leads_there(admin_page: Page, session: Session) -> None:
    page = admin_page
    needs = page.get_by_role("region", name="Needs a person")
    expect(needs).to_contain_text("no sampler is at work")
    assert page.locator("#main .card").first.get_attribute("class") == "card needs"
    heart.beat(session, "sampler@box", "sampler", "fills everyday", now=clock(session))
    session.commit()
    page.reload()
    expect(needs).not_to_contain_text("no sampler is at work")


@pytest.fixture
def wizard(page: Page, site_admin: Person, sign_in: Callable[[Page, Person], None]) -> Page:
    """The first step of a new project."""
    sign_in(page, site_admin)
    page.goto("/projects/new")
    return page


def go_on(page: Page, title: str) -> None:
    page.locator("button.primary").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(title)


def test_a_project_is_made_in_steps_and_back_keeps_everything(
    wizard: Page, session: Session, check_accessibility: Callable[[Page], None]
) -> None:
    page = wizard
    check_accessibility(page)
    page.get_by_label("Name", exact=True).fill("Recipes")
    page.get_by_label("Short name").fill("recipes")
    page.keyboard.press("Enter")  # goes on, not back
    expect(page.get_by_role("heading", level=1)).to_contain_text("step 2 of 6: Prompts")
    page.get_by_label("File", exact=True).set_input_files(
        {
            "name": "eggs.txt",
            "mimeType": "text/plain",
            "buffer": "".join(f"How do I cook {n} eggs?\n" for n in range(30)).encode(),
        }
    )
    page.get_by_role("button", name="Look at them").click()
    expect(page.get_by_text("30 prompts:")).to_be_visible()
    check_accessibility(page)
    go_on(page, "Guidelines")
    page.get_by_label("Guidelines for labelers").fill("Tasty first.")
    check_accessibility(page)
    go_on(page, "Questions")
    check_accessibility(page)
    page.go_back()  # the browser's own
    expect(page.get_by_label("Guidelines for labelers")).to_have_value("Tasty first.")
    go_on(page, "Questions")
    page.get_by_role("button", name="Back").click()
    page.get_by_role("button", name="2 Prompts").click()
    expect(page.get_by_text("eggs.txt is here.")).to_be_visible()
    go_on(page, "Guidelines")
    go_on(page, "Questions")
    go_on(page, "Slates and rounds")
    check_accessibility(page)
    page.get_by_label("Most completions on a slate").fill("3")
    page.locator("button.primary").click()
    expect(page.get_by_role("alert")).to_contain_text("Most completions on a slate: must be a whole number from 4 to 9")
    check_accessibility(page)
    page.get_by_label("Most completions on a slate").fill("6")
    go_on(page, "Summary")
    check_accessibility(page)
    assert session.scalars(select(Project)).all() == []
    page.get_by_role("button", name="Create project").click()
    page.wait_for_url("**/projects/recipes")
    expect(page.locator("#loop-prompts")).to_contain_text("30")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_picture_is_accessible_and_fits_a_phone_while_a_round_runs(
    new_page: Callable[..., Page],
    sign_in: Callable[[Page, Person], None],
    check_accessibility: Callable[[Page], None],
    researcher: Person,
    session: Session,
    project: Project,
    scheme: str,
) -> None:
    run_a_round(session, project)
    page = new_page(color_scheme=scheme, viewport=PHONE)
    sign_in(page, researcher)
    page.goto(ROOT)
    expect_the_round(page)
    check_accessibility(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.set_viewport_size({"width": 2560, "height": 1400})
    check_accessibility(page)

"""Comparisons that decide, and win rates of all versions, in a real browser."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy.orm import Session

from app.db import clock
from app.policies.models import PolicyState
from app.policies.service import current_version
from app.projects.models import Project
from app.prompts.models import Split
from app.rounds.conclusions import conclude_if_compared
from app.rounds.models import Round
from app.rounds.service import start_round
from tests.app.conftest import Person
from tests.app.loop import compare, evaluation_slates, make_prompts, make_version, make_what_a_round_needs, run_stage
from tests.app.policies.comparisons import make_comparisons
from tests.browser.conftest import PHONE

LENGTHENED = " It goes on for a while."


@pytest.fixture
def round(session: Session, project: Project) -> Round:
    """A round that waits for at most sixty comparisons."""
    make_what_a_round_needs(session, project)
    make_prompts(session, project, Split.TEST, 60)
    stages = ["reward", "ppo", "evaluate"]
    round = start_round(
        session, project, stages=stages, overrides={}, account=None, now=clock(session), evaluation_comparisons=60
    )
    run_stage(session)
    run_stage(session)
    run_stage(session, num_pairs=60)
    session.commit()
    return round


def submit_all(session: Session, round: Round, outcomes: list[str]) -> None:
    """Blind comparisons as labelers submit them, each asking whether the round is over."""
    for number, (slate, outcome) in enumerate(zip(evaluation_slates(session, round), outcomes, strict=False)):
        if number % 3 == 0:
            slate.completions[0].text += LENGTHENED
        compare(session, round, slate, outcome)
        conclude_if_compared(session, round.id, clock(session))
    session.commit()


def test_an_open_page_shows_the_round_end_by_itself_when_its_comparisons_decide(
    page: Page, sign_in: Callable[[Page, Person], None], admin: Person, session: Session, round: Round
) -> None:
    sign_in(page, admin)
    page.goto("/projects/everyday/rounds/1")
    expect(page.get_by_text("0 of 60 comparisons are in")).to_be_visible()
    submit_all(session, round, ["win", "win", "win", "loss", "win"] * 9)
    expect(page.get_by_text("People prefer version 2:")).to_be_visible()
    expect(page.get_by_text("of at most 60 comparisons")).to_be_visible()
    expect(page.get_by_text("holds only for a number of comparisons fixed beforehand")).to_be_visible()
    expect(page.get_by_role("button", name="End it with what is in")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [None, PHONE], ids=["desktop", "phone"])
def test_reports_and_win_rates_are_accessible_and_fit(
    new_page: Callable[..., Page],
    sign_in: Callable[[Page, Person], None],
    check_accessibility: Callable[[Page], None],
    researcher: Person,
    session: Session,
    project: Project,
    round: Round,
    scheme: str,
    viewport: dict[str, int] | None,
) -> None:
    submit_all(session, round, ["win", "tie", "win", "loss", "win"] * 12)
    first, *others = (
        current_version(session, project),
        *(make_version(session, project, number, PolicyState.RETIRED) for number in range(3, 8)),
    )
    make_comparisons(session, project, others[0], first, ["win"] * 30 + ["tie"] * 5 + ["loss"] * 8)
    make_comparisons(session, project, others[1], others[0], ["win"] * 8 + ["loss"] * 9)
    make_comparisons(session, project, others[3], others[2], ["win"] * 3 + ["loss"] * 25)
    session.commit()
    page = new_page(color_scheme=scheme, **({"viewport": viewport} if viewport else {}))
    sign_in(page, researcher)
    for address in ("rounds/1/comparison", "rounds/1", "policies/win-rates"):
        page.goto(f"/projects/everyday/{address}")
        for summary in page.locator("#comparison-path summary").all():
            summary.click()
        check_accessibility(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), address
    expect(page.get_by_role("heading", name="Group 2")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download pairs (CSV)").click()
    assert download.value.path().read_text().startswith("version,against,comparisons,won")

# ruff: noqa: F811 - fixtures are found by name
"""kill -9 of the web and of the trainer all through a cycle, under an open page: it goes on, and says what is true."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from random import Random

import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import Engine, create_engine, select, update
from sqlalchemy.orm import Session

from app import security
from app.db import clock, driver_url
from app.people.service import create_account
from app.people.sessions import open_session
from app.policies.models import RewardModelVersion
from app.projects.models import Project
from app.projects.service import get_project
from app.prompts.models import Prompt, Split
from app.rounds.models import Round, RoundState, Stage, StageState
from app.rounds.service import start_round
from app.simulation.crowd import Crowd
from app.simulation.people import hire
from tests.app.loop import make_slate, rank
from tests.faults.processes import wait_for
from tests.installation import Installation, installation  # noqa: F401

SMALLEST = {
    "reward": {"num_epochs": "1", "num_normalisation_completions": "8", "max_completion_tokens": "8"},
    "ppo": {
        "num_steps": "3",
        "batch_size": "16",
        "minibatch_size": "8",
        "value_warmup_steps": "0",
        "num_evaluation_prompts": "8",
        "checkpoint_every_steps": "1",
        "max_completion_tokens": "8",
    },
    "evaluate": {"num_prompts": "16", "max_completion_tokens": "8"},
}
CHILDREN = {"web": "serve", "trainer": "trainer.worker"}


@pytest.fixture
def engine(installation: Installation) -> Iterator[Engine]:
    engine = create_engine(driver_url(installation.database_url))
    yield engine
    engine.dispose()


@pytest.fixture
def page(browser: Browser, installation: Installation, engine: Engine) -> Iterator[Page]:
    """The starter project's page, before somebody who runs the installation."""
    wait_for(installation.answers, "the web process")
    with Session(engine) as session:
        account = create_account(session, email="ada@example.org", name="Ada", password=None, is_site_admin=True)
        token = open_session(session, account, user_agent="tests", now=clock(session))
        session.commit()
    context = browser.new_context(base_url=installation.address, locale="en-GB")
    context.add_cookies([{"name": security.SESSION_COOKIE, "value": token, "url": installation.address}])
    page = context.new_page()
    page.goto("/projects/starter")
    page.evaluate("window.isTheSame = true")
    yield page
    context.close()


def rank_some(session: Session, project: Project) -> None:
    for split in (Split.TRAIN, Split.VALIDATION):
        wanted = select(Prompt).where(Prompt.project_id == project.id, Prompt.split == split).limit(8)
        for prompt in session.scalars(wanted).all():
            rank(session, make_slate(session, prompt), [1, 2, 3, 4])


def kill(installation: Installation, engine: Engine, name: str) -> None:
    os.kill(installation.child(CHILDREN[name]), signal.SIGKILL)
    installation.line(f"{name} ended (killed by SIGKILL)")
    if name == "trainer":
        with Session(engine) as session:  # as if its deadline had come
            session.execute(update(Stage).where(Stage.state == StageState.RUNNING).values(deadline=clock(session)))
            session.commit()


def stage_runs(engine: Engine, recipe: str) -> Callable[[], bool]:
    def runs_or_has_run() -> bool:
        with Session(engine) as session:
            state = session.scalars(select(Stage.state).where(Stage.recipe == recipe)).one()
            assert state is not StageState.FAILED
            return state in (StageState.RUNNING, StageState.SUCCEEDED)

    return runs_or_has_run


def round_is(engine: Engine, *states: RoundState) -> Callable[[], bool]:
    def reached() -> bool:
        with Session(engine) as session:
            return session.scalars(select(Round.state)).one() in states

    return reached


@pytest.mark.timeout(1800)
def test_a_cycle_under_kills_ends_and_the_open_page_says_so(
    installation: Installation, engine: Engine, page: Page
) -> None:
    with Session(engine) as session:
        project = get_project(session, "starter")
        rank_some(session, project)
        keys = hire(session, project, 2, now=clock(session))
        start_round(
            session,
            project,
            stages=("reward", "ppo", "evaluate"),
            overrides=SMALLEST,
            account=None,
            now=clock(session),
            evaluation_comparisons=3,
        )
        session.commit()
    rng = Random(11)
    for recipe in ("reward", "ppo", "evaluate"):
        wait_for(stage_runs(engine, recipe), f"{recipe} to run")
        time.sleep(rng.uniform(0, 1))
        for name in rng.sample(sorted(CHILDREN), rng.choice([1, 2])):
            kill(installation, engine, name)
    wait_for(installation.answers, "the web process to come back")
    wait_for(round_is(engine, RoundState.AWAITING_LABELS, RoundState.SUCCEEDED), "the stages' end")
    now = page.locator("#loop-now")
    expect(now).to_contain_text("of 3 blind comparisons are in", timeout=300_000)
    Crowd(installation.address, "starter", keys).rank_while(round_is(engine, RoundState.AWAITING_LABELS))
    wait_for(round_is(engine, RoundState.SUCCEEDED), "the round's end")
    expect(now).to_contain_text("succeeded", timeout=300_000)
    with Session(engine) as session:
        accuracy = session.scalars(select(RewardModelVersion)).one().figures["validation_accuracy"]
        attempts = sum(session.scalars(select(Stage.attempt)))
    expect(page.locator("#loop-reward")).to_contain_text(f"{100 * accuracy:.1f}\u00a0%")
    expect(page.locator("#loop-policy")).to_contain_text("version 1")
    expect(page.get_by_text("Policy version 2 waits for a decision.")).to_be_visible()
    assert attempts > 3  # a stage was taken up again
    assert page.evaluate("window.isTheSame")  # nobody loaded it anew

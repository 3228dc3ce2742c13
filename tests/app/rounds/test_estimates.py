"""What a round would take: the time of the last run, scaled by the work asked for; memory against a live trainer's."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import clock
from app.policies.service import current_version
from app.projects.models import Project
from app.prompts.models import Split
from app.rounds import heart
from app.rounds.configuration import configure
from app.rounds.estimates import Expectation, expectations
from app.rounds.models import Recipe, Stage
from app.rounds.views import labels_so_far
from app.settings import Settings
from tests.app.conftest import Person
from tests.app.loop import make_project, make_rankings, make_what_a_round_needs, run_stage
from tests.app.rounds.stages import make_loop, start

ROUNDS = "/projects/loop/rounds"


@pytest.fixture
def loop(session: Session) -> Project:
    return make_loop(session)


def ran(session: Session, project: Project, seconds: float, **result: Any) -> None:
    """A round of reward and ppo whose stages took so long each."""
    start(session, project, "reward", "ppo")
    for _ in range(2):
        run_stage(session)
    for stage in session.scalars(select(Stage)):
        assert stage.finished_at is not None
        stage.started_at = stage.finished_at - timedelta(seconds=seconds)
        stage.result = {**(stage.result or {}), **result}
    session.commit()


def expect(session: Session, project: Project, recipe: Recipe, **settings: Any) -> Expectation:
    policy = current_version(session, project)
    configurations = configure(project, [recipe], "small", {recipe: settings})
    (found,) = expectations(
        session, Settings(), project, policy, configurations, labels_so_far(session, project), clock(session)
    )
    return found


def test_nothing_is_said_of_time_before_a_stage_has_run(session: Session, loop: Project) -> None:
    assert expect(session, loop, Recipe.PPO).seconds is None


def test_twice_the_steps_take_twice_the_time(session: Session, loop: Project) -> None:
    ran(session, loop, 60, num_steps=24)
    assert expect(session, loop, Recipe.PPO, num_steps=48).seconds == pytest.approx(120)
    assert expect(session, loop, Recipe.PPO, batch_size=256).seconds == pytest.approx(120)


def test_a_run_that_stopped_early_tells_the_time_of_a_step_and_not_of_a_round(session: Session, loop: Project) -> None:
    ran(session, loop, 60, num_steps=12)
    assert expect(session, loop, Recipe.PPO, num_steps=24).seconds == pytest.approx(120)


def test_more_labels_take_longer(session: Session, loop: Project) -> None:
    ran(session, loop, 60)
    make_rankings(session, loop, Split.TRAIN, 4)  # eight instead of four
    assert expect(session, loop, Recipe.REWARD).seconds == pytest.approx(120)


def test_a_project_that_has_run_nothing_learns_from_another_with_a_policy_of_its_size(
    session: Session, loop: Project
) -> None:
    ran(session, loop, 60, num_steps=24)
    other = make_project(session, slug="other")
    make_what_a_round_needs(session, other)
    found = expect(session, other, Recipe.PPO)
    assert found.past is not None
    assert (found.seconds, found.past.is_other_project) == (pytest.approx(60), True)
    current_version(session, other).num_parameters = 9_000_000
    assert expect(session, other, Recipe.PPO).seconds is None


def test_memory_is_held_against_the_device_of_a_trainer_that_is_alive(session: Session, loop: Project) -> None:
    assert expect(session, loop, Recipe.PPO).memory_gb.keys() == {"cpu", "cuda"}
    now = clock(session)
    heart.beat(session, "gone", "trainer", "", now=now - timedelta(minutes=9), device="cuda", memory_gb=141.0)
    heart.beat(session, "here", "trainer", "", now=now, device="cpu", memory_gb=3.0)
    found = expect(session, loop, Recipe.PPO)
    assert found.device is not None
    assert (found.device.name, found.memory_gb.keys(), found.is_tight) == ("cpu", {"cpu"}, False)
    tight = expect(session, loop, Recipe.PPO, micro_batch_tokens=100_000)
    assert tight.memory_gb["cpu"] > 3.0
    assert "lower ppo.micro_batch_tokens=100000" in tight.advice


def test_the_form_tells_what_it_would_take_and_starts_nothing(person: Any, session: Session, loop: Project) -> None:
    admin: Person = person("Sita Site", is_site_admin=True)
    ran(session, loop, 120, num_steps=24)
    heart.beat(session, "here", "trainer", "", now=clock(session), device="cpu", memory_gb=3.0)
    session.commit()
    sent = {"stages": ["ppo"], "act": "estimate", "ppo.num_steps": "72", "ppo.micro_batch_tokens": "100000"}
    response = admin.post(f"{ROUNDS}/new", data=sent)
    page = " ".join(response.text.split())
    assert response.status_code == 200
    assert '<td class="numeric">6 min</td> <td>round 1, 2 min</td>' in page
    assert "may not fit" in page
    assert 'name="ppo.num_steps" value="72"' in page
    assert len(session.scalars(select(Stage)).all()) == 2


def test_settings_that_break_a_rule_have_no_estimate(person: Any, session: Session, loop: Project) -> None:
    admin: Person = person("Sita Site", is_site_admin=True)
    response = admin.post(f"{ROUNDS}/new", data={"stages": ["ppo"], "act": "estimate", "ppo.num_steps": "-1"})
    assert (response.status_code, "A setting breaks its rule" in response.text) == (200, True)

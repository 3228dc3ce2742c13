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
from app.rounds import claims, heart, results
from app.rounds.configuration import configure
from app.rounds.estimates import Expectation, expectations
from app.rounds.models import Phase, Recipe, Stage, StageEvent
from app.rounds.resuming import resume_round
from app.rounds.views import labels_so_far, round_view
from app.settings import Settings
from tests.app.conftest import Person
from tests.app.loop import FIGURES, make_project, make_rankings, make_what_a_round_needs, run_stage
from tests.app.rounds.stages import claimed, make_loop, start

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
        took(session, stage, seconds)
        stage.result = {**(stage.result or {}), **result}
    session.commit()


def took(session: Session, stage: Stage, seconds: float) -> None:
    """As if the stage had been claimed so long before its end."""
    assert stage.finished_at is not None
    stage.started_at = stage.finished_at - timedelta(seconds=seconds)
    for event in session.scalars(select(StageEvent).where(StageEvent.stage_id == stage.id)):
        event.at = stage.finished_at if event.phase is Phase.ENDED else stage.started_at


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


def test_the_day_between_a_failure_and_a_resume_is_not_the_stages_time(session: Session, loop: Project) -> None:
    round = start(session, loop, "reward")
    held = claimed(session)
    claims.fail_stage(session, held, {"code": "x", "message": "no", "advice": ""}, now=clock(session))
    resume_round(session, round, account=None, now=clock(session))
    session.commit()
    held = claimed(session)
    claims.report(session, held, "Waits for the GPU.", Phase.WAITING_FOR_DEVICE)
    claims.report(session, held, "The recipe starts.", Phase.COMPUTING)
    made = results.StageResult(figures=FIGURES["reward"], manifest_sha256="cd" * 32)
    results.complete_stage(session, held, made, now=clock(session))
    stage, begin = round.stages[0], clock(session) - timedelta(days=2)
    # prepares 5 s, fails; is resumed a day later, waits 3 s, prepares 4 s, waits 600 s for the GPU, computes 50 s
    seconds = iter((0, 5, 86400, 86403, 86407, 87007, 87057))
    stage.started_at, stage.finished_at = begin, begin + timedelta(seconds=87057)
    for event in session.scalars(select(StageEvent).where(StageEvent.phase.is_not(None)).order_by(StageEvent.id)):
        event.at = begin + timedelta(seconds=next(seconds))
    session.commit()
    assert expect(session, loop, Recipe.REWARD).seconds == pytest.approx(59)
    assert round_view(session, round, clock(session)).stages[0].elapsed_s == pytest.approx(59)
    again = start(session, loop, "reward")
    assert round_view(session, again, clock(session)).stages[0].expected_s == pytest.approx(59)


def test_a_stage_whose_phases_nobody_wrote_down_took_the_time_from_its_start_to_its_end(
    session: Session, loop: Project
) -> None:
    ran(session, loop, 60, num_steps=24)
    for event in session.scalars(select(StageEvent)):
        event.phase = None
    session.commit()
    assert expect(session, loop, Recipe.PPO).seconds == pytest.approx(60)


def test_what_ran_before_a_stage_began_anew_is_not_its_time(session: Session, loop: Project) -> None:
    ran(session, loop, 60, num_steps=24)
    for stage in session.scalars(select(Stage)):
        begin, anew = stage.started_at, stage.finished_at
        assert begin is not None
        assert anew is not None
        first = session.scalars(select(StageEvent).where(StageEvent.stage_id == stage.id).order_by(StageEvent.id)).all()
        for event in first:
            event.at = begin
        stage.started_at = anew
        for phase, seconds in ((Phase.PREPARING, 0), (Phase.ENDED, 20)):
            at = anew + timedelta(seconds=seconds)
            session.add(StageEvent(stage_id=stage.id, attempt=2, text="It goes on.", phase=phase, at=at))
        first[-1].at = begin + timedelta(seconds=60)
    session.commit()
    assert expect(session, loop, Recipe.PPO).seconds == pytest.approx(20)


@pytest.mark.parametrize("batch_size", [8, 64])  # whole batches; a single one that is not full
def test_a_reward_model_reads_a_slate_once_whatever_rankings_it_has(
    session: Session, loop: Project, batch_size: int
) -> None:
    start(session, loop, "reward", overrides={Recipe.REWARD: {"batch_size": batch_size, "num_epochs": 2}})
    run_stage(session)
    (stage,) = session.scalars(select(Stage))
    took(session, stage, 60)
    steps = 2 * 16 // batch_size or 2
    stage.result = {"num_steps": steps, "num_train_slates": 16, "num_train_rankings": 48}
    session.commit()
    wanted = {"batch_size": batch_size, "num_epochs": 2}
    assert expect(session, loop, Recipe.REWARD, **wanted).seconds == pytest.approx(60)
    assert expect(session, loop, Recipe.REWARD, **wanted | {"num_epochs": 4}).seconds == pytest.approx(120)
    stage.result = {"num_steps": steps, "num_train_rankings": 48}  # before slates were counted
    assert expect(session, loop, Recipe.REWARD, **wanted | {"num_epochs": 4}).seconds == pytest.approx(120)


def test_a_retry_is_told_the_time_of_the_labels_that_its_round_froze(
    person: Any, session: Session, loop: Project
) -> None:
    admin: Person = person("Sita Site", is_site_admin=True)
    ran(session, loop, 120)
    start(session, loop, "reward")
    make_rankings(session, loop, Split.TRAIN, 12)  # four times as many, after the round was started
    held = claimed(session)
    claims.fail_stage(session, held, {"code": "x", "message": "no", "advice": ""}, now=clock(session))
    session.commit()
    assert expect(session, loop, Recipe.REWARD).seconds == pytest.approx(480)
    page = " ".join(admin.get(f"{ROUNDS}/2/retry").text.split())
    assert '<td class="numeric">2 min</td> <td>round 1, 2 min</td>' in page


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

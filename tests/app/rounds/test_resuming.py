"""A round that stopped goes on as it was or with other settings; a checkpoint is a start for its own settings alone."""

from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db import clock
from app.labeling.models import Demonstration
from app.projects.models import Project
from app.prompts.models import Split
from app.rounds import claims, results
from app.rounds.errors import BadRoundSetting, NoRewardModel
from app.rounds.models import Metric, Phase, Round, RoundState, Stage, StageEvent, StageSample, StageTry
from app.rounds.resuming import resume_round
from app.rounds.service import cancel_round
from tests.app.conftest import Person
from tests.app.loop import make_prompts, make_what_a_round_needs, run_stage
from tests.app.rounds.stages import claimed, start

ROUNDS = "/projects/everyday/rounds"
OUT_OF_MEMORY = {
    "code": "out_of_memory",
    "message": "the recipe ran out of memory on cpu; it needs about 3.1 GB",
    "advice": "lower ppo.micro_batch_tokens=16384 or set ppo.gradient_checkpointing=true, which change nothing else"
    " (activations take 2.0 of about 3.1 GB)",
    "last_lines": "step 2\nout of memory",
}


@pytest.fixture
def project(project: Project, session: Session) -> Project:
    """The project with all that a round needs."""
    make_what_a_round_needs(session, project)
    session.commit()
    return project


@pytest.fixture
def failed(session: Session, project: Project) -> Round:
    """A round whose PPO stage ran out of memory at step 2."""
    round = start(session, project)
    run_stage(session)
    held = claimed(session)
    results.record_metrics(session, held, [{"step": 1, "at": 0, "kl": 0.5}, {"step": 2, "at": 1, "kl": 0.75}])
    sample = {"step": 1, "position": 0, "prompt": "Hi", "completion": "Hello", "score": 0.5, "kl": 0.1}
    results.record_samples(session, held, [sample])
    claims.report(session, held, "The recipe starts.", Phase.COMPUTING)
    claims.fail_stage(session, held, OUT_OF_MEMORY, now=clock(session))
    session.commit()
    return round


def resume(session: Session, round: Round, **changes: Any) -> Stage:
    resume_round(session, round, account=None, now=clock(session), **changes)
    session.commit()
    return round.stages[1]


def last_event(session: Session) -> str:
    return session.scalars(select(StageEvent.text).order_by(StageEvent.id.desc()).limit(1)).one()


def test_a_stage_goes_on_from_its_checkpoint_where_only_how_it_computes_is_changed(
    session: Session, failed: Round
) -> None:
    folder = failed.stages[1].folder
    stage = resume(session, failed, overrides={"ppo": {"micro_batch_tokens": "1536"}})
    assert (stage.folder, stage.configuration["micro_batch_tokens"]) == (folder, 1536)
    assert session.scalars(select(StageTry)).all() == []
    assert last_event(session) == (
        "Queued again with ppo.micro_batch_tokens=1536 (was 16384); goes on from its last checkpoint."
    )


def test_a_stage_with_other_settings_begins_anew_in_a_folder_of_its_own_and_what_it_had_come_to_is_kept(
    session: Session, failed: Round
) -> None:
    stage = failed.stages[1]
    before, folder = dict(stage.configuration), stage.folder
    assert folder is not None
    resume(session, failed, overrides={"ppo": {"kl_coef": 0.3}})
    assert stage.folder == f"{folder}-2"
    assert stage.configuration == {**before, "kl_coef": 0.3}
    kept = session.scalars(select(StageTry)).one()
    assert (kept.number, kept.folder, kept.configuration) == (1, folder, before)
    assert (kept.error["code"], kept.last_step, kept.figures) == ("out_of_memory", 2, {"kl": 0.75})
    assert session.scalar(select(func.count()).select_from(Metric).where(Metric.stage_id == stage.id)) == 0
    assert session.scalar(select(func.count()).select_from(StageSample)) == 0
    assert "begins anew" in last_event(session)
    assert folder in last_event(session)
    assert claimed(session).stage_id == stage.id  # the reward model of the round is kept


def test_a_stage_that_begins_anew_a_second_time_has_a_third_folder(session: Session, failed: Round) -> None:
    folder = failed.stages[1].folder
    resume(session, failed, overrides={"ppo": {"kl_coef": 0.3}})
    claims.fail_stage(session, claimed(session), OUT_OF_MEMORY, now=clock(session))
    stage = resume(session, failed, begin_anew=["ppo"])  # the same settings, and no checkpoint of them
    assert stage.folder == f"{folder}-3"
    assert session.scalars(select(StageTry.folder).order_by(StageTry.number)).all() == [folder, f"{folder}-2"]


def test_a_stage_that_has_not_begun_takes_other_settings_without_a_try(session: Session, failed: Round) -> None:
    resume(session, failed, overrides={"evaluate": {"num_prompts": 50}})
    assert failed.stages[2].configuration["num_prompts"] == 50
    assert failed.stages[2].folder is None
    assert session.scalars(select(StageTry)).all() == []


def test_settings_that_are_wrong_or_of_a_stage_that_ended_well_change_nothing(session: Session, failed: Round) -> None:
    with pytest.raises(BadRoundSetting) as refused:
        resume(session, failed, overrides={"ppo": {"kl_coef": "-1"}, "reward": {"num_epochs": 3}})
    assert refused.value.problems["ppo.kl_coef"] == "must be at least 0"
    assert "ended well" in refused.value.problems["reward.num_epochs"]
    assert failed.state == RoundState.FAILED


def test_other_settings_may_need_what_is_not_there(session: Session, project: Project) -> None:
    for split in (Split.TRAIN, Split.VALIDATION):
        prompt = make_prompts(session, project, split)[0]
        session.add(Demonstration(prompt_id=prompt.id, text="Written by a person"))
    round = start(session, project, "sft")
    cancel_round(session, round, account=None, now=clock(session))
    with pytest.raises(NoRewardModel):
        resume(session, round, overrides={"sft": {"select_by": "score"}})


def test_the_round_that_failed_offers_what_its_advice_names(admin: Person, failed: Round) -> None:
    page = " ".join(admin.get(f"{ROUNDS}/1").text.split())
    assert "The stage ppo failed:</strong> the recipe ran out of memory" in page
    assert "computing, at step 2 of at most 500" in page
    assert "<code>out_of_memory</code>" in page
    assert f'href="{ROUNDS}/1/retry?set=ppo.micro_batch_tokens%3D8192"' in page
    assert f'href="{ROUNDS}/1/retry?set=ppo.gradient_checkpointing%3Dtrue"' in page
    form = admin.get(f"{ROUNDS}/1/retry?set=ppo.micro_batch_tokens%3D8192").text
    assert 'name="ppo.micro_batch_tokens" value="8192"' in form
    assert "It ran with: 16384." in form
    assert 'name="reward.num_epochs"' not in form


def test_a_retry_by_its_form_runs_with_what_was_changed_alone(admin: Person, session: Session, failed: Round) -> None:
    wanted = {"ppo.kl_coef": "0.3", "ppo.num_steps": "500", "evaluate.num_prompts": "500"}
    assert admin.post(f"{ROUNDS}/1/retry", data=wanted).status_code == 303
    session.expire_all()
    assert (failed.state, failed.stages[1].configuration["kl_coef"]) == (RoundState.QUEUED, 0.3)
    page = admin.get(f"{ROUNDS}/1").text
    assert "Try 1, before it began anew: failed at step 2" in page
    assert "out of memory" in page


def test_a_retry_that_breaks_a_rule_comes_back_with_it_and_nothing_is_changed(
    admin: Person, session: Session, failed: Round
) -> None:
    response = admin.post(f"{ROUNDS}/1/retry", data={"ppo.kl_coef": "-3"})
    assert response.status_code == 422
    assert "ppo.kl_coef must be at least 0" in response.text
    assert 'name="ppo.kl_coef" value="-3"' in response.text
    session.expire_all()
    assert failed.state == RoundState.FAILED


def test_a_round_that_runs_or_has_ended_well_cannot_be_retried(
    admin: Person, researcher: Person, session: Session, project: Project
) -> None:
    start(session, project, "reward")
    assert "only a failed or cancelled one" in admin.get(f"{ROUNDS}/1/retry").text
    run_stage(session)
    session.commit()
    response = admin.post(f"{ROUNDS}/1/retry", data={"reward.num_epochs": "3"})
    assert (response.status_code, "only a failed or cancelled one" in response.text) == (409, True)
    assert researcher.get(f"{ROUNDS}/1/retry").status_code == 403


def test_the_api_resumes_with_other_settings(admin: Person, session: Session, failed: Round) -> None:
    api = "/api/v1/projects/everyday/rounds/1/resume"
    refused = admin.post(api, json={"overrides": {"ppo": {"kl_coef": -1}}})
    assert (refused.status_code, refused.json()["code"]) == (422, "bad_setting")
    resumed = admin.post(api, json={"overrides": {"ppo": {"kl_coef": 0.25}}}).json()
    assert resumed["state"] == "queued"
    assert resumed["stages"][1]["configuration"]["kl_coef"] == 0.25

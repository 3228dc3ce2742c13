"""A stage reads the models that its round and its project have for it."""

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import clock
from app.labeling.models import Demonstration
from app.policies.models import PolicyState, PolicyVersion, RewardModelVersion
from app.policies.promotion import promote
from app.policies.service import current_version
from app.projects.models import Project
from app.prompts.models import Split
from app.rounds.inputs import MissingParent, stage_inputs
from app.rounds.results import StageResult, complete_stage
from app.settings import Settings
from tests.app.loop import (
    make_prompts,
    run_stage,
)
from tests.app.rounds.stages import claimed, make_loop, start


@pytest.fixture
def loop(session: Session) -> Project:
    return make_loop(session)


def test_ppo_starts_from_what_sft_made_in_the_same_round(session: Session, loop: Project, settings: Settings) -> None:
    for split in (Split.TRAIN, Split.VALIDATION):
        for prompt in make_prompts(session, loop, split):
            session.add(Demonstration(prompt_id=prompt.id, text="Written by a person"))
    start(session, loop, "sft", "reward", "ppo")
    run_stage(session)
    run_stage(session)
    inputs = stage_inputs(session, settings, claimed(session))
    sft = session.scalars(select(PolicyVersion).where(PolicyVersion.recipe == "sft")).one()
    reward_model = session.scalars(select(RewardModelVersion)).one()
    assert inputs.models == {
        "policy": str(settings.artifacts / "projects/loop/rounds/0001/sft/result"),
        "reward_model": str(settings.artifacts / "projects/loop/rounds/0001/reward/result"),
    }
    assert inputs.parents == {"policy_id": sft.id, "reward_model_id": reward_model.id}
    assert (sft.is_sft, sft.state) == (True, PolicyState.CANDIDATE)


def test_an_evaluation_compares_the_candidate_with_what_was_current(
    session: Session, loop: Project, settings: Settings
) -> None:
    baseline = current_version(session, loop)
    start(session, loop)
    run_stage(session)
    run_stage(session)
    inputs = stage_inputs(session, settings, claimed(session))
    assert set(inputs.models) == {"candidate", "current", "reference", "reward_model"}
    assert inputs.parents["current_id"] == baseline.id
    assert inputs.models["candidate"] == str(settings.artifacts / "projects/loop/rounds/0001/ppo/result")


def test_a_stage_without_a_reward_model_says_so(session: Session, loop: Project, settings: Settings) -> None:
    start(session, loop)
    run_stage(session)
    held = claimed(session)
    session.execute(RewardModelVersion.__table__.delete())
    with pytest.raises(MissingParent, match="no reward model"):
        stage_inputs(session, settings, held)


@pytest.mark.parametrize("recipe", ["ppo", "grpo", "rejection"])
def test_a_round_that_goes_on_from_the_current_policy_keeps_the_sft_policy_as_reference(
    session: Session, loop: Project, settings: Settings, recipe: str
) -> None:
    start(session, loop, "reward", "ppo")
    run_stage(session)
    run_stage(session)
    sft = current_version(session, loop)
    candidate = session.scalars(select(PolicyVersion).where(PolicyVersion.recipe == "ppo")).one()
    promote(session, loop, candidate, account=None, now=clock(session))
    start(session, loop, recipe, overrides={recipe: {"start_from": "current"}})
    inputs = stage_inputs(session, settings, claimed(session))
    assert inputs.models["policy"].endswith("rounds/0001/ppo/result")
    assert inputs.models["reference"] != inputs.models["policy"]
    assert (inputs.parents["policy_id"], inputs.parents["reference_id"]) == (candidate.id, sft.id)
    assert next(iter(inputs.models)) == "policy"  # what the others' tokenizers are compared with


def test_what_goes_on_from_the_current_policy_is_its_child(session: Session, loop: Project, settings: Settings) -> None:
    start(session, loop, "reward", "ppo")
    run_stage(session)
    run_stage(session)
    candidate = session.scalars(select(PolicyVersion).where(PolicyVersion.recipe == "ppo")).one()
    promote(session, loop, candidate, account=None, now=clock(session))
    for start_from, parent_id in (("current", candidate.id), ("sft", candidate.parent_id)):
        start(session, loop, "rejection", overrides={"rejection": {"start_from": start_from}})
        held = claimed(session)
        stage_inputs(session, settings, held)
        complete_stage(session, held, StageResult(figures={}, manifest_sha256="ab"), now=clock(session))
        made = session.scalars(select(PolicyVersion).order_by(PolicyVersion.number.desc())).first()
        assert made is not None
        assert (made.recipe, made.parent_id) == ("rejection", parent_id)


def test_a_round_that_starts_from_the_current_policy_where_that_is_the_sft_policy_has_one_parent(
    session: Session, loop: Project, settings: Settings
) -> None:
    start(session, loop, "reward", "grpo", overrides={"grpo": {"start_from": "current"}})
    run_stage(session)
    assert set(stage_inputs(session, settings, claimed(session)).models) == {"policy", "reward_model"}


def test_sft_that_is_chosen_by_score_reads_the_projects_last_reward_model(
    session: Session, loop: Project, settings: Settings
) -> None:
    for split in (Split.TRAIN, Split.VALIDATION):
        for prompt in make_prompts(session, loop, split):
            session.add(Demonstration(prompt_id=prompt.id, text="Written by a person"))
    start(session, loop, "reward")
    run_stage(session)
    start(session, loop, "sft", overrides={"sft": {"select_by": "score"}})
    inputs = stage_inputs(session, settings, claimed(session))
    assert inputs.models["reward_model"] == str(settings.artifacts / "projects/loop/rounds/0001/reward/result")

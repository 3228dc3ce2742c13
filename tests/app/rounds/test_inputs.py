"""A stage reads the models that its round and its project have for it."""

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.labeling.models import Demonstration
from app.policies.models import PolicyState, PolicyVersion, RewardModelVersion
from app.policies.service import current_version
from app.projects.models import Project
from app.prompts.models import Split
from app.rounds.inputs import MissingParent, stage_inputs
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

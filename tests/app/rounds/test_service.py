"""Rounds are started whole or not at all, called off and taken up again."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.datasets.models import Snapshot
from app.datasets.snapshots import create_snapshot
from app.db import SessionFactory, clock
from app.labeling.models import Demonstration
from app.projects.models import Project
from app.prompts.models import Prompt, Split
from app.rounds import claims
from app.rounds.errors import (
    BadRoundSetting,
    BadStages,
    NoDemonstrations,
    NoNewRankings,
    NoPrompts,
    NoRankings,
    NoRewardModel,
    NotResumable,
    NoValidationRankings,
    RoundIsActive,
    RoundIsOver,
)
from app.rounds.models import Round, RoundState, StageState
from app.rounds.resuming import resume_round
from app.rounds.service import cancel_round, derived_seed, start_round
from tests.app.loop import (
    HOUR,
    make_project,
    make_prompts,
    make_rankings,
    make_slate,
    make_what_a_round_needs,
    rank,
    run_stage,
)

STAGES = ("reward", "ppo", "evaluate")


@pytest.fixture
def project(session: Session) -> Project:
    """A project with all that a round needs."""
    project = make_project(session, max_completion_tokens=33)
    make_what_a_round_needs(session, project)
    session.commit()
    return project


def start(session: Session, project: Project, **changes: Any) -> Round:
    wanted: dict[str, Any] = {"stages": STAGES, "overrides": {}, "account": None, "evaluation_comparisons": 4}
    return start_round(session, project, **{**wanted, **changes}, now=clock(session))


def test_a_round_writes_down_every_setting_it_will_run_with(session: Session, project: Project) -> None:
    round = start(session, project, overrides={"ppo": {"kl_coef": "0.07"}}, seed=11)
    assert [(stage.recipe, stage.state, stage.preset, stage.seed) for stage in round.stages] == [
        (recipe, "queued", "small", 11) for recipe in STAGES
    ]
    ppo = round.stages[1].configuration
    assert ppo["kl_coef"] == 0.07
    assert ppo["clip"] == 0.2
    assert ppo["max_completion_tokens"] == 33  # as long as on the slates


def test_a_round_freezes_the_rankings_so_far(session: Session, project: Project) -> None:
    round = start(session, project)
    snapshot = session.get_one(Snapshot, round.snapshot_id)
    assert (snapshot.name, snapshot.num_rankings, snapshot.num_comparisons) == ("round-0001", 4, 24)


def test_a_round_starts_though_somebody_used_the_name_of_its_snapshot(session: Session, project: Project) -> None:
    for name in ("round-0001", "round-0001-2"):
        create_snapshot(session, project, name=name, account=None, now=clock(session))
    round = start(session, project)
    assert session.get_one(Snapshot, round.snapshot_id).name == "round-0001-3"


def test_a_seed_follows_from_the_project_and_the_round(session: Session, project: Project) -> None:
    first = start(session, project)
    cancel_round(session, first, account=None, now=clock(session))
    second = start(session, project)
    assert (first.seed, second.seed) == (derived_seed(project, 1), derived_seed(project, 2))
    assert first.seed != second.seed


def test_stages_run_in_the_order_of_the_loop(session: Session, project: Project) -> None:
    round = start(session, project, stages=["evaluate", "ppo", "reward"])
    assert [stage.recipe for stage in round.stages] == list(STAGES)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], "needs a stage"),
        (["ppoo"], "no stage 'ppoo'"),
        (["reward", "reward"], "named twice"),
        (["reward", "evaluate"], "choose one of sft, ppo, grpo, rejection too"),
        (["reward", "ppo", "grpo"], "choose one of ppo and grpo"),
        (["ppo", "grpo", "rejection"], "choose one of ppo and grpo and rejection"),
    ],
)
def test_stages_that_make_no_round_are_refused(
    session: Session, project: Project, stages: list[str], message: str
) -> None:
    with pytest.raises(BadStages, match=message):
        start(session, project, stages=stages)
    assert session.scalar(select(func.count(Round.id))) == 0


def test_every_wrong_setting_is_named_with_its_rule(session: Session, project: Project) -> None:
    overrides = {
        "ppo": {"kl_coef": "-1", "num_steps": "many", "minibatch_size": "7"},
        "reward": {"learning_rat": "1"},
        "sft": {"num_epochs": "2"},
    }
    with pytest.raises(BadRoundSetting) as refused:
        start(session, project, overrides=overrides)
    assert refused.value.problems == {
        "ppo.kl_coef": "must be at least 0",
        "ppo.num_steps": "must be a whole number",
        "reward.learning_rat": "is no setting of reward; did you mean learning_rate?",
        "sft.num_epochs": "belongs to a stage that was not chosen",
    }


def test_a_rule_between_two_settings_is_checked_on_what_was_given_together(session: Session, project: Project) -> None:
    with pytest.raises(BadRoundSetting, match=r"ppo\.minibatch_size must divide ppo\.batch_size=30"):
        start(session, project, overrides={"ppo": {"batch_size": 30, "minibatch_size": 20}})
    start(session, project, overrides={"ppo": {"batch_size": 40, "minibatch_size": 20}})


def test_a_round_without_rankings_is_refused(session: Session) -> None:
    project = make_project(session)
    make_prompts(session, project, Split.TEST)
    with pytest.raises(NoRankings):
        start(session, project)


def test_a_ranking_that_is_all_ties_is_nothing_to_learn_from(session: Session) -> None:
    project = make_project(session)
    make_rankings(session, project, Split.VALIDATION)
    (prompt,) = make_prompts(session, project, Split.TRAIN)
    rank(session, make_slate(session, prompt), [1, 1, 1, 1])
    with pytest.raises(NoRankings):
        start(session, project, stages=["reward"])


def test_a_round_without_validation_rankings_is_refused(session: Session) -> None:
    project = make_project(session)
    make_rankings(session, project, Split.TRAIN)
    with pytest.raises(NoValidationRankings):
        start(session, project, stages=["reward"])
    make_rankings(session, project, Split.VALIDATION)
    start(session, project, stages=["reward"])


def test_an_evaluation_without_test_prompts_is_refused(session: Session) -> None:
    project = make_project(session)
    make_rankings(session, project, Split.TRAIN)
    make_rankings(session, project, Split.VALIDATION)
    with pytest.raises(NoPrompts, match="evaluate needs prompts of the test split"):
        start(session, project)


def test_a_prompt_that_was_set_aside_is_no_test_prompt(session: Session) -> None:
    project = make_project(session)
    make_what_a_round_needs(session, project)
    for prompt in session.scalars(select(Prompt).where(Prompt.split == Split.TEST)):
        prompt.set_aside_at, prompt.set_aside_reason = clock(session), "too long"
    with pytest.raises(NoPrompts):
        start(session, project)


def test_ppo_without_any_reward_model_is_refused(session: Session, project: Project) -> None:
    with pytest.raises(NoRewardModel, match="ppo needs a reward model"):
        start(session, project, stages=["ppo"])


def test_ppo_may_use_the_reward_model_of_an_earlier_round(session: Session, project: Project) -> None:
    start(session, project, stages=["reward"])
    run_stage(session)
    assert start(session, project, stages=["ppo"]).snapshot_id is None


@pytest.mark.parametrize("recipe", ["ppo", "grpo", "rejection"])
def test_each_way_to_improve_a_policy_makes_a_round_of_its_own(session: Session, project: Project, recipe: str) -> None:
    round = start(session, project, stages=["evaluate", recipe, "reward"])
    assert [stage.recipe for stage in round.stages] == ["reward", recipe, "evaluate"]
    assert round.stages[1].configuration["max_completion_tokens"] == 33
    assert round.stages[1].configuration["start_from"] == "sft"


@pytest.mark.parametrize("recipe", ["grpo", "rejection"])
def test_every_way_to_improve_a_policy_needs_prompts_to_roll_out_and_a_reward_model(
    session: Session, project: Project, recipe: str
) -> None:
    with pytest.raises(NoRewardModel, match=f"{recipe} needs a reward model"):
        start(session, project, stages=[recipe])
    for prompt in session.scalars(select(Prompt).where(Prompt.split == Split.TRAIN)):
        prompt.set_aside_at, prompt.set_aside_reason = clock(session), "too long"
    with pytest.raises(NoPrompts, match=f"{recipe} needs prompts of the train split"):
        start(session, project, stages=["reward", recipe])


def test_choosing_sft_by_score_needs_the_reward_model_of_an_earlier_round(session: Session, project: Project) -> None:
    for split in (Split.TRAIN, Split.VALIDATION):
        for prompt in make_prompts(session, project, split):
            session.add(Demonstration(prompt_id=prompt.id, text="Written by a person"))
    by_score = {"sft": {"select_by": "score"}}
    with pytest.raises(NoRewardModel, match="fit one in a round before this one"):
        start(session, project, stages=["sft", "reward"], overrides=by_score)
    start(session, project, stages=["reward"])
    run_stage(session)
    assert start(session, project, stages=["sft"], overrides=by_score).stages[0].configuration["select_by"] == "score"


def test_learning_from_new_rankings_alone_needs_some_on_both_sides(session: Session, project: Project) -> None:
    only_new = {"reward": {"labels": "latest_round"}}
    start(session, project, stages=["reward"], overrides=only_new)  # of a first round all are new
    run_stage(session)
    with pytest.raises(NoNewRankings, match="of the train split"):
        start(session, project, stages=["reward"], overrides=only_new)
    make_rankings(session, project, Split.TRAIN, 1)
    with pytest.raises(NoNewRankings, match="of the validation split"):
        start(session, project, stages=["reward"], overrides=only_new)
    make_rankings(session, project, Split.VALIDATION, 1)
    assert start(session, project, stages=["reward"], overrides=only_new).number == 2


def test_a_round_that_learned_nothing_uses_up_no_rankings(session: Session, project: Project) -> None:
    only_new = {"reward": {"labels": "latest_round"}}
    round = start(session, project, stages=["reward"])
    cancel_round(session, round, account=None, now=clock(session))
    assert start(session, project, stages=["reward"], overrides=only_new).number == 2


def test_ppo_alone_freezes_demonstrations_where_it_may_learn_them_beside(session: Session, project: Project) -> None:
    start(session, project, stages=["reward"])
    run_stage(session)
    mixed = {"ppo": {"ptx_coef": 27.8}}
    round = start(session, project, stages=["ppo"], overrides=mixed)
    assert round.snapshot_id is None  # there are none, and the trainer may know of other texts
    cancel_round(session, round, account=None, now=clock(session))
    session.add(Demonstration(prompt_id=make_prompts(session, project, Split.TRAIN)[0].id, text="Written by a person"))
    round = start(session, project, stages=["ppo"], overrides=mixed)
    assert round.snapshot_id is not None
    assert session.get_one(Snapshot, round.snapshot_id).counts["demonstration_split"]["train"] == 1


def test_sft_without_demonstrations_is_refused(session: Session, project: Project) -> None:
    with pytest.raises(NoDemonstrations):
        start(session, project, stages=["sft"])


def test_of_two_admins_who_start_at_once_one_is_told_of_the_other(project: Project) -> None:
    def press(_: int) -> str:
        with SessionFactory() as session:
            try:
                start(session, session.get_one(Project, project.id))
            except RoundIsActive as error:
                return str(error)
            session.commit()
            return "started"

    with ThreadPoolExecutor(2) as people:
        answers = sorted(people.map(press, range(2)))
    assert answers[1] == "started"
    assert answers[0].startswith("Round 1 is under way")


def test_a_waiting_round_is_cancelled_at_once(session: Session, project: Project) -> None:
    round = start(session, project)
    cancel_round(session, round, account=None, now=clock(session))
    assert round.state == RoundState.CANCELLED
    assert {stage.state for stage in round.stages} == {StageState.CANCELLED}


def test_a_running_stage_is_asked_to_stop(session: Session, project: Project) -> None:
    round = start(session, project)
    claim = claims.claim_stage(session, owner="trainer", duration=HOUR, now=clock(session))
    assert claim is not None
    cancel_round(session, round, account=None, now=clock(session))
    assert round.state == RoundState.RUNNING
    assert claims.renew_stage(session, claim, duration=HOUR, now=clock(session)) is True


def test_a_round_whose_trainer_died_is_cancelled_at_once(session: Session, project: Project) -> None:
    round = start(session, project)
    claims.claim_stage(session, owner="trainer", duration=-HOUR, now=clock(session))
    cancel_round(session, round, account=None, now=clock(session))
    assert round.state == RoundState.CANCELLED


def test_a_round_that_ended_cannot_be_cancelled(session: Session, project: Project) -> None:
    round = start(session, project, stages=["reward"])
    run_stage(session)
    with pytest.raises(RoundIsOver, match="Round 1 has ended"):
        cancel_round(session, round, account=None, now=clock(session))


def test_a_failed_round_goes_on_where_it_failed(session: Session, project: Project) -> None:
    round = start(session, project)
    run_stage(session)
    claim = claims.claim_stage(session, owner="trainer", duration=HOUR, now=clock(session))
    assert claim is not None
    error = {"code": "out_of_memory", "message": "It ran out of memory.", "advice": "Halve it.", "last_lines": []}
    claims.fail_stage(session, claim, error, now=clock(session))
    resume_round(session, round, account=None, now=clock(session))
    assert round.state == RoundState.QUEUED
    assert [stage.state for stage in round.stages] == ["succeeded", "queued", "queued"]
    run_stage(session)
    assert round.stages[1].state == StageState.SUCCEEDED


def test_a_round_that_succeeded_cannot_be_resumed(session: Session, project: Project) -> None:
    round = start(session, project, stages=["reward"])
    run_stage(session)
    with pytest.raises(NotResumable, match="Round 1 is succeeded"):
        resume_round(session, round, account=None, now=clock(session))


def test_a_round_cannot_be_resumed_while_another_is_under_way(session: Session, project: Project) -> None:
    first = start(session, project)
    cancel_round(session, first, account=None, now=clock(session))
    start(session, project)
    with pytest.raises(RoundIsActive, match="Round 2 is under way"):
        resume_round(session, first, account=None, now=clock(session))

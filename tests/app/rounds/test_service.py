"""Rounds are started whole or not at all, called off, taken up again, and concluded by people's comparisons."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.datasets.models import Snapshot
from app.datasets.snapshots import create_snapshot
from app.db import SessionFactory, clock
from app.labeling.models import Demonstration, Lease, Slate, SlateState
from app.policies.evaluation import tally_of, win_rate
from app.policies.models import PolicyState, PolicyVersion
from app.policies.service import current_version
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
    NotAwaitingLabels,
    NotResumable,
    NoValidationRankings,
    RoundIsActive,
    RoundIsOver,
)
from app.rounds.models import Round, RoundState, Stage, StageState
from app.rounds.resuming import resume_round
from app.rounds.service import (
    cancel_round,
    conclude_if_compared,
    derived_seed,
    end_comparison,
    start_round,
)
from tests.app.loop import (
    HOUR,
    compare,
    evaluation_slates,
    make_account,
    make_labeler,
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


def awaiting_labels(session: Session, project: Project, num: int = 4) -> Round:
    """A round whose stages are done and whose comparisons wait."""
    make_prompts(session, project, Split.TEST, max(0, num - 6))
    round = start(session, project, evaluation_comparisons=num)
    run_stage(session)
    run_stage(session)
    run_stage(session, num_pairs=max(6, num))
    return round


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


def test_the_last_comparison_ends_the_round(session: Session, project: Project) -> None:
    round = awaiting_labels(session, project)
    assert round.state == RoundState.AWAITING_LABELS
    *others, last = evaluation_slates(session, round)
    for slate in others:
        compare(session, round, slate, "win")
        conclude_if_compared(session, round.id, clock(session))
    assert round.state == RoundState.AWAITING_LABELS
    compare(session, round, last, "win")
    conclude_if_compared(session, round.id, clock(session))
    assert round.state == RoundState.SUCCEEDED


# Of wins alone eleven are needed for an interval above one half: benchmarks/results/sequential.md.
@pytest.mark.parametrize(
    ("bound", "state", "decision", "num_asked"),
    [(None, "candidate", "better", 11), (0.5, "current", "better", 11), (0.55, "candidate", "undecided", 12)],
)
def test_a_round_ends_when_its_comparisons_decide_and_the_rule_promotes(
    session: Session, project: Project, bound: float | None, state: str, decision: str, num_asked: int
) -> None:
    project.promotes_at_lower_bound = bound
    round = awaiting_labels(session, project, num=12)
    given = compare_all(session, round, ["win"] * 12)
    session.expire_all()
    assert (round.state, given) == (RoundState.SUCCEEDED, num_asked)
    assert round.verdict is not None
    assert (round.verdict["decision"], round.verdict["wins"]) == (decision, num_asked)
    assert session.get_one(PolicyVersion, round.candidate_id).state == PolicyState(state)
    left = [slate.state for slate in evaluation_slates(session, round) if slate.state != SlateState.DONE]
    assert left == [SlateState.RETIRED] * (12 - num_asked)


def test_comparisons_end_too_when_the_candidate_cannot_be_worth_it(session: Session, project: Project) -> None:
    project.promotes_at_lower_bound = 0.5
    project.worthwhile_win_rate = 0.7  # eight losses refute it, twelve would be needed for one half
    round = awaiting_labels(session, project, num=12)
    given = compare_all(session, round, ["loss"] * 12)
    assert round.verdict is not None
    assert (round.verdict["decision"], round.verdict["worth"], given < 11) == ("not_enough", 0.7, True)
    assert current_version(session, project).number == 1


def test_what_comes_after_the_decision_is_kept_and_does_not_change_it(session: Session, project: Project) -> None:
    round = awaiting_labels(session, project, num=12)
    slates = evaluation_slates(session, round)
    compare_all(session, round, ["win"] * 11)
    compare(session, round, slates[-1], "loss")  # by somebody who held it
    conclude_if_compared(session, round.id, clock(session))
    verdict = win_rate(session, round)
    assert verdict is not None
    assert (verdict.wins, verdict.losses, verdict.decision) == (11, 0, "better")
    assert tally_of(session, round).losses == 1


def test_a_slate_that_somebody_holds_stays_when_the_others_are_retired(session: Session, project: Project) -> None:
    round = awaiting_labels(session, project, num=12)
    held = evaluation_slates(session, round)[-1]
    now = clock(session)
    lease = Lease(
        slate_id=held.id,
        labeler_id=make_labeler(session, project).id,
        slot=1,
        order_shown=[completion.id for completion in held.completions],
        granted_at=now,
        expires_at=now + HOUR,
    )
    session.add(lease)
    session.flush()
    compare_all(session, round, ["win"] * 10 + ["tie"])
    end_comparison(session, round, account=make_account(session), now=clock(session))
    session.expire_all()
    assert held.state == SlateState.READY


def test_two_submits_at_once_end_a_round_once(session: Session, project: Project) -> None:
    """Both have stored their ranking before either asks whether the round is over."""
    round = awaiting_labels(session, project, num=2)
    first, second = evaluation_slates(session, round)
    session.commit()
    barrier = Barrier(2)

    def submit(slate_id: UUID) -> None:
        with SessionFactory.begin() as own:
            its_round = own.get_one(Round, round.id)
            compare(own, its_round, own.get_one(Slate, slate_id), "win", labeler_name=str(slate_id))
            barrier.wait(timeout=30)
            conclude_if_compared(own, round.id, clock(own))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(submit, [first.id, second.id]))
    session.expire_all()
    assert round.state == RoundState.SUCCEEDED
    assert round.verdict is not None
    assert round.verdict["wins"] == 2


def compare_all(session: Session, round: Round, outcomes: list[str]) -> int:
    """Comparisons one after another, as labelers submit them; returns how many were asked before the round ended."""
    given = 0
    for slate, outcome in zip(evaluation_slates(session, round), outcomes, strict=False):
        if round.state != RoundState.AWAITING_LABELS:
            break
        compare(session, round, slate, outcome)
        conclude_if_compared(session, round.id, clock(session))
        given += 1
    return given


def test_a_comparison_can_be_ended_with_what_is_in(session: Session, project: Project) -> None:
    round = awaiting_labels(session, project)
    first, *others = evaluation_slates(session, round)
    compare(session, round, first, "loss")
    end_comparison(session, round, account=make_account(session), now=clock(session))
    assert round.state == RoundState.SUCCEEDED
    session.expire_all()
    assert {session.get_one(Slate, slate.id).state for slate in others} == {SlateState.RETIRED}
    assert current_version(session, project).number == 1


def test_a_round_that_waits_for_nobody_has_no_comparison_to_end(session: Session, project: Project) -> None:
    round = start(session, project)
    with pytest.raises(NotAwaitingLabels):
        end_comparison(session, round, account=make_account(session), now=clock(session))


def test_a_comparison_that_was_called_off_is_taken_up_again_by_a_resume(session: Session, project: Project) -> None:
    round = awaiting_labels(session, project)
    compare(session, round, evaluation_slates(session, round)[0], "win")
    cancel_round(session, round, account=None, now=clock(session))
    resume_round(session, round, account=None, now=clock(session))
    run_stage(session, num_pairs=6)
    assert round.state == RoundState.AWAITING_LABELS
    waiting = [slate for slate in evaluation_slates(session, round) if slate.state == SlateState.READY]
    assert len(waiting) == 3  # one of the four is in
    assert session.scalar(select(func.count(Stage.id)).where(Stage.round_id == round.id)) == 3

"""What a stage reports is stored once, and what it made becomes a version."""

from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.datasets.reading import ranking_rows
from app.db import SessionFactory, clock
from app.labeling.models import Demonstration, Slate
from app.policies.models import PolicyState, PolicyVersion, RewardModelVersion
from app.projects.models import Project
from app.prompts.models import Split
from app.reward_models.models import RewardEvaluation
from app.rounds import claims, results
from app.rounds.models import Metric, Round, RoundState, Stage, StageSample
from app.rounds.results import StageResult, complete_stage
from tests.app.loop import (
    FIGURES,
    evaluation_slates,
    make_prompts,
    run_stage,
)
from tests.app.reward_models.fitted import make_loop as make_ranked_loop
from tests.app.reward_models.fitted import naive, score_rows
from tests.app.rounds.stages import claim, claimed, make_loop, stage_of, start, take_over


@pytest.fixture
def loop(session: Session) -> Project:
    return make_loop(session)


def metrics(session: Session) -> dict[tuple[str, int], float]:
    return {(row.name, row.step): row.value for row in session.scalars(select(Metric))}


def test_a_round_goes_through_its_stages_in_order_and_makes_a_candidate(session: Session, loop: Project) -> None:
    round = start(session, loop)
    recipes = []
    for _ in range(3):
        waiting = claimed(session)
        recipes.append(stage_of(session, waiting).recipe.value)
        assert claim(session, "other") is None  # the later stages wait for this one
        claims.release_stage(session, waiting, "Handed back.")
        run_stage(session)
    assert recipes == ["reward", "ppo", "evaluate"]
    candidate = session.get_one(PolicyVersion, round.candidate_id)
    assert (round.state, candidate.state, candidate.number) == (RoundState.SUCCEEDED, PolicyState.CANDIDATE, 2)
    assert candidate.source == "rounds:projects/loop/rounds/0001/ppo/result"
    assert candidate.parent_id == round.sft_policy_id
    reward_model = session.scalars(select(RewardModelVersion)).one()
    assert reward_model.source == "projects/loop/rounds/0001/reward/result"


def test_what_sft_makes_is_what_the_next_stage_of_the_round_starts_from(session: Session, loop: Project) -> None:
    for split in (Split.TRAIN, Split.VALIDATION):
        session.add(Demonstration(prompt_id=make_prompts(session, loop, split)[0].id, text="Written by a person"))
    round = start(session, loop, "sft", "reward", "ppo")
    before = round.sft_policy_id
    run_stage(session)
    made = session.scalars(select(PolicyVersion).where(PolicyVersion.is_sft, PolicyVersion.number == 2)).one()
    assert (round.sft_policy_id, made.parent_id) == (made.id, before)
    run_stage(session)
    run_stage(session)
    candidate = session.get_one(PolicyVersion, round.candidate_id)
    assert (candidate.number, candidate.is_sft, candidate.parent_id) == (3, False, made.id)


def test_metrics_are_replaced_and_cut_back_when_a_stage_resumes(session: Session, loop: Project) -> None:
    start(session, loop)
    held = claimed(session)
    results.record_metrics(session, held, [{"step": step, "at": 1e9, "loss": 1.0 / step} for step in (1, 2, 3)])
    second = take_over(session)
    results.record_metrics(session, second, [{"step": step, "at": 2e9, "loss": 10.0 * step} for step in (1, 2)])
    assert metrics(session) == {("loss", 1): 10.0, ("loss", 2): 20.0}


def test_only_finite_numbers_become_metrics(session: Session, loop: Project) -> None:
    start(session, loop)
    row = {"step": 1, "at": 1e9, "loss": 0.5, "phase": "sample", "kl": float("nan"), "is_best": True}
    results.record_metrics(session, claimed(session), [row])
    assert metrics(session) == {("loss", 1): 0.5}


def test_many_metrics_fit_into_one_report(session: Session, loop: Project) -> None:
    start(session, loop)
    rows = [{"step": step, "at": 1e9, "loss": 1.0, "accuracy": 0.5} for step in range(1500)]
    results.record_metrics(session, claimed(session), rows)
    assert session.scalar(select(func.count()).select_from(Metric)) == 3000


def test_samples_are_stored_by_step_and_position(session: Session, loop: Project) -> None:
    start(session, loop)
    held = claimed(session)
    rows = [{"step": 1, "position": p, "prompt": "Hi", "completion": f"Ho {p}", "score": 0.5} for p in (0, 1)]
    results.record_samples(session, held, rows)
    results.record_samples(session, held, rows)
    stored = session.scalars(select(StageSample).order_by(StageSample.position)).all()
    assert [(row.completion, row.score, row.kl) for row in stored] == [("Ho 0", 0.5, None), ("Ho 1", 0.5, None)]


def test_people_compare_before_a_round_that_asks_for_it_is_over(session: Session, loop: Project) -> None:
    round = start(session, loop, evaluation_comparisons=2)
    run_stage(session)
    run_stage(session)
    run_stage(session, num_pairs=4)
    assert (round.state, len(evaluation_slates(session, round))) == (RoundState.AWAITING_LABELS, 2)


def test_a_round_that_finds_nothing_to_compare_is_over(session: Session, loop: Project) -> None:
    round = start(session, loop, evaluation_comparisons=2)
    for _ in range(3):
        run_stage(session, num_pairs=0)
    assert (round.state, session.scalar(select(func.count(Slate.id)).where(Slate.round_id == round.id))) == (
        RoundState.SUCCEEDED,
        0,
    )


def test_a_reward_stages_report_is_made_while_nobody_is_kept_waiting(
    session: Session, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads every scored ranking, which takes a while: round, stage and project can be locked meanwhile."""
    make_ranked_loop(session, project)
    round = start(session, project, "reward")
    claim = claimed(session)
    session.commit()
    assert round.snapshot_id is not None
    rows = score_rows(list(ranking_rows(session, round.snapshot_id)), naive)
    session.rollback()
    make, num_made = results.report_of_stage, []

    def looked_on(*given: Any) -> Any:
        report = make(*given)
        with SessionFactory() as other:
            for table in (Round, Stage, Project):
                num_made.append(len(other.scalars(select(table.id).with_for_update(nowait=True)).all()))
        return report

    monkeypatch.setattr(results, "report_of_stage", looked_on)
    bare = StageResult(figures=FIGURES["reward"], manifest_sha256="cd" * 32, scores=rows)
    with SessionFactory.begin() as own:
        result = results.with_report(own, claim, bare)
    assert num_made == [1, 1, 1]
    with SessionFactory.begin() as own:
        complete_stage(own, claim, result, now=clock(own))
    assert num_made == [1, 1, 1]  # nothing of it is made under the locks
    assert session.scalars(select(RewardEvaluation.report)).one() == result.report

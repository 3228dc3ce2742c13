"""Stages are claimed in order and by one trainer; only the current attempt is believed; every end is written down."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db import SessionFactory, clock
from app.labeling.models import Demonstration, Slate
from app.policies.models import PolicyState, PolicyVersion, RewardModelVersion
from app.policies.service import current_version
from app.projects.models import Project
from app.prompts.models import Split
from app.rounds import devices, work
from app.rounds.models import Heartbeat, Metric, Round, RoundState, Stage, StageEvent, StageSample, StageState
from app.rounds.service import cancel_round, resume_round, start_round
from app.rounds.work import ClaimLost, MissingParent, StageClaim, StageResult
from app.settings import Settings
from tests.app.loop import (
    HOUR,
    evaluation_slates,
    make_project,
    make_prompts,
    make_what_a_round_needs,
    run_stage,
)

MINUTE = timedelta(minutes=1)
FAILURE = {"code": "killed", "message": "the recipe was killed", "advice": "resume", "last_lines": "…"}


@pytest.fixture
def loop(session: Session) -> Project:
    project = make_project(session, evaluation_comparisons=0)
    make_what_a_round_needs(session, project)
    session.commit()
    return project


def start(session: Session, project: Project, *stages: str, **options: Any) -> Round:
    round = start_round(
        session,
        project,
        stages=stages or ("reward", "ppo", "evaluate"),
        overrides={},
        account=None,
        now=clock(session),
        **options,
    )
    session.commit()
    return round


def claim(session: Session, owner: str = "trainer") -> StageClaim | None:
    return work.claim_stage(session, owner=owner, duration=MINUTE, now=clock(session))


def claimed(session: Session, owner: str = "trainer") -> StageClaim:
    found = claim(session, owner)
    assert found is not None
    return found


def take_over(session: Session) -> StageClaim:
    """What a second trainer does once the first one has gone silent."""
    found = work.claim_stage(session, owner="second", duration=MINUTE, now=clock(session) + 2 * MINUTE)
    assert found is not None
    return found


def stage_of(session: Session, held: StageClaim) -> Stage:
    return session.get_one(Stage, held.stage_id, populate_existing=True)


def metrics(session: Session) -> dict[tuple[str, int], float]:
    return {(row.name, row.step): row.value for row in session.scalars(select(Metric))}


def test_a_round_goes_through_its_stages_in_order_and_makes_a_candidate(session: Session, loop: Project) -> None:
    round = start(session, loop)
    recipes = []
    for _ in range(3):
        waiting = claimed(session)
        recipes.append(stage_of(session, waiting).recipe.value)
        assert claim(session, "other") is None  # the later stages wait for this one
        work.release_stage(session, waiting, "Handed back.")
        run_stage(session)
    assert recipes == ["reward", "ppo", "evaluate"]
    candidate = session.get_one(PolicyVersion, round.candidate_id)
    assert (round.state, candidate.state, candidate.number) == (RoundState.SUCCEEDED, PolicyState.CANDIDATE, 2)
    assert candidate.source == "rounds:projects/loop/rounds/0001/ppo/result"
    assert candidate.parent_id == round.sft_policy_id
    reward_model = session.scalars(select(RewardModelVersion)).one()
    assert reward_model.source == "projects/loop/rounds/0001/reward/result"


def test_one_stage_is_claimed_by_one_trainer_however_many_try(session: Session, loop: Project) -> None:
    start(session, loop)

    def claim_alone(number: int) -> StageClaim | None:
        with SessionFactory.begin() as own:
            return claim(own, str(number))

    with ThreadPoolExecutor(8) as pool:
        assert sum(found is not None for found in pool.map(claim_alone, range(16))) == 1


def test_a_silent_trainers_stage_is_taken_over_and_its_reports_are_refused(session: Session, loop: Project) -> None:
    start(session, loop)
    first = claimed(session, "first")
    assert claim(session, "early") is None
    second = take_over(session)
    assert (second.stage_id, second.attempt) == (first.stage_id, 2)
    late = StageResult(figures={}, manifest_sha256="ab" * 32)
    for report in (
        lambda: work.renew_stage(session, first, duration=MINUTE, now=clock(session)),
        lambda: work.record_metrics(session, first, [{"step": 1, "at": 0.0, "loss": 1.0}]),
        lambda: work.record_samples(session, first, [{"step": 1, "position": 0, "prompt": "", "completion": ""}]),
        lambda: work.complete_stage(session, first, late, now=clock(session)),
        lambda: work.fail_stage(session, first, FAILURE, now=clock(session)),
        lambda: work.release_stage(session, first, "late"),
    ):
        with pytest.raises(ClaimLost):
            report()
    assert (metrics(session), stage_of(session, second).state) == ({}, StageState.RUNNING)
    assert "went silent" in " ".join(session.scalars(select(StageEvent.text)))


def test_a_claim_whose_deadline_passed_unnoticed_can_still_be_renewed(session: Session, loop: Project) -> None:
    start(session, loop)
    held = claimed(session)
    later = clock(session) + HOUR  # the database was away
    assert work.renew_stage(session, held, duration=MINUTE, now=later) is False
    assert work.claim_stage(session, owner="other", duration=MINUTE, now=later) is None


def test_metrics_are_replaced_and_cut_back_when_a_stage_resumes(session: Session, loop: Project) -> None:
    start(session, loop)
    held = claimed(session)
    work.record_metrics(session, held, [{"step": step, "at": 1e9, "loss": 1.0 / step} for step in (1, 2, 3)])
    second = take_over(session)
    work.record_metrics(session, second, [{"step": step, "at": 2e9, "loss": 10.0 * step} for step in (1, 2)])
    assert metrics(session) == {("loss", 1): 10.0, ("loss", 2): 20.0}


def test_only_finite_numbers_become_metrics(session: Session, loop: Project) -> None:
    start(session, loop)
    row = {"step": 1, "at": 1e9, "loss": 0.5, "phase": "sample", "kl": float("nan"), "is_best": True}
    work.record_metrics(session, claimed(session), [row])
    assert metrics(session) == {("loss", 1): 0.5}


def test_many_metrics_fit_into_one_report(session: Session, loop: Project) -> None:
    start(session, loop)
    rows = [{"step": step, "at": 1e9, "loss": 1.0, "accuracy": 0.5} for step in range(1500)]
    work.record_metrics(session, claimed(session), rows)
    assert session.scalar(select(func.count()).select_from(Metric)) == 3000


def test_samples_are_stored_by_step_and_position(session: Session, loop: Project) -> None:
    start(session, loop)
    held = claimed(session)
    rows = [{"step": 1, "position": p, "prompt": "Hi", "completion": f"Ho {p}", "score": 0.5} for p in (0, 1)]
    work.record_samples(session, held, rows)
    work.record_samples(session, held, rows)
    stored = session.scalars(select(StageSample).order_by(StageSample.position)).all()
    assert [(row.completion, row.score, row.kl) for row in stored] == [("Ho 0", 0.5, None), ("Ho 1", 0.5, None)]


def test_a_failed_stage_fails_its_round_and_both_can_be_resumed(session: Session, loop: Project) -> None:
    round = start(session, loop)
    held = claimed(session)
    work.fail_stage(session, held, FAILURE, now=clock(session))
    stage = stage_of(session, held)
    assert (stage.state, stage.error, round.state) == (StageState.FAILED, FAILURE, RoundState.FAILED)
    assert claim(session) is None
    resume_round(session, round, account=None, now=clock(session))
    assert claimed(session).attempt == 2


def test_a_trainer_learns_that_its_round_is_to_be_cancelled(session: Session, loop: Project) -> None:
    round = start(session, loop)
    held = claimed(session)
    assert work.renew_stage(session, held, duration=MINUTE, now=clock(session)) is False
    cancel_round(session, round, account=None, now=clock(session))
    assert work.renew_stage(session, held, duration=MINUTE, now=clock(session)) is True
    work.cancel_stage(session, held, now=clock(session))
    assert (stage_of(session, held).state, round.state) == (StageState.CANCELLED, RoundState.CANCELLED)


def test_a_round_whose_trainer_died_while_it_was_cancelled_is_ended_by_another(session: Session, loop: Project) -> None:
    round = start(session, loop)
    claimed(session)
    cancel_round(session, round, account=None, now=clock(session))
    assert work.end_cancelled(session, now=clock(session)) == 0  # it may still save its work
    later = clock(session) + 2 * MINUTE
    assert work.claim_stage(session, owner="second", duration=MINUTE, now=later) is None
    assert work.end_cancelled(session, now=clock(session) + 2 * MINUTE) == 1
    assert round.state == RoundState.CANCELLED


def test_a_stage_that_is_put_back_is_free_at_once(session: Session, loop: Project) -> None:
    start(session, loop)
    held = claimed(session)
    work.release_stage(session, held, "The trainer was stopped.")
    assert claimed(session, "other").attempt == 2


def test_ppo_starts_from_what_sft_made_in_the_same_round(session: Session, loop: Project, settings: Settings) -> None:
    for split in (Split.TRAIN, Split.VALIDATION):
        for prompt in make_prompts(session, loop, split):
            session.add(Demonstration(prompt_id=prompt.id, text="Written by a person"))
    start(session, loop, "sft", "reward", "ppo")
    run_stage(session)
    run_stage(session)
    inputs = work.stage_inputs(session, settings, claimed(session))
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
    inputs = work.stage_inputs(session, settings, claimed(session))
    assert set(inputs.models) == {"candidate", "current", "reference", "reward_model"}
    assert inputs.parents["current_id"] == baseline.id
    assert inputs.models["candidate"] == str(settings.artifacts / "projects/loop/rounds/0001/ppo/result")


def test_a_stage_without_a_reward_model_says_so(session: Session, loop: Project, settings: Settings) -> None:
    start(session, loop)
    run_stage(session)
    held = claimed(session)
    session.execute(RewardModelVersion.__table__.delete())
    with pytest.raises(MissingParent, match="no reward model"):
        work.stage_inputs(session, settings, held)


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


def test_a_process_that_ends_in_good_order_is_not_missing(session: Session) -> None:
    for doing in ("waiting", "sampling"):
        work.beat(session, "sampler@here", "sampler", doing, now=clock(session))
    assert session.scalars(select(Heartbeat)).one().doing == "sampling"
    work.stop_beating(session, "sampler@here")
    assert session.scalars(select(Heartbeat)).all() == []


def test_a_stage_gets_the_gpu_from_the_sampler_and_keeps_it(session: Session, loop: Project) -> None:
    start(session, loop)
    held = claimed(session)
    now = clock(session)

    def sampler_holds() -> bool:
        return devices.hold_for_sampling(session, "here/cuda:0", "sampler", duration=MINUTE, now=now)

    def stage_holds() -> bool:
        return devices.hold_for_stage(session, "here/cuda:0", "trainer", held.stage_id, duration=MINUTE, now=now)

    assert (sampler_holds(), stage_holds()) == (True, False)
    assert devices.is_wanted(session, "here/cuda:0", now=now)
    devices.release(session, "here/cuda:0", "sampler", now=now)
    assert (sampler_holds(), stage_holds(), sampler_holds()) == (False, True, False)
    devices.release(session, "here/cuda:0", "trainer", now=now)
    assert sampler_holds()


def test_a_dead_trainer_does_not_keep_the_sampler_off_the_gpu(session: Session, loop: Project) -> None:
    start(session, loop)
    held = claimed(session)
    now = clock(session)
    devices.hold_for_sampling(session, "gpu", "sampler", duration=MINUTE, now=now)
    devices.hold_for_stage(session, "gpu", "trainer", held.stage_id, duration=MINUTE, now=now)
    devices.release(session, "gpu", "sampler", now=now)
    later = now + 2 * MINUTE  # the trainer's claim of the stage has run out
    assert devices.hold_for_sampling(session, "gpu", "sampler", duration=MINUTE, now=later)

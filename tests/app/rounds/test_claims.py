"""Stages are claimed in order and by one trainer; only the current attempt is believed; every end is written down."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import SessionFactory, clock
from app.projects.models import Project
from app.rounds import claims, results
from app.rounds.claims import ClaimLost, StageClaim
from app.rounds.models import Metric, RoundState, StageEvent, StageState
from app.rounds.results import StageResult
from app.rounds.resuming import resume_round
from app.rounds.service import cancel_round
from tests.app.loop import (
    HOUR,
)
from tests.app.rounds.stages import MINUTE, claim, claimed, make_loop, stage_of, start, take_over

FAILURE = {"code": "killed", "message": "the recipe was killed", "advice": "resume", "last_lines": "…"}


@pytest.fixture
def loop(session: Session) -> Project:
    return make_loop(session)


def metrics(session: Session) -> dict[tuple[str, int], float]:
    return {(row.name, row.step): row.value for row in session.scalars(select(Metric))}


def test_one_stage_is_claimed_by_one_trainer_however_many_try(session: Session, loop: Project) -> None:
    start(session, loop)

    def claim_alone(number: int) -> StageClaim | None:
        with SessionFactory.begin() as own:
            return claim(own, str(number))

    with ThreadPoolExecutor(8) as pool:
        assert sum(found is not None for found in pool.map(claim_alone, range(16))) == 1


def test_a_trainer_that_claims_its_own_stage_again_is_believed_for_the_new_attempt_only(
    session: Session, loop: Project
) -> None:
    """Its first claim ran out while the database was away; a thread of that time may still report."""
    start(session, loop)
    first = claimed(session, "same")
    again = claims.claim_stage(session, owner="same", duration=MINUTE, now=clock(session) + 2 * MINUTE)
    assert again is not None
    with pytest.raises(ClaimLost):
        results.record_metrics(session, first, [{"step": 1, "at": 0.0, "loss": 1.0}])
    results.record_metrics(session, again, [{"step": 1, "at": 0.0, "loss": 2.0}])
    assert metrics(session) == {("loss", 1): 2.0}


def test_a_silent_trainers_stage_is_taken_over_and_its_reports_are_refused(session: Session, loop: Project) -> None:
    start(session, loop)
    first = claimed(session, "first")
    assert claim(session, "early") is None
    second = take_over(session)
    assert (second.stage_id, second.attempt) == (first.stage_id, 2)
    late = StageResult(figures={}, manifest_sha256="ab" * 32)
    for report in (
        lambda: claims.renew_stage(session, first, duration=MINUTE, now=clock(session)),
        lambda: results.record_metrics(session, first, [{"step": 1, "at": 0.0, "loss": 1.0}]),
        lambda: results.record_samples(session, first, [{"step": 1, "position": 0, "prompt": "", "completion": ""}]),
        lambda: results.complete_stage(session, first, late, now=clock(session)),
        lambda: claims.fail_stage(session, first, FAILURE, now=clock(session)),
        lambda: claims.release_stage(session, first, "late"),
    ):
        with pytest.raises(ClaimLost):
            report()
    assert (metrics(session), stage_of(session, second).state) == ({}, StageState.RUNNING)
    assert "went silent" in " ".join(session.scalars(select(StageEvent.text)))


def test_a_claim_whose_deadline_passed_unnoticed_can_still_be_renewed(session: Session, loop: Project) -> None:
    start(session, loop)
    held = claimed(session)
    later = clock(session) + HOUR  # the database was away
    assert claims.renew_stage(session, held, duration=MINUTE, now=later) is False
    assert claims.claim_stage(session, owner="other", duration=MINUTE, now=later) is None


def test_a_failed_stage_fails_its_round_and_both_can_be_resumed(session: Session, loop: Project) -> None:
    round = start(session, loop)
    held = claimed(session)
    claims.fail_stage(session, held, FAILURE, now=clock(session))
    stage = stage_of(session, held)
    assert (stage.state, stage.error, round.state) == (StageState.FAILED, FAILURE, RoundState.FAILED)
    assert claim(session) is None
    resume_round(session, round, account=None, now=clock(session))
    assert claimed(session).attempt == 2


def test_a_trainer_learns_that_its_round_is_to_be_cancelled(session: Session, loop: Project) -> None:
    round = start(session, loop)
    held = claimed(session)
    assert claims.renew_stage(session, held, duration=MINUTE, now=clock(session)) is False
    cancel_round(session, round, account=None, now=clock(session))
    assert claims.renew_stage(session, held, duration=MINUTE, now=clock(session)) is True
    claims.cancel_stage(session, held, now=clock(session))
    assert (stage_of(session, held).state, round.state) == (StageState.CANCELLED, RoundState.CANCELLED)


def test_a_round_whose_trainer_died_while_it_was_cancelled_is_ended_by_another(session: Session, loop: Project) -> None:
    round = start(session, loop)
    claimed(session)
    cancel_round(session, round, account=None, now=clock(session))
    assert claims.end_cancelled(session, now=clock(session)) == 0  # it may still save its work
    later = clock(session) + 2 * MINUTE
    assert claims.claim_stage(session, owner="second", duration=MINUTE, now=later) is None
    assert claims.end_cancelled(session, now=clock(session) + 2 * MINUTE) == 1
    assert round.state == RoundState.CANCELLED


def test_a_stage_that_is_put_back_is_free_at_once(session: Session, loop: Project) -> None:
    start(session, loop)
    held = claimed(session)
    claims.release_stage(session, held, "The trainer was stopped.")
    assert claimed(session, "other").attempt == 2

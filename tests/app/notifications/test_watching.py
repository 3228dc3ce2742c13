"""What happens in a round raises an alarm once, in the transaction in which it happens."""

from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import clock
from app.notifications.models import Alarm, AlarmKind
from app.projects.models import Project
from app.rounds import claims, results
from app.rounds.claims import StageClaim
from app.rounds.conclusions import end_comparison
from app.rounds.models import Round
from app.rounds.resuming import resume_round
from tests.app.loop import compare, evaluation_rows, evaluation_slates, make_account, run_stage
from tests.app.notifications.series import healthy
from tests.app.rounds.stages import claimed, make_loop, start

FAILURE = {"code": "killed", "message": "It ran out of memory", "advice": "lower it", "last_lines": ""}


@pytest.fixture
def loop(session: Session) -> Project:
    return make_loop(session)


def alarms(session: Session) -> list[Alarm]:
    return list(session.scalars(select(Alarm).order_by(Alarm.id).execution_options(populate_existing=True)))


def rows(**changed: Any) -> list[dict[str, Any]]:
    """A healthy run's metrics.jsonl, but for the series that are given."""
    by_step: dict[int, dict[str, Any]] = {}
    for name, points in (healthy(1) | changed).items():
        for step, value in points:
            by_step.setdefault(step, {"step": step, "at": 1e9})[name] = value
    return [by_step[step] for step in sorted(by_step)]


LONGER = [(step, 27.0 + step) for step in range(1, 61)]


def ppo(session: Session, loop: Project) -> tuple[Round, StageClaim]:
    round = start(session, loop)
    run_stage(session)
    return round, claimed(session)


def test_metrics_that_go_wrong_raise_one_alarm_while_the_stage_runs(session: Session, loop: Project) -> None:
    round, held = ppo(session, loop)
    for row in rows(completion_tokens=LONGER):
        results.record_metrics(session, held, [row])
    (alarm,) = alarms(session)
    assert (alarm.kind, alarm.round_id, alarm.stage_id) == (AlarmKind.LENGTH_DRIFTS, round.id, held.stage_id)
    assert alarm.is_open
    assert "completions became longer" in alarm.evidence
    assert alarm.numbers["completion_tokens_now"] > 1.4 * alarm.numbers["completion_tokens_before"]
    seen = alarm.series["completion_tokens"]
    assert seen == [list(point) for point in LONGER[: len(seen)]]


def test_a_healthy_stage_raises_nothing(session: Session, loop: Project) -> None:
    _, held = ppo(session, loop)
    results.record_metrics(session, held, rows())
    assert alarms(session) == []


def judged(session: Session, loop: Project, *outcomes: str, low: float = 0.7) -> None:
    """A round whose evaluation prefers the candidate, and whose comparisons end so."""
    round = start(session, loop, evaluation_comparisons=len(outcomes))
    run_stage(session)
    run_stage(session)
    held = claimed(session)
    figures = {"win_rate": 0.85, "win_rate_low": low, "win_rate_high": 0.92}
    pairs = evaluation_rows(session, round, len(outcomes))
    results.complete_stage(
        session,
        held,
        results.StageResult(figures=figures, manifest_sha256="cd" * 32, completions=pairs),
        now=clock(session),
    )
    for slate, outcome in zip(evaluation_slates(session, round), outcomes, strict=True):
        compare(session, round, slate, outcome)
    session.commit()
    end_comparison(session, round, account=make_account(session), now=clock(session))


def test_people_who_do_not_prefer_what_scores_higher_raise_an_alarm(session: Session, loop: Project) -> None:
    judged(session, loop, "loss", "loss", "loss", "win", "tie", "loss")
    (alarm,) = alarms(session)
    assert alarm.kind == AlarmKind.PEOPLE_DISAGREE
    assert "85\u00a0% of test prompts; people preferred it in 25\u00a0% of 6 blind comparisons" in alarm.evidence


def test_people_who_agree_with_the_score_raise_none(session: Session, loop: Project) -> None:
    judged(session, loop, "win", "win", "win", "win", "tie", "loss")
    assert alarms(session) == []


def test_too_few_comparisons_contradict_nobody(session: Session, loop: Project) -> None:
    judged(session, loop, "tie", "tie")  # one half, but the interval reaches 0.91
    assert alarms(session) == []


def test_a_score_that_is_not_surely_higher_is_not_contradicted(session: Session, loop: Project) -> None:
    judged(session, loop, "loss", "loss", "loss", "win", "tie", "loss", low=0.49)
    assert alarms(session) == []


def test_a_failed_stage_raises_an_alarm_that_a_resume_clears_and_a_second_failure_raises_again(
    session: Session, loop: Project
) -> None:
    round = start(session, loop)
    claims.fail_stage(session, claimed(session), FAILURE, now=clock(session))
    (alarm,) = alarms(session)
    assert (alarm.kind, alarm.evidence) == (AlarmKind.STAGE_FAILED, "reward failed: It ran out of memory.")
    resume_round(session, round, account=None, now=clock(session))
    assert [alarm.is_open for alarm in alarms(session)] == [False]
    claims.fail_stage(session, claimed(session), FAILURE, now=clock(session))
    assert [alarm.is_open for alarm in alarms(session)] == [False, True]

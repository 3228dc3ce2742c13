"""Where what happens in a round meets the watch: each place that learns something calls one function of this module."""

import logging
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import clock
from app.notifications.alarms import clear_of_round, raise_alarm
from app.notifications.models import Alarm, AlarmKind
from app.notifications.outbox import tell_of_round
from app.notifications.overoptimisation import TRAINING_SIGNALS, WATCHED, Series, findings
from app.policies.evaluation import win_rate
from app.rounds.models import Metric, Recipe, Round, RoundState, Stage, StageState

log = logging.getLogger(__name__)

POINTS_KEPT = 120  # of each series of an alarm: as many as its small chart has room for


def watch_metrics(session: Session, stage: Stage, names: Iterable[str]) -> None:
    """Look at a stage's metrics after new ones, called by these names, were stored; raise what is found."""
    if stage.recipe not in TRAINING_SIGNALS or not WATCHED.intersection(names):
        return
    try:
        with session.begin_nested():
            raise_findings(session, stage)
    except Exception:  # numbers that nobody foresaw must not end a stage that has learned for a day
        log.exception("stage=%s: the watch failed on its metrics; it looks again at the next ones", stage.id)


def raise_findings(session: Session, stage: Stage) -> None:
    found = findings(stage.recipe, stage.configuration, series_of(session, stage))
    if not found:
        return
    raised = set(session.scalars(select(Alarm.kind).where(Alarm.round_id == stage.round_id)))
    for each in found:
        if each.kind not in raised:
            raise_alarm(
                session,
                stage.round.project_id,
                each.kind,
                each.evidence,
                now=clock(session),
                round=stage.round,
                stage=stage,
                numbers=each.numbers,
                series={name: points[-POINTS_KEPT:] for name, points in each.series.items()},
            )


def series_of(session: Session, stage: Stage) -> Series:
    """The stage's watched metrics, by step."""
    series: dict[str, list[tuple[float, float]]] = {}
    for name, step, value in session.execute(
        select(Metric.name, Metric.step, Metric.value)
        .where(Metric.stage_id == stage.id, Metric.name.in_(WATCHED))
        .order_by(Metric.name, Metric.step)
    ):
        series.setdefault(name, []).append((step, value))
    return dict(series)


def round_changed(session: Session, round: Round) -> None:
    """A round's state may have changed: tell other systems, raise and clear what its state says."""
    now = clock(session)
    for stage in round.stages:
        if stage.state == StageState.FAILED and stage.error is not None:
            message = str(stage.error["message"]).rstrip(".")
            raise_alarm(
                session,
                round.project_id,
                AlarmKind.STAGE_FAILED,
                f"{stage.recipe} failed: {message}.",
                now=now,
                round=round,
                stage=stage,
            )
    if round.state != RoundState.FAILED:
        clear_of_round(session, round, AlarmKind.STAGE_FAILED, now=now)
    if round.state == RoundState.SUCCEEDED:
        compare_verdicts(session, round, now)
    tell_of_round(session, round, now)


def compare_verdicts(session: Session, round: Round, now: datetime) -> None:
    """Score up, and a blind win rate that is not above one half: people contradict the reward model.

    Raised where the reward model surely prefers the candidate (its interval lies above one half), people do not
    (their rate is at most one half), and their interval leaves out what the reward model says.
    """
    evaluation = next((stage for stage in round.stages if stage.recipe == Recipe.EVALUATE), None)
    figures: dict[str, Any] = (evaluation.result if evaluation else None) or {}
    people = win_rate(session, round)
    if people is None or not {"win_rate", "win_rate_low"} <= figures.keys():
        return
    share = float(figures["win_rate"])
    if figures["win_rate_low"] <= 0.5 or people.rate > 0.5 or people.high >= share:
        return
    raise_alarm(
        session,
        round.project_id,
        AlarmKind.PEOPLE_DISAGREE,
        f"The reward model prefers the new policy on {100 * share:.0f}\u00a0% of test prompts; people preferred it in"
        f" {100 * people.rate:.0f}\u00a0% of {people.num_comparisons} blind comparisons"
        f" (95\u00a0% interval {100 * people.low:.0f} to {100 * people.high:.0f}\u00a0%).",
        now=now,
        round=round,
        stage=evaluation,
        numbers={
            "preferred_by_reward_model": share,
            "preferred_by_people": people.rate,
            "low": people.low,
            "high": people.high,
            "comparisons": people.num_comparisons,
        },
    )

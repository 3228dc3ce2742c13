"""Where a stage's time went, read from the lines of its story that begin a phase, and from what its steps measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.rounds.models import Metric, Phase, Round, Stage, StageEvent

LABELS = {
    Phase.WAITING: "waited for a trainer",
    Phase.PREPARING: "prepared: fetched models, wrote its data",
    Phase.WAITING_FOR_DEVICE: "waited for the GPU",
    Phase.COMPUTING: "computed",
    Phase.STORING: "stored its result",
}
# What a step measures of itself (trainer.improvement.Phases).
PARTS = {
    "hand_over_s": "handed weights over",
    "sample_s": "sampled",
    "score_s": "scored",
    "update_s": "updated",
    "evaluate_s": "evaluated",
    "save_s": "saved checkpoints",
}

WORK = (Phase.PREPARING, Phase.COMPUTING, Phase.STORING)


@dataclass(frozen=True)
class PhaseTime:
    """How long a stage was in a phase, all attempts together. parts: what its steps spent it on, in seconds."""

    phase: Phase
    seconds: float
    parts: Sequence[tuple[str, float]] = ()
    is_now: bool = False

    @property
    def label(self) -> str:
        return LABELS[self.phase]


def phases_of(session: Session, round: Round, now: datetime) -> dict[int, list[PhaseTime]]:
    """stage id -> its phases in the order of a stage's life; those it was never in are left out."""
    begun: dict[int, list[tuple[Phase, datetime]]] = {}
    for stage_id, phase, at in session.execute(
        select(StageEvent.stage_id, StageEvent.phase, StageEvent.at)
        .join(Stage, Stage.id == StageEvent.stage_id)
        .where(Stage.round_id == round.id)
        .order_by(StageEvent.id)
    ):
        if phase is not None:
            begun.setdefault(stage_id, []).append((phase, at))
    parts = parts_of(session, round)
    found, ready_at = {}, round.created_at
    for stage in round.stages:
        if stage.id in begun:
            spans = [(Phase.WAITING, ready_at), *begun[stage.id]]
            found[stage.id] = times_of(spans, now, parts.get(stage.id, []))
        ready_at = stage.finished_at or now
    return found


def times_of(
    spans: Sequence[tuple[Phase, datetime]], now: datetime, parts: Sequence[tuple[str, float]]
) -> list[PhaseTime]:
    """spans: each phase with its beginning; it lasts until the next one begins."""
    ends = [begin for _, begin in spans[1:]] + [now]
    seconds: dict[Phase, float] = {}
    for (phase, begin), end in zip(spans, ends, strict=True):
        seconds[phase] = seconds.get(phase, 0.0) + max(0.0, (end - begin).total_seconds())
    return [
        PhaseTime(phase, seconds[phase], parts if phase is Phase.COMPUTING else (), is_now=phase is spans[-1][0])
        for phase in LABELS
        if phase in seconds
    ]


def worked_s(session: Session, stage: Stage, now: datetime) -> float | None:
    """Seconds that a trainer worked on the stage, all attempts together since it last began anew; None: not yet begun.

    What lies between a failure and a resume is no work. A stage of before phases were written down took what lies
    between its start and its end.
    """
    if stage.started_at is None:
        return None
    spans = [
        (phase, at)
        for phase, at in session.execute(
            select(StageEvent.phase, StageEvent.at)
            .where(StageEvent.stage_id == stage.id, StageEvent.at >= stage.started_at)
            .order_by(StageEvent.id)
        )
        if phase is not None
    ]
    if not spans:
        return ((stage.finished_at or now) - stage.started_at).total_seconds()
    return sum(each.seconds for each in times_of(spans, now, []) if each.phase in WORK)


def parts_of(session: Session, round: Round) -> dict[int, list[tuple[str, float]]]:
    """stage id -> what the steps so far spent their time on."""
    rows = session.execute(
        select(Metric.stage_id, Metric.name, func.sum(Metric.value))
        .join(Stage, Stage.id == Metric.stage_id)
        .where(Stage.round_id == round.id, Metric.name.in_(PARTS))
        .group_by(Metric.stage_id, Metric.name)
    ).all()
    sums = {(stage_id, name): seconds for stage_id, name, seconds in rows}
    return {
        stage.id: [(PARTS[name], sums[stage.id, name]) for name in PARTS if (stage.id, name) in sums]
        for stage in round.stages
    }


def phase_before_the_end(session: Session, stage: Stage) -> Phase | None:
    """What the stage was at when it ended."""
    return session.scalar(
        select(StageEvent.phase)
        .where(StageEvent.stage_id == stage.id, StageEvent.phase.is_not(None), StageEvent.phase != Phase.ENDED)
        .order_by(StageEvent.id.desc())
        .limit(1)
    )

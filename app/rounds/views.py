"""What the pages of rounds show, read in few queries. Changes nothing."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session, selectinload

from app.datasets.models import Snapshot
from app.labeling.models import Demonstration, Slate, SlateKind, SlateState
from app.policies.evaluation import WinRate, rule_for, win_rate
from app.policies.length_control import EqualLength, equal_length_of
from app.policies.models import PolicyVersion, RewardModelVersion
from app.policies.sequential import Rule
from app.projects.models import Project
from app.rounds.charts import Chart, Series, charts_of
from app.rounds.heart import is_alive
from app.rounds.models import (
    ACTIVE_ROUND_STATES,
    Metric,
    Phase,
    Recipe,
    Round,
    RoundState,
    Stage,
    StageEvent,
    StageSample,
    StageState,
    StageTry,
)
from app.rounds.needs import fitting_rankings, num_new_rankings
from app.rounds.phases import PhaseTime, phase_before_the_end, phases_of, worked_s
from app.rounds.remedies import Remedy, remedies

EVENTS_SHOWN = 40
SAMPLES_SHOWN = 4  # completions of the latest step

# What each recipe's settings call the number of steps that its charts run to.
STEP_SETTINGS = {Recipe.PPO: "num_steps", Recipe.GRPO: "num_steps"}

HEADLINES = {
    Recipe.SFT: ("validation_loss", "loss"),
    Recipe.REWARD: ("validation_accuracy", "validation_loss", "loss"),
    Recipe.PPO: ("held_out_score", "score", "kl", "tokens_per_s"),
    Recipe.GRPO: ("held_out_score", "score", "kl", "tokens_per_s"),
    Recipe.REJECTION: ("held_out_score", "held_out_kl", "loss", "chosen_score", "num_completions"),
    Recipe.EVALUATE: (),
}


@dataclass(frozen=True)
class RoundLine:
    """A round in the list of rounds."""

    round: Round
    baseline: PolicyVersion
    candidate: PolicyVersion | None
    win_rate: WinRate | None
    reward_model_accuracy: float | None


@dataclass(frozen=True)
class ChartView:
    """A chart of a stage and up to which step it is drawn: a new step is a new address."""

    chart: Chart
    last_step: int
    latest: list[tuple[str, float]]  # line -> its newest value


@dataclass(frozen=True)
class StageView:
    """A stage with its story."""

    stage: Stage
    charts: list[ChartView]
    headline: list[tuple[str, float]]
    step: int | None
    num_steps: int | None
    samples: list[StageSample]
    samples_step: int | None
    expected_s: float | None  # what the same recipe took the last time, in seconds
    elapsed_s: float | None  # seconds that a trainer worked on it
    phases: list[PhaseTime]
    tries: list[StageTry]  # before it began anew

    @property
    def attempts(self) -> int:
        return self.stage.attempt


@dataclass(frozen=True)
class Failure:
    """Why the round failed. phase: what its stage was at.  remedies: settings to try next, as its advice names them."""

    view: StageView
    phase: Phase | None
    remedies: list[Remedy]


@dataclass(frozen=True)
class Comparison:
    """How far the blind comparison of a round is, or what it said when it ended."""

    num_asked: int
    num_in: int
    win_rate: WinRate | None
    rule: Rule  # by which it ends, or ended
    is_open: bool

    @property
    def num_later(self) -> int:
        """Comparisons that were held when it ended, and came in after."""
        return 0 if self.is_open or self.win_rate is None else max(0, self.num_in - self.win_rate.num_comparisons)


@dataclass(frozen=True)
class RoundView:
    """All that a round's page shows."""

    round: Round
    baseline: PolicyVersion
    sft_policy: PolicyVersion
    candidate: PolicyVersion | None
    reward_model: RewardModelVersion | None
    stages: list[StageView]
    events: list[tuple[StageEvent, Stage]]
    failure: Failure | None
    comparison: Comparison | None
    equal_length: EqualLength | None  # once the comparison has ended
    is_active: bool
    silent: Stage | None  # runs by the book, and its trainer has not been heard of since its deadline
    lacks_trainer: bool  # a stage waits or runs, and no trainer is alive
    is_resumable: bool
    is_retryable: bool  # with other settings: a stage has not succeeded


def round_lines(session: Session, project: Project) -> list[RoundLine]:
    """The project's rounds, the newest first."""
    versions = {
        version.id: version
        for version in session.scalars(select(PolicyVersion).where(PolicyVersion.project_id == project.id))
    }
    rounds = session.scalars(
        select(Round)
        .where(Round.project_id == project.id)
        .order_by(Round.number.desc())
        .options(selectinload(Round.stages))
    ).all()
    return [
        RoundLine(
            round=round,
            baseline=versions[round.baseline_id],
            candidate=versions.get(round.candidate_id) if round.candidate_id else None,
            win_rate=win_rate(session, round) if round.evaluation_comparisons else None,
            reward_model_accuracy=figure_of(round, Recipe.REWARD, "validation_accuracy"),
        )
        for round in rounds
    ]


def figure_of(round: Round, recipe: Recipe, name: str) -> float | None:
    """A final figure of one of the round's stages."""
    return next(((stage.result or {}).get(name) for stage in round.stages if stage.recipe == recipe), None)


def round_view(session: Session, round: Round, now: datetime) -> RoundView:
    """The round, its stages and their latest numbers."""
    phases = phases_of(session, round, now)
    stages = [stage_view(session, stage, now, phases.get(stage.id, [])) for stage in round.stages]
    return RoundView(
        round=round,
        baseline=session.get_one(PolicyVersion, round.baseline_id),
        sft_policy=session.get_one(PolicyVersion, round.sft_policy_id),
        candidate=session.get(PolicyVersion, round.candidate_id) if round.candidate_id else None,
        reward_model=session.scalar(
            select(RewardModelVersion).where(RewardModelVersion.stage_id.in_([stage.id for stage in round.stages]))
        ),
        stages=stages,
        events=story(session, round),
        failure=failure_of(session, stages),
        comparison=comparison_of(session, round),
        equal_length=equal_length_of(session, round) if round.verdict else None,
        is_active=round.state in ACTIVE_ROUND_STATES,
        silent=next((stage for stage in round.stages if is_silent(stage, now)), None),
        lacks_trainer=round.state in (RoundState.QUEUED, RoundState.RUNNING)
        and not is_alive(session, "trainer", now=now),
        is_resumable=round.state in (RoundState.FAILED, RoundState.CANCELLED),
        is_retryable=any(stage.state != StageState.SUCCEEDED for stage in round.stages),
    )


def is_silent(stage: Stage, now: datetime) -> bool:
    return stage.state == StageState.RUNNING and stage.deadline is not None and stage.deadline < now


def failure_of(session: Session, stages: Sequence[StageView]) -> Failure | None:
    """What the stage that failed says of itself, and what its advice comes to."""
    for view in stages:
        stage = view.stage
        if stage.state == StageState.FAILED and stage.error is not None:
            advice = stage.error.get("advice") or ""
            return Failure(
                view=view,
                phase=phase_before_the_end(session, stage),
                remedies=remedies(stage.recipe, stage.preset, stage.configuration, advice),
            )
    return None


def stage_view(session: Session, stage: Stage, now: datetime, phases: list[PhaseTime]) -> StageView:
    latest = latest_values(session, stage)
    step = max((step for step, _ in latest.values()), default=None)
    setting = STEP_SETTINGS.get(stage.recipe)
    samples_step = session.scalar(select(func.max(StageSample.step)).where(StageSample.stage_id == stage.id))
    return StageView(
        stage=stage,
        charts=[
            ChartView(
                chart,
                last_step=max(latest[name][0] for name in chart.series if name in latest),
                latest=[(label, latest[name][1]) for name, label in chart.series.items() if name in latest],
            )
            for chart in charts_of(list(latest))
        ],
        headline=[(name, latest[name][1]) for name in HEADLINES[stage.recipe] if name in latest],
        step=step,
        num_steps=stage.configuration.get(setting) if setting else None,
        samples=samples_at(session, stage, samples_step),
        samples_step=samples_step,
        expected_s=expected_duration_s(session, stage, now),
        elapsed_s=worked_s(session, stage, now),
        phases=phases,
        tries=list(
            session.scalars(select(StageTry).where(StageTry.stage_id == stage.id).order_by(StageTry.number.desc()))
        ),
    )


def latest_values(session: Session, stage: Stage) -> dict[str, tuple[int, float]]:
    """metric -> its last step and the value there."""
    last_steps = select(Metric.name, func.max(Metric.step)).where(Metric.stage_id == stage.id).group_by(Metric.name)
    rows = session.execute(
        select(Metric.name, Metric.step, Metric.value)
        .where(Metric.stage_id == stage.id, tuple_(Metric.name, Metric.step).in_(last_steps))
        .order_by(Metric.name)
    )
    return {name: (step, value) for name, step, value in rows}


def series_of(session: Session, stage: Stage, names: Sequence[str]) -> dict[str, Series]:
    """metric -> its points, by step."""
    points: dict[str, list[tuple[int, float]]] = {}
    for name, step, value in session.execute(
        select(Metric.name, Metric.step, Metric.value)
        .where(Metric.stage_id == stage.id, Metric.name.in_(names))
        .order_by(Metric.name, Metric.step)
    ):
        points.setdefault(name, []).append((step, value))
    return dict(points)


def metric_names(session: Session, stage: Stage) -> list[str]:
    """Every metric the stage has reported."""
    return list(
        session.scalars(select(Metric.name).where(Metric.stage_id == stage.id).distinct().order_by(Metric.name))
    )


def table_of(chart: Chart, series: dict[str, Series]) -> tuple[list[str], list[tuple[int, list[float | None]]]]:
    """The chart's points as a table: the columns' names, and a row for each step."""
    present = [name for name in chart.series if name in series]
    columns = {name: dict(series[name]) for name in present}
    steps = sorted({step for points in columns.values() for step in points})
    return present, [(step, [columns[name].get(step) for name in present]) for step in steps]


def table_as_csv(columns: Sequence[str], rows: Sequence[tuple[int, Sequence[float | None]]]) -> str:
    """RFC 4180, numbers to the last digit."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["step", *columns])
    for step, values in rows:
        writer.writerow([step, *("" if value is None else repr(value) for value in values)])
    return text.getvalue()


def samples_at(session: Session, stage: Stage, step: int | None) -> list[StageSample]:
    """Completions that the policy wrote at this step."""
    if step is None:
        return []
    return list(
        session.scalars(
            select(StageSample)
            .where(StageSample.stage_id == stage.id, StageSample.step == step)
            .order_by(StageSample.position)
            .limit(SAMPLES_SHOWN)
        )
    )


def expected_duration_s(session: Session, stage: Stage, now: datetime) -> float | None:
    """Seconds that this recipe took in the project's last round that finished it; an estimate of this one."""
    last = session.scalar(
        select(Stage)
        .join(Round)
        .where(
            Round.project_id == stage.round.project_id,
            Stage.recipe == stage.recipe,
            Stage.state == StageState.SUCCEEDED,
            Stage.id < stage.id,
        )
        .order_by(Stage.id.desc())
        .limit(1)
    )
    return None if last is None else worked_s(session, last, now)


def story(session: Session, round: Round) -> list[tuple[StageEvent, Stage]]:
    """What happened, the newest first."""
    rows = session.execute(
        select(StageEvent, Stage)
        .join(Stage, Stage.id == StageEvent.stage_id)
        .where(Stage.round_id == round.id)
        .order_by(StageEvent.id.desc())
        .limit(EVENTS_SHOWN)
    )
    return [(event, stage) for event, stage in rows]


def comparison_of(session: Session, round: Round) -> Comparison | None:
    """The blind comparison, once its slates are there."""
    counted = (
        select(Slate.state, func.count())
        .where(Slate.round_id == round.id, Slate.kind == SlateKind.EVALUATION)
        .group_by(Slate.state)
    )
    states = dict(session.execute(counted).all())
    num_asked = sum(num for state, num in states.items() if state != SlateState.RETIRED)
    if not num_asked:
        return None
    return Comparison(
        num_asked=num_asked,
        num_in=states.get(SlateState.DONE, 0),
        win_rate=win_rate(session, round),
        rule=rule_for(session, round),
        is_open=round.state == RoundState.AWAITING_LABELS,
    )


def previous_stage(session: Session, project: Project, recipe: Recipe) -> Stage | None:
    """The last stage of this recipe that succeeded: what a new one is compared with, and its settings' last values."""
    return session.scalar(
        select(Stage)
        .join(Round)
        .where(Round.project_id == project.id, Stage.recipe == recipe, Stage.state == StageState.SUCCEEDED)
        .order_by(Stage.id.desc())
        .limit(1)
    )


@dataclass(frozen=True)
class LabelsSoFar:
    """What a round that is started now would learn from, or one that was started learns from."""

    num_rankings: int
    num_new_rankings: int  # since the last round was started
    num_demonstrations: int


def labels_so_far(session: Session, project: Project) -> LabelsSoFar:
    """Counts of what fits models, and of what is new since the last round."""
    return LabelsSoFar(
        num_rankings=session.scalars(fitting_rankings(project)).one(),
        num_new_rankings=num_new_rankings(session, project),
        num_demonstrations=session.scalars(
            select(func.count()).where(Demonstration.project_id == project.id, Demonstration.retracted_at.is_(None))
        ).one(),
    )


def labels_of(session: Session, round: Round) -> LabelsSoFar:
    """Counts of what the round learns from whenever it goes on: the labels that were frozen as it was started."""
    if round.snapshot_id is None:
        return LabelsSoFar(0, 0, 0)
    snapshot = session.get_one(Snapshot, round.snapshot_id)
    return LabelsSoFar(snapshot.num_rankings, 0, snapshot.num_demonstrations)

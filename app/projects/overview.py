"""The project page: the loop with its live counts. picture.py and needs.py say what they mean."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from app.datasets.facts import RankingFacts
from app.labeling.models import FITTING_KINDS, Lease, Slate, SlateKind, SlateState
from app.people.models import Membership
from app.policies.evaluation import WinRate, win_rate
from app.policies.models import PolicyState, PolicyVersion, RewardModelVersion
from app.policies.service import current_version
from app.projects.models import Project
from app.prompts.models import Prompt, Split
from app.rounds.models import ACTIVE_ROUND_STATES, DeviceClaim, Heartbeat, Metric, Recipe, Round, Stage, StageState
from app.rounds.views import STEP_SETTINGS, Comparison, LabelsSoFar, comparison_of, labels_so_far

DAYS_SHOWN = 14
SILENT_AFTER = timedelta(minutes=2)  # without a heartbeat


@dataclass(frozen=True)
class PromptCounts:
    """Prompts by split, and those that are not sampled from."""

    train: int
    validation: int
    test: int
    set_aside: int

    @property
    def total(self) -> int:
        return self.train + self.validation + self.test


@dataclass(frozen=True)
class SlateCounts:
    """The queue ahead of the labelers."""

    ready: int  # and in nobody's hands
    sampling: int
    held: int  # by labelers, now
    target: int


@dataclass(frozen=True)
class Process:
    """A sampler or trainer that has been heard of."""

    heartbeat: Heartbeat
    is_silent: bool


@dataclass(frozen=True)
class Progress:
    """How far the stage is that runs. step: the last one reported, if any; num_steps: None where it is not known."""

    recipe: Recipe
    step: int | None
    num_steps: int | None


@dataclass(frozen=True)
class Overview:
    """All that the project page shows."""

    prompts: PromptCounts
    slates: SlateCounts
    rankings_by_day: list[tuple[date, int]]  # UTC, the last one is today
    labels: LabelsSoFar
    num_labelers: int
    reward_model: RewardModelVersion | None
    current: PolicyVersion
    candidates: list[PolicyVersion]
    round: Round | None  # the newest
    comparison: Comparison | None
    samplers: list[Process]
    trainers: list[Process]
    devices: list[DeviceClaim]
    progress: Progress | None  # of the stage that runs
    verdict: WinRate | None  # of people on the current version, in the round that made it

    @property
    def has_sampler(self) -> bool:
        return any(not process.is_silent for process in self.samplers)

    @property
    def has_trainer(self) -> bool:
        return any(not process.is_silent for process in self.trainers)

    @property
    def rankings_today(self) -> int:
        return self.rankings_by_day[-1][1]

    @property
    def rankings_a_day(self) -> float:
        """Mean of the last seven days."""
        week = [num for _, num in self.rankings_by_day[-7:]]
        return sum(week) / len(week)

    @property
    def has_active_round(self) -> bool:
        return self.round is not None and self.round.state in ACTIVE_ROUND_STATES


def overview(session: Session, project: Project, now: datetime) -> Overview:
    """The project as it stands."""
    processes = [
        Process(heartbeat, now - heartbeat.beat_at > SILENT_AFTER)
        for heartbeat in session.scalars(select(Heartbeat).order_by(Heartbeat.process, Heartbeat.owner))
    ]
    round = session.scalar(select(Round).where(Round.project_id == project.id).order_by(Round.number.desc()).limit(1))
    current = current_version(session, project)
    return Overview(
        prompts=count_prompts(session, project),
        slates=count_slates(session, project, now),
        rankings_by_day=rankings_by_day(session, project, now),
        labels=labels_so_far(session, project),
        num_labelers=session.scalars(
            select(func.count())
            .select_from(Membership)
            .where(Membership.project_id == project.id, Membership.paused_at.is_(None))
        ).one(),
        reward_model=session.scalar(
            select(RewardModelVersion)
            .where(RewardModelVersion.project_id == project.id)
            .order_by(RewardModelVersion.number.desc())
            .limit(1)
        ),
        current=current,
        candidates=list(
            session.scalars(
                select(PolicyVersion)
                .where(PolicyVersion.project_id == project.id, PolicyVersion.state == PolicyState.CANDIDATE)
                .order_by(PolicyVersion.number)
            )
        ),
        round=round,
        comparison=comparison_of(session, round) if round is not None else None,
        samplers=[process for process in processes if process.heartbeat.process == "sampler"],
        trainers=[process for process in processes if process.heartbeat.process == "trainer"],
        devices=list(session.scalars(select(DeviceClaim).where(DeviceClaim.claimed_until > now))),
        progress=progress_of(session, round) if round is not None else None,
        verdict=verdict_on(session, current),
    )


def progress_of(session: Session, round: Round) -> Progress | None:
    """How far the round's running stage is; None when none runs."""
    stage = next((stage for stage in round.stages if stage.state == StageState.RUNNING), None)
    if stage is None:
        return None
    setting = STEP_SETTINGS.get(stage.recipe)
    return Progress(
        stage.recipe,
        step=session.scalar(select(func.max(Metric.step)).where(Metric.stage_id == stage.id)),
        num_steps=stage.configuration.get(setting) if setting else None,
    )


def verdict_on(session: Session, version: PolicyVersion) -> WinRate | None:
    """What people said of the version before it became current; None when nobody was asked."""
    made_in = session.scalar(select(Round).where(Round.candidate_id == version.id).limit(1))
    return None if made_in is None else win_rate(session, made_in)


def count_prompts(session: Session, project: Project) -> PromptCounts:
    is_used = Prompt.set_aside_at.is_(None)

    def of(split: Split) -> ColumnElement[int]:
        return func.count().filter(is_used, Prompt.split == split)

    counts = session.execute(
        select(of(Split.TRAIN), of(Split.VALIDATION), of(Split.TEST), func.count().filter(~is_used)).where(
            Prompt.project_id == project.id
        )
    ).one()
    return PromptCounts(*counts)


def count_slates(session: Session, project: Project, now: datetime) -> SlateCounts:
    is_held = (
        select(Lease.id).where(Lease.slate_id == Slate.id, Lease.closed_at.is_(None), Lease.expires_at > now).exists()
    )
    is_ready = Slate.state == SlateState.READY
    ready, held, sampling = session.execute(
        select(
            func.count().filter(is_ready, ~is_held),
            func.count().filter(is_ready, is_held),
            func.count().filter(Slate.state == SlateState.SAMPLING),
        ).where(
            Slate.project_id == project.id,
            Slate.kind == SlateKind.TRAINING,
            Slate.state.in_((SlateState.READY, SlateState.SAMPLING)),
        )
    ).one()
    return SlateCounts(ready=ready, sampling=sampling, held=held, target=project.queue_target)


def rankings_by_day(session: Session, project: Project, now: datetime) -> list[tuple[date, int]]:
    """Rankings that count on each of the last days, the days without any included."""
    today = now.date()
    first = today - timedelta(days=DAYS_SHOWN - 1)
    day = func.date(func.timezone("UTC", RankingFacts.submitted_at))
    counted: dict[date, int] = dict(
        session.execute(
            select(day, func.count())
            .where(
                RankingFacts.project_id == project.id,
                RankingFacts.kind.in_(FITTING_KINDS),
                RankingFacts.submitted_at >= datetime.combine(first, datetime.min.time(), tzinfo=now.tzinfo),
            )
            .group_by(day)
        ).all()
    )
    days = [first + timedelta(days=offset) for offset in range(DAYS_SHOWN)]
    return [(each, counted.get(each, 0)) for each in days]


def round_of(session: Session, reward_model: RewardModelVersion) -> int:
    """The number of the round that fitted it."""
    made_in = select(Round.number).join(Stage).where(Stage.id == reward_model.stage_id)
    return session.scalars(made_in).one()

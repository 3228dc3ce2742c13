"""The project page: the loop with live counts, how healthy it is, and what needs a person. Changes nothing."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from app.labeling.models import FITTING_KINDS, Lease, Ranking, Slate, SlateKind, SlateState
from app.people.models import Membership
from app.policies.models import PolicyState, PolicyVersion, RewardModelVersion
from app.policies.service import current_version
from app.projects.models import Project
from app.prompts.models import Prompt, Split
from app.rounds import rules
from app.rounds.models import ACTIVE_ROUND_STATES, DeviceClaim, Heartbeat, Round, RoundState, StageState
from app.rounds.views import Comparison, LabelsSoFar, comparison_of, labels_so_far

DAYS_SHOWN = 14
SILENT_AFTER = timedelta(minutes=2)  # without a heartbeat
ENOUGH_NEW_RANKINGS = 100  # since the last round: a new one is worth its time


@dataclass(frozen=True)
class Need:
    """Something that only a person can do. href: below the project."""

    text: str
    href: str
    action: str


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
    needs: list[Need]

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
    seen = Overview(
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
        current=current_version(session, project),
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
        needs=[],
    )
    seen.needs.extend(needs_of(project, seen))
    seen.needs.extend(Need(*each) for each in rules.needs(session, project))
    return seen


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
    day = func.date(func.timezone("UTC", Ranking.submitted_at))
    counted: dict[date, int] = dict(
        session.execute(
            select(day, func.count())
            .join(Slate, Slate.id == Ranking.slate_id)
            .where(
                Ranking.project_id == project.id,
                Ranking.submitted_at >= datetime.combine(first, datetime.min.time(), tzinfo=now.tzinfo),
                Ranking.counted,
                Ranking.retracted_at.is_(None),
                Slate.kind.in_(FITTING_KINDS),
            )
            .group_by(day)
        ).all()
    )
    days = [first + timedelta(days=offset) for offset in range(DAYS_SHOWN)]
    return [(each, counted.get(each, 0)) for each in days]


def needs_of(project: Project, seen: Overview) -> list[Need]:
    """What a person should do, the most pressing first."""
    needs = []
    if seen.round is not None and seen.round.state == RoundState.FAILED:
        failed = next((stage.recipe for stage in seen.round.stages if stage.state == StageState.FAILED), "a stage")
        needs.append(
            Need(
                f"Round {seen.round.number} failed in {failed}.", f"/rounds/{seen.round.number}", "See why, and resume"
            )
        )
    if not seen.prompts.total:
        needs.append(Need("There are no prompts, so nothing can be sampled.", "/prompts", "Import prompts"))
    if is_starving(project, seen):
        needs.append(Need("Labelers have nothing to rank, and no sampler is at work.", "", "Start one: podium sampler"))
    if seen.has_active_round and not any(not trainer.is_silent for trainer in seen.trainers):
        needs.append(Need("A round waits, and no trainer is at work.", "", "Start one: podium trainer"))
    if seen.round is not None and seen.comparison and seen.round.state == RoundState.AWAITING_LABELS:
        left = seen.comparison.num_asked - seen.comparison.num_in
        needs.append(Need(f"{left} blind comparisons wait for labelers.", "/rank", "Compare some"))
    for candidate in seen.candidates:
        if not seen.has_active_round:
            needs.append(
                Need(
                    f"Policy version {candidate.number} waits for a decision.",
                    f"/policies/{candidate.number}",
                    "Promote or reject it",
                )
            )
    if not seen.has_active_round and seen.labels.num_new_rankings >= ENOUGH_NEW_RANKINGS:
        needs.append(
            Need(
                f"{seen.labels.num_new_rankings} rankings have come in since the last round.",
                "/rounds/new",
                "Start a round",
            )
        )
    if project.paused_at is not None:
        needs.append(Need("The project is paused: nothing is sampled or handed out.", "/settings", "Let it go on"))
    if seen.num_labelers <= 1:
        needs.append(Need("Nobody else is here yet.", "/people", "Invite labelers"))
    return needs


def is_starving(project: Project, seen: Overview) -> bool:
    """Whether the queue is empty and nobody is there to fill it."""
    return (
        project.paused_at is None
        and seen.slates.ready == 0
        and seen.prompts.train + seen.prompts.validation > 0
        and not any(not sampler.is_silent for sampler in seen.samplers)
    )

"""Rounds, their stages and what a stage reports; the requests that only a model can answer; who holds a device."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import CheckConstraint, Double, ForeignKey, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.db import Base, one_of


class RoundState(StrEnum):
    """queued → running → awaiting_labels → succeeded | failed | cancelled; the last two go back to queued on resume."""

    QUEUED = "queued"
    RUNNING = "running"
    AWAITING_LABELS = "awaiting_labels"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


ACTIVE_ROUND_STATES = (RoundState.QUEUED, RoundState.RUNNING, RoundState.AWAITING_LABELS)


class StageState(StrEnum):
    """Like a round's, without the waiting: no trainer is held while people compare."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Recipe(StrEnum):
    """What a stage runs: `python -m trainer.recipes.<name> <folder>`."""

    SFT = "sft"
    REWARD = "reward"
    PPO = "ppo"
    GRPO = "grpo"
    REJECTION = "rejection"
    EVALUATE = "evaluate"


# What improves a policy by a reward model; a round has one of them at most.
POLICY_RECIPES = (Recipe.PPO, Recipe.GRPO, Recipe.REJECTION)


class Phase(StrEnum):
    """What a stage is at, from one line of its story to the next that names a phase."""

    WAITING = "waiting"  # for a trainer
    PREPARING = "preparing"  # its models are fetched and its inputs written
    WAITING_FOR_DEVICE = "waiting_for_device"
    COMPUTING = "computing"
    STORING = "storing"  # its result is checked, copied and registered
    ENDED = "ended"  # for now: a resume goes on


class Round(Base):
    """One full turn of the loop."""

    __tablename__ = "round"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    number: Mapped[int]  # 1, 2, 3 … within the project
    state: Mapped[RoundState] = mapped_column(one_of(RoundState, "state"), server_default="queued")
    seed: Mapped[int]
    snapshot_id: Mapped[int | None] = mapped_column(ForeignKey("snapshot.id"))  # frozen when the round is started
    sft_policy_id: Mapped[int] = mapped_column(ForeignKey("policy_version.id"))  # the KL is measured from it
    baseline_id: Mapped[int] = mapped_column(ForeignKey("policy_version.id"))  # current when the round was started
    candidate_id: Mapped[int | None] = mapped_column(ForeignKey("policy_version.id"))
    evaluation_comparisons: Mapped[int] = mapped_column(server_default=text("0"))  # blind A/B slates wanted; 0: none
    # What the comparisons said when they ended: decision, wins, ties, losses, above, worth. Later ones change nothing.
    verdict: Mapped[dict[str, Any] | None]
    requested_by: Mapped[int | None] = mapped_column(ForeignKey("account.id"))  # null: the system, or the command line
    by_rule: Mapped[bool] = mapped_column(server_default=text("false"))  # the project's rule started it
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]

    stages: Mapped[list["Stage"]] = relationship(order_by="Stage.position", back_populates="round")

    __table_args__ = (
        UniqueConstraint("project_id", "number"),
        Index(
            "uq_round_one_active",
            "project_id",
            unique=True,
            postgresql_where=text("state IN ('queued', 'running', 'awaiting_labels')"),
        ),
    )


class Stage(Base):
    """One recipe run within a round. The claim (attempt, owner, deadline) is committed before work starts."""

    __tablename__ = "stage"

    id: Mapped[int] = mapped_column(primary_key=True)
    round_id: Mapped[int] = mapped_column(ForeignKey("round.id"))
    position: Mapped[int]  # 1, 2, 3 … within the round; a stage waits for the ones before it
    recipe: Mapped[Recipe] = mapped_column(one_of(Recipe, "recipe"))
    state: Mapped[StageState] = mapped_column(one_of(StageState, "state"), server_default="queued")
    preset: Mapped[str]
    configuration: Mapped[dict[str, Any]]  # every setting of the recipe, as it ran
    seed: Mapped[int]
    parents: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))  # ids of what it was made from
    versions: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))  # libraries and our code
    folder: Mapped[str | None]  # below the artifacts
    attempt: Mapped[int] = mapped_column(server_default=text("0"))  # results and metrics count only for this one
    owner: Mapped[str | None]
    deadline: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    result: Mapped[dict[str, Any] | None]  # figures of result.json
    error: Mapped[dict[str, Any] | None]  # {"code", "message", "advice", "last_lines"}

    round: Mapped[Round] = relationship(back_populates="stages")

    __table_args__ = (
        UniqueConstraint("round_id", "position"),
        Index("ix_stage_queue", "deadline", postgresql_where=text("state IN ('queued', 'running')")),
        CheckConstraint(
            "state <> 'running' OR (owner IS NOT NULL AND deadline IS NOT NULL)", name="running_is_claimed"
        ),
        CheckConstraint("state <> 'failed' OR error IS NOT NULL", name="failed_says_why"),
    )


class Metric(Base):
    """One number a stage reported. Written by upsert: a resumed stage may report a step again."""

    __tablename__ = "metric"

    stage_id: Mapped[int] = mapped_column(ForeignKey("stage.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[float] = mapped_column(Double)
    at: Mapped[datetime]


class StageSample(Base):
    """A completion that the policy wrote while it trained, with its score."""

    __tablename__ = "stage_sample"

    stage_id: Mapped[int] = mapped_column(ForeignKey("stage.id"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    prompt: Mapped[str]
    completion: Mapped[str]
    score: Mapped[float | None] = mapped_column(Double)
    kl: Mapped[float | None] = mapped_column(Double)  # nats, whole sequence


class StageEvent(Base):
    """What happened to a stage: claimed, lost, resumed, failed. The admin reads it as a story."""

    __tablename__ = "stage_event"

    id: Mapped[int] = mapped_column(primary_key=True)
    stage_id: Mapped[int] = mapped_column(ForeignKey("stage.id"))
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    attempt: Mapped[int]
    text: Mapped[str]
    phase: Mapped[Phase | None] = mapped_column(one_of(Phase, "phase"))  # that begins here

    __table_args__ = (Index("ix_stage_event_stage", "stage_id", "id"),)


class StageTry(Base):
    """What a stage had come to before it began anew with other settings: its files stay where they are."""

    __tablename__ = "stage_try"

    stage_id: Mapped[int] = mapped_column(ForeignKey("stage.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)  # 1, 2, 3 … of the stage
    configuration: Mapped[dict[str, Any]]
    folder: Mapped[str]  # below the artifacts
    error: Mapped[dict[str, Any] | None]  # null: it was cancelled
    figures: Mapped[dict[str, Any]]  # metric -> its last value
    last_step: Mapped[int | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class ModelRequestKind(StrEnum):
    """What the web may ask of a model."""

    INSPECT = "inspect"
    COUNT_TOKENS = "count_tokens"
    SAMPLE = "sample"
    SCORE = "score"


class ModelRequest(Base):
    """The only way from the web to a model: the sampler answers these before it fills queues."""

    __tablename__ = "model_request"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    project_id: Mapped[int | None] = mapped_column(ForeignKey("project.id"))
    kind: Mapped[ModelRequestKind] = mapped_column(one_of(ModelRequestKind, "kind"))
    input: Mapped[dict[str, Any]]
    output: Mapped[dict[str, Any] | None]
    error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deadline: Mapped[datetime]  # nobody waits for the answer after it
    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    owner: Mapped[str | None]
    claimed_until: Mapped[datetime | None]
    answered_at: Mapped[datetime | None]

    __table_args__ = (Index("ix_model_request_open", "created_at", postgresql_where=text("answered_at IS NULL")),)


class DeviceClaim(Base):
    """Which process computes on a device now: one GPU, two consumers."""

    __tablename__ = "device_claim"

    device: Mapped[str] = mapped_column(primary_key=True)  # "<host>/cuda:0"
    owner: Mapped[str]
    purpose: Mapped[str]  # "sampler", "stage:<id>" or "evaluation:<id>"
    claimed_until: Mapped[datetime]
    wanted_by: Mapped[str | None]  # a stage or evaluation that waits for the sampler to let go


class Heartbeat(Base):
    """A sampler or trainer that is alive; the admin's page shows when one has gone silent."""

    __tablename__ = "heartbeat"

    owner: Mapped[str] = mapped_column(primary_key=True)
    process: Mapped[str]  # "sampler" or "trainer"
    beat_at: Mapped[datetime]
    doing: Mapped[str]
    device: Mapped[str | None]  # "cpu" or "cuda"
    memory_gb: Mapped[float | None] = mapped_column(Double)  # (10^9 bytes) of the device

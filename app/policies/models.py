"""Policy versions and reward models: the numbered, immutable results of rounds."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, one_of


class PolicyState(StrEnum):
    """candidate → current ⇄ retired, or rejected; a project's first version is imported as current."""

    CANDIDATE = "candidate"
    CURRENT = "current"
    RETIRED = "retired"
    REJECTED = "rejected"


class PolicyVersion(Base):
    """A policy that completions can point to. Its files never change."""

    __tablename__ = "policy_version"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    number: Mapped[int]  # 1, 2, 3 … within the project
    state: Mapped[PolicyState] = mapped_column(one_of(PolicyState, "state"))
    recipe: Mapped[str]  # "imported", or the recipe that made it
    source: Mapped[str]  # "starter", a folder, a hub name, or the result folder below the artifacts
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("policy_version.id"))
    stage_id: Mapped[int | None] = mapped_column(ForeignKey("stage.id", use_alter=True))
    is_sft: Mapped[bool] = mapped_column(server_default=text("false"))  # PPO may start from it: imported or sft
    num_parameters: Mapped[int | None]
    context_tokens: Mapped[int | None]
    tokenizer_sha256: Mapped[str | None]
    manifest_sha256: Mapped[str | None]
    facts: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    promoted_at: Mapped[datetime | None]  # last time it became current
    kept_at: Mapped[datetime | None]  # an admin wants its weights kept, whatever the rule says
    weights_removed_at: Mapped[datetime | None]  # by the installation's rule (app.upkeep.retention)

    __table_args__ = (
        UniqueConstraint("project_id", "number"),
        Index("uq_policy_version_one_current", "project_id", unique=True, postgresql_where=text("state = 'current'")),
        CheckConstraint("(recipe = 'imported') = (stage_id IS NULL)", name="made_by_a_stage_or_imported"),
    )


class RewardModelVersion(Base):
    """A fitted reward model and its report."""

    __tablename__ = "reward_model_version"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    number: Mapped[int]
    stage_id: Mapped[int] = mapped_column(ForeignKey("stage.id"), unique=True)
    source: Mapped[str]  # the result folder below the artifacts
    manifest_sha256: Mapped[str]
    figures: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    weights_removed_at: Mapped[datetime | None]  # by the installation's rule (app.upkeep.retention)

    __table_args__ = (UniqueConstraint("project_id", "number"),)


class PolicyBenchmark(Base):
    """One figure of a version on a public task, as the evaluation harness computed it. Only ever added to."""

    __tablename__ = "policy_benchmark"

    id: Mapped[int] = mapped_column(primary_key=True)
    policy_version_id: Mapped[int] = mapped_column(ForeignKey("policy_version.id"))
    task: Mapped[str]
    metric: Mapped[str]
    filter: Mapped[str]  # how an answer was read out of a completion; "none" where nothing had to be
    value: Mapped[float]
    stderr: Mapped[float | None]
    num_examples: Mapped[int]
    num_fewshot: Mapped[int | None]  # answered examples before each question; null: the parts of a group differ
    task_version: Mapped[str]
    higher_is_better: Mapped[bool | None]
    is_part: Mapped[bool]  # of a group of tasks that was asked for
    harness: Mapped[str]  # its version
    settings: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index("ix_policy_benchmark_policy_version", "policy_version_id"),)

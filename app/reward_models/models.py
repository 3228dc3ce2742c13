"""Evaluations of reward models: how well one orders what people ranked, and how far each evaluation is."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, one_of
from app.rounds.models import StageState


class RewardEvaluation(Base):
    """A reward model on rankings of a snapshot: asked for by somebody, or made by the stage that fitted the model.

    The claim (attempt, owner, deadline) is committed before work starts, as a stage's is.
    """

    __tablename__ = "reward_evaluation"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    reward_model_id: Mapped[int | None] = mapped_column(ForeignKey("reward_model_version.id"))
    checkpoint: Mapped[str | None]  # a folder of the trainer's machine or a hub's name, where it is none of ours
    snapshot_id: Mapped[int] = mapped_column(ForeignKey("snapshot.id"))
    splits: Mapped[list[str]] = mapped_column(ARRAY(String))
    by_stage: Mapped[bool] = mapped_column(server_default=text("false"))  # of the stage that fitted the model
    includes_learned: Mapped[bool] = mapped_column(server_default=text("false"))  # prompts the model learned from too
    state: Mapped[StageState] = mapped_column(one_of(StageState, "state"), server_default="queued")
    folder: Mapped[str | None]  # below the artifacts
    manifest_sha256: Mapped[str | None]  # of the folder's result
    num_chosen: Mapped[int | None]  # rankings of the snapshot's splits, counted when it was asked for
    num_learned: Mapped[int | None]  # of these, of prompts that the model learned from; null: an earlier version asked
    num_slates: Mapped[int | None]  # to score, once that is known
    num_scored: Mapped[int] = mapped_column(server_default=text("0"))
    report: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]  # {"code", "message", "advice", "last_lines"}
    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    owner: Mapped[str | None]
    deadline: Mapped[datetime | None]
    requested_by: Mapped[int | None] = mapped_column(ForeignKey("account.id"))  # null: a stage, or the command line
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("(reward_model_id IS NULL) <> (checkpoint IS NULL)", name="one_model"),
        CheckConstraint(
            "state <> 'running' OR (owner IS NOT NULL AND deadline IS NOT NULL)", name="running_is_claimed"
        ),
        CheckConstraint("state <> 'failed' OR error IS NOT NULL", name="failed_says_why"),
        CheckConstraint(
            "state <> 'succeeded' OR (report IS NOT NULL AND manifest_sha256 IS NOT NULL)",
            name="succeeded_has_a_report",
        ),
        Index("ix_reward_evaluation_project", "project_id", "id"),
        Index("ix_reward_evaluation_queue", "id", postgresql_where=text("state IN ('queued', 'running')")),
        Index("uq_reward_evaluation_by_stage", "reward_model_id", unique=True, postgresql_where=text("by_stage")),
    )

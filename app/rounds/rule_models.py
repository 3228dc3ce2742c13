"""The project's rule: when a round is started without anybody pressing the button."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Float, ForeignKey, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base


class RoundRule(Base):
    """ "When so many new rankings are in, and so many hours have passed, start a round of these stages."

    A project has one at most. What it was before stands in the audit log.
    """

    __tablename__ = "round_rule"

    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"), primary_key=True)
    num_rankings: Mapped[int]  # new since the last round was started
    least_hours: Mapped[float] = mapped_column(Float, server_default=text("0"))  # since the last round was started
    stages: Mapped[list[str]] = mapped_column(JSONB)
    overrides: Mapped[dict[str, Any]]  # recipe -> setting -> value
    evaluation_comparisons: Mapped[int | None]  # null: the project's number
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_by: Mapped[int | None] = mapped_column(ForeignKey("account.id"))
    paused_at: Mapped[datetime | None]
    paused_because: Mapped[str | None]  # null: somebody paused it
    seen_failure_at: Mapped[datetime | None]  # the end of the round that failed, which an admin has looked at
    # {"code", "message"}: why the last try started no round. Nothing is SQL's NULL, which a query asks for.
    problem: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    problem_at: Mapped[datetime | None]  # since when
    tried_at: Mapped[datetime | None]  # the last time that it was due

    __table_args__ = (
        CheckConstraint("num_rankings >= 1 AND least_hours >= 0", name="limits"),
        CheckConstraint("paused_because IS NULL OR paused_at IS NOT NULL", name="paused_why"),
    )

"""Quality: rankings as the statistics read them, what was decided about people, and researchers' decisions."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, SmallInteger, Text, func
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, one_of


class RankingDigest(Base):
    """A ranking in one row, made from it once: statistics over a million read this and join no items.

    Digits are characters from "0" on, one a completion in the order of positions: ranks "2134" put the second first.
    """

    __tablename__ = "ranking_digest"

    ranking_id: Mapped[UUID] = mapped_column(ForeignKey("ranking.id"), primary_key=True)
    ranks: Mapped[str]
    places: Mapped[str | None]  # where each completion was shown, 1 is first; null: nobody was shown it here
    num_characters: Mapped[int]  # of the completions: what there was to read
    qualities: Mapped[str | None]  # 1 to 7, 0 where none was given; null: on none of them
    flagged: Mapped[str | None]  # 2 with a flag, 1 without; null: the form did not ask
    flags: Mapped[list[str] | None] = mapped_column(ARRAY(Text))  # every flag set, on any completion


class KeptReport(Base):
    """The newest quality report of one filter, of a project too large to make it while somebody waits."""

    __tablename__ = "kept_report"

    name: Mapped[str] = mapped_column(primary_key=True)  # a hash of the project and the filter
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    report: Mapped[dict[str, Any] | None]
    made_at: Mapped[datetime | None]
    making_until: Mapped[datetime | None]  # some process makes it anew; one that was killed is waited for until then

    __table_args__ = (
        Index("ix_kept_report_project", "project_id"),
        CheckConstraint("(report IS NULL) = (made_at IS NULL)", name="made_says_when"),
    )


class Step(StrEnum):
    """What an admin may do about a labeler, in this order; nothing deletes."""

    WARN = "warn"
    PAUSE = "pause"
    REVIEW = "review"


class QualityAction(Base):
    """A step that an admin took about a labeler, and why. Append-only (trigger)."""

    __tablename__ = "quality_action"

    id: Mapped[int] = mapped_column(primary_key=True)
    labeler_id: Mapped[int] = mapped_column(ForeignKey("labeler.id"))
    step: Mapped[Step] = mapped_column(one_of(Step, "step"))
    reason: Mapped[str]  # the labeler reads it
    lets_work: Mapped[bool | None]  # a review's outcome
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"))  # who took it
    created_at: Mapped[datetime]

    __table_args__ = (
        Index("ix_quality_action_labeler", "labeler_id"),
        CheckConstraint("(step = 'review') = (lets_work IS NOT NULL)", name="reviews_decide"),
        CheckConstraint("reason <> ''", name="reason"),
    )


class Adjudication(Base):
    """A researcher's decision on a slate that its labelers ranked differently. Append-only (trigger)."""

    __tablename__ = "adjudication"

    slate_id: Mapped[UUID] = mapped_column(ForeignKey("slate.id"), primary_key=True)
    ranks: Mapped[dict[str, Any]]  # completion id -> rank, 1 is best, equal ranks are ties
    reason: Mapped[str]
    num_rankings: Mapped[int] = mapped_column(SmallInteger)  # judgements that the decision was made on
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (CheckConstraint("reason <> ''", name="reason"),)

"""Getting in, and known answers: who accepted which guidelines, reference rankings, and newcomers' tries."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Float, ForeignKey, Index, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base


class GuidelinesAcceptance(Base):
    """An account read a version of the guidelines and said that they will follow it. Append-only (trigger)."""

    __tablename__ = "guidelines_acceptance"

    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"), primary_key=True)
    guidelines_id: Mapped[int] = mapped_column(ForeignKey("guidelines.id"), primary_key=True)
    accepted_at: Mapped[datetime]


class ReferenceRanking(Base):
    """A researcher's answer on a gold or onboarding slate, and why. Append-only (trigger): a wrong one is retired."""

    __tablename__ = "reference_ranking"

    slate_id: Mapped[UUID] = mapped_column(ForeignKey("slate.id"), primary_key=True)
    ranks: Mapped[dict[str, int]] = mapped_column(JSONB)  # completion id -> rank, 1 is best, equal ranks are ties
    reason: Mapped[str]
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Onboarding(Base):
    """Where a newcomer stands: in a try, entered, or waiting for an admin."""

    __tablename__ = "onboarding"

    labeler_id: Mapped[int] = mapped_column(ForeignKey("labeler.id"), primary_key=True)
    try_number: Mapped[int] = mapped_column(server_default=text("1"))
    extra_tries: Mapped[int] = mapped_column(server_default=text("0"))  # allowed by an admin, beyond the project's
    entered_at: Mapped[datetime | None]
    admitted_by: Mapped[int | None] = mapped_column(ForeignKey("account.id"))  # null: by reaching the threshold
    waits_since: Mapped[datetime | None]  # for an admin: every try was below the threshold

    __table_args__ = (
        CheckConstraint("entered_at IS NULL OR waits_since IS NULL", name="enters_or_waits"),
        CheckConstraint("admitted_by IS NULL OR entered_at IS NOT NULL", name="the_admitted_have_entered"),
        CheckConstraint("try_number >= 1 AND extra_tries >= 0", name="tries"),
    )


class OnboardingAnswer(Base):
    """A newcomer's ranking of an onboarding slate in one of their tries, held against the reference."""

    __tablename__ = "onboarding_answer"

    ranking_id: Mapped[UUID] = mapped_column(ForeignKey("ranking.id"), primary_key=True)
    labeler_id: Mapped[int] = mapped_column(ForeignKey("onboarding.labeler_id"))
    slate_id: Mapped[UUID] = mapped_column(ForeignKey("slate.id"))
    try_number: Mapped[int] = mapped_column(BigInteger)
    num_agreed: Mapped[float] = mapped_column(Float)  # pairs ordered as the reference does, ties half
    num_pairs: Mapped[int]

    __table_args__ = (
        Index("uq_onboarding_answer", "labeler_id", "try_number", "slate_id", unique=True),
        CheckConstraint("num_pairs >= 1 AND num_agreed BETWEEN 0 AND num_pairs", name="pairs"),
    )

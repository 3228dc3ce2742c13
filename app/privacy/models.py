"""Erasures of people: what was done, whose labels it names, and the folders that are still to go."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, one_of


class Extent(StrEnum):
    """How much of a person is erased."""

    LINK = "link"  # who they are: their labels stay, under a pseudonym that leads to nobody
    LABELS = "labels"  # that, and every label they gave and text they wrote


class Erasure(Base):
    """One erasure, without the person's name. Append-only (trigger).

    transaction_id, at: of the one that wrote it, in which alone the labels it names may go.
    """

    __tablename__ = "erasure"

    id: Mapped[int] = mapped_column(primary_key=True)
    extent: Mapped[Extent] = mapped_column(one_of(Extent, "extent"))
    account_id: Mapped[int | None] = mapped_column(ForeignKey("account.id"))  # what is left of it; null: they had none
    by_account_id: Mapped[int | None] = mapped_column(ForeignKey("account.id"))
    at: Mapped[datetime]
    transaction_id: Mapped[str]
    report: Mapped[dict[str, Any]]  # what it found and did away with: app.privacy.findings

    __table_args__ = (Index("ix_erasure_transaction", "transaction_id"),)


class ErasedLabeler(Base):
    """A labeler whom an erasure names. Append-only (trigger)."""

    __tablename__ = "erased_labeler"

    labeler_id: Mapped[int] = mapped_column(ForeignKey("labeler.id"), primary_key=True)
    erasure_id: Mapped[int] = mapped_column(ForeignKey("erasure.id"), primary_key=True)


class RedactedResult(Base):
    """A reward model's result whose scores are of labels that were erased: they go, the model stays.

    The manifest it had stays on record by its hash; the one that it has from then on is noted before any file changes,
    so whoever finds a redaction that was killed half-way knows both for ours.
    """

    __tablename__ = "redacted_result"

    id: Mapped[int] = mapped_column(primary_key=True)
    erasure_id: Mapped[int] = mapped_column(ForeignKey("erasure.id"))
    reward_model_id: Mapped[int] = mapped_column(ForeignKey("reward_model_version.id"))
    folder: Mapped[str]  # below the artifacts
    former_sha256: Mapped[str | None]  # of the manifest until then
    successor_sha256: Mapped[str | None]  # of the manifest from then on
    removed_at: Mapped[datetime | None]
    problem: Mapped[str | None]  # why the last try failed

    __table_args__ = (Index("ix_redacted_result_waiting", "id", postgresql_where=text("removed_at IS NULL")),)


class DoomedFolder(Base):
    """A folder below the artifacts that holds what was erased: removed after the commit, and tried until it is gone."""

    __tablename__ = "doomed_folder"

    id: Mapped[int] = mapped_column(primary_key=True)
    erasure_id: Mapped[int] = mapped_column(ForeignKey("erasure.id"))
    folder: Mapped[str]
    removed_at: Mapped[datetime | None]
    problem: Mapped[str | None]  # why the last try failed

    __table_args__ = (Index("ix_doomed_folder_waiting", "id", postgresql_where=text("removed_at IS NULL")),)

"""Snapshots that papers can rest on, and the record of every import."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.db import Base


class Snapshot(Base):
    """An immutable choice of rankings and demonstrations: the filter, what it selected, and hashes of the exports."""

    __tablename__ = "snapshot"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    name: Mapped[str]
    filter: Mapped[dict[str, Any]]
    num_rankings: Mapped[int]
    num_comparisons: Mapped[int]
    num_demonstrations: Mapped[int] = mapped_column(server_default=text("0"))
    counts: Mapped[dict[str, Any]]  # by kind, split, policy version
    sha256: Mapped[str]  # of the canonical kwise JSONL
    sft_sha256: Mapped[str | None]  # of the canonical sft JSONL; null: it holds no demonstration
    exporter_version: Mapped[int]
    created_by: Mapped[int | None] = mapped_column(ForeignKey("account.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    # With the snapshot itself: whoever writes a file from it has to know.
    redaction: Mapped["Redaction | None"] = relationship(
        primaryjoin="Snapshot.id == Redaction.snapshot_id", lazy="selectin", viewonly=True, uselist=False
    )

    __table_args__ = (UniqueConstraint("project_id", "name"),)


class Redaction(Base):
    """A snapshot that an erasure took labels out of: its hash stays on record, no file is written from it any more."""

    __tablename__ = "redaction"

    snapshot_id: Mapped[int] = mapped_column(ForeignKey("snapshot.id"), primary_key=True)
    # What is left of it, under a hash of its own; null: nothing was. Checked at commit, like a snapshot's rows.
    successor_id: Mapped[int | None] = mapped_column(ForeignKey("snapshot.id", deferrable=True, initially="DEFERRED"))
    erasure_id: Mapped[int] = mapped_column(ForeignKey("erasure.id"))


class SnapshotRanking(Base):
    """One ranking of a snapshot, with the values derived when it was frozen."""

    __tablename__ = "snapshot_ranking"

    # Checked at commit: the rankings are chosen and hashed before the snapshot that carries their hash is written.
    snapshot_id: Mapped[int] = mapped_column(
        ForeignKey("snapshot.id", deferrable=True, initially="DEFERRED"), primary_key=True
    )
    position: Mapped[int] = mapped_column(primary_key=True)  # the export's order
    ranking_id: Mapped[UUID] = mapped_column(ForeignKey("ranking.id"))
    pseudonym: Mapped[str]
    weight: Mapped[float] = mapped_column(server_default=text("1.0"))
    is_adjudicated: Mapped[bool] = mapped_column(server_default=text("false"))  # its slate was decided by then

    __table_args__ = (
        UniqueConstraint("snapshot_id", "ranking_id"),
        Index("ix_snapshot_ranking_ranking", "ranking_id"),
    )


class SnapshotDemonstration(Base):
    """One demonstration of a snapshot: from then on it cannot be taken back (trigger)."""

    __tablename__ = "snapshot_demonstration"

    snapshot_id: Mapped[int] = mapped_column(
        ForeignKey("snapshot.id", deferrable=True, initially="DEFERRED"), primary_key=True
    )
    position: Mapped[int] = mapped_column(primary_key=True)
    demonstration_id: Mapped[UUID] = mapped_column(ForeignKey("demonstration.id"))
    pseudonym: Mapped[str | None]  # null: the file that it came from does not say who wrote it

    __table_args__ = (
        UniqueConstraint("snapshot_id", "demonstration_id"),
        Index("ix_snapshot_demonstration_demonstration", "demonstration_id"),
    )


class SnapshotBreakdown(Base):
    """How many labels of a snapshot are of one labeler, week, side of the split or pair of authors; counted once.

    What a snapshot holds never changes, so neither do its counts: a million rows need not be read to tell them.
    """

    __tablename__ = "snapshot_breakdown"

    snapshot_id: Mapped[int] = mapped_column(ForeignKey("snapshot.id"), primary_key=True)
    content: Mapped[str] = mapped_column(primary_key=True)  # "rankings" or "demonstrations"
    dimension: Mapped[str] = mapped_column(primary_key=True)  # "labeler", "week", "split", "authors"
    key: Mapped[str] = mapped_column(primary_key=True)
    num_labels: Mapped[int]


class DatasetImport(Base):
    """One file that was read in, and what each of its lines became."""

    __tablename__ = "dataset_import"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    what: Mapped[str]  # "prompts", "rankings", "demonstrations"
    format: Mapped[str]
    file_name: Mapped[str]
    sha256: Mapped[str]
    report: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    created_by: Mapped[int | None] = mapped_column(ForeignKey("account.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

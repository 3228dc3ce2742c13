"""Snapshots that papers can rest on, and the record of every import."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Double, ForeignKey, Index, LargeBinary, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.db import Base, one_of


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
    licence: Mapped[str | None]  # a name that Hugging Face knows; null: nobody said
    measured: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))  # for its card, when it was frozen
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


class SnapshotLabeler(Base):
    """How far others agree with one who ranked, by the rankings of a snapshot when it was frozen."""

    __tablename__ = "snapshot_labeler"

    snapshot_id: Mapped[int] = mapped_column(
        ForeignKey("snapshot.id", deferrable=True, initially="DEFERRED"), primary_key=True
    )
    pseudonym: Mapped[str] = mapped_column(primary_key=True)
    num_rankings: Mapped[int]
    num_pairings: Mapped[int]  # of a ranking of theirs with somebody else's of the same slate
    agreement: Mapped[float | None] = mapped_column(Double)  # mean share of comparisons ordered alike; null: no pairing
    reliability: Mapped[float | None] = mapped_column(Double)  # that, shrunk to everybody's; null: nobody has a pairing
    weight: Mapped[float] = mapped_column(Double)  # of each of their rankings; the mean over the snapshot's is 1


class SnapshotSlate(Base):
    """How far those who ranked a slate agree, by the rankings of a snapshot; only slates that two or more ranked."""

    __tablename__ = "snapshot_slate"

    snapshot_id: Mapped[int] = mapped_column(
        ForeignKey("snapshot.id", deferrable=True, initially="DEFERRED"), primary_key=True
    )
    slate_id: Mapped[UUID] = mapped_column(ForeignKey("slate.id"), primary_key=True)
    agreement: Mapped[float] = mapped_column(Double)


class ExportFile(Base):
    """What is known of a file since it was written to its end once: how long it is, its hash, where its pieces begin.

    The file itself is kept nowhere: any part of it is written anew from the snapshot.
    """

    __tablename__ = "export_file"

    snapshot_id: Mapped[int] = mapped_column(ForeignKey("snapshot.id"), primary_key=True)
    tag: Mapped[str] = mapped_column(primary_key=True)  # the HTTP entity tag: format, options and exporter version
    num_bytes: Mapped[int]
    sha256: Mapped[str]
    starts: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))  # first byte of each piece that can be begun with


class ImportState(StrEnum):
    """running → done | failed. One whose process was killed stays running without a heartbeat; it left nothing."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class DatasetImport(Base):
    """One file that was read in, or is being read, and what its lines became."""

    __tablename__ = "dataset_import"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    what: Mapped[str]  # "prompts", "rankings", "demonstrations"
    format: Mapped[str]
    file_name: Mapped[str]
    sha256: Mapped[str]
    state: Mapped[ImportState] = mapped_column(one_of(ImportState, "state"), server_default=text("'done'"))
    is_trial: Mapped[bool] = mapped_column(server_default=text("false"))  # only looked at: nothing of it was stored
    has_keyed_ids: Mapped[bool] = mapped_column(server_default=text("false"))  # of rankings: with the project's secret
    report: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    problems: Mapped[list[dict[str, Any]]] = mapped_column(server_default=text("'[]'"))  # of a failed one
    # How far a running one has come, written beside its transaction, and when that was.
    num_bytes: Mapped[int] = mapped_column(server_default=text("0"))
    num_bytes_read: Mapped[int] = mapped_column(server_default=text("0"))
    num_lines_read: Mapped[int] = mapped_column(server_default=text("0"))
    heartbeat_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    created_by: Mapped[int | None] = mapped_column(ForeignKey("account.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index("ix_dataset_import_project", "project_id", "id"),)


class DatasetImportLines(Base):
    """What each of some thousand lines of a file became: JSON lines, packed, since a file may have a million."""

    __tablename__ = "dataset_import_lines"

    import_id: Mapped[int] = mapped_column(ForeignKey("dataset_import.id"), primary_key=True)
    block: Mapped[int] = mapped_column(primary_key=True)  # 0, 1, 2 … in the file's order
    packed: Mapped[bytes] = mapped_column(LargeBinary)

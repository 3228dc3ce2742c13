"""Files written from snapshots: the same bytes for the same snapshot, format and options, in bounded memory.

A snapshot never changes, so its rows are read a few hundred at a time, each time in a read-only session of its own: a
slow download holds no connection while it waits for its reader.
"""

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.batches import batches
from app.datasets.demonstrations import demonstrations_between
from app.datasets.errors import BadExport, SnapshotRedacted
from app.datasets.kwise import kwise_line, kwise_record
from app.datasets.models import Snapshot
from app.datasets.pairs import Pairs, with_decisions
from app.datasets.reading import rows_between
from app.datasets.rows import DemonstrationRow, RankingRow
from app.datasets.sft import sft_columns, sft_line, sft_schema
from app.datasets.snapshots import EXPORTER_VERSION
from app.db import SessionFactory

if TYPE_CHECKING:
    import pyarrow as pa

Format = Literal["kwise", "pairs", "sft"]
FileType = Literal["jsonl", "parquet"]
Ties = Literal["drop", "keep"]
Labels = Literal["given", "adjudicated"]
Style = Literal["auto", "standard", "conversational"]

ROWS_PER_SESSION = 500  # of about 10 kB each
CHUNK_BYTES = 2**16
# Rows of a Parquet file that are compressed together, all of them in memory.
ROWS_PER_GROUP = {"kwise": 500, "pairs": 5000, "sft": 5000}

Row = TypeVar("Row")


@dataclass(frozen=True, kw_only=True)
class ExportChoice:
    """What file to write.

    ties: whether pairs of equal rank are left out or marked `tie`.
    labels: whether pairs are what labelers said, or a researcher's decision where there is one.
    style: how pairs hold prompts and completions, as texts or as turns (TRL knows both); auto writes texts if it can.
    Raises BadExport for what does not exist.
    """

    format: Format = "kwise"
    file: FileType = "jsonl"
    ties: Ties = "drop"
    labels: Labels = "given"
    style: Style = "auto"

    def __post_init__(self) -> None:
        for field in fields(self):
            choices = get_args(field.type)
            if getattr(self, field.name) not in choices:
                raise BadExport(
                    f"There is no {field.name} {getattr(self, field.name)!r}; choose {' or '.join(choices)}."
                )


def check_export(snapshot: Snapshot, choice: ExportChoice) -> None:
    """Raises BadExport if the snapshot cannot be written so, SnapshotRedacted if it cannot be written any more."""
    if snapshot.redaction is not None:
        raise SnapshotRedacted(snapshot.name, snapshot.redaction.successor_id)
    if choice.format == "sft" and not snapshot.num_demonstrations:
        raise BadExport("The snapshot holds no demonstration; freeze one that does.")
    if choice.format != "sft" and not snapshot.num_rankings:
        raise BadExport("The snapshot holds demonstrations alone; choose sft.")
    conversational = snapshot.counts["conversational"]
    if choice.format == "pairs" and choice.style == "standard" and conversational:
        raise BadExport(
            f"{conversational} rankings have prompts of several turns, which do not fit the standard style;"
            " choose conversational."
        )


def file_name_of(project_slug: str, snapshot: Snapshot, choice: ExportChoice) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", snapshot.name.lower()).strip("-") or str(snapshot.id)
    return f"{project_slug}-{name}-{choice.format}.{choice.file}"


def tag_of(snapshot: Snapshot, choice: ExportChoice) -> str:
    """The same for the same bytes: an HTTP entity tag, without its quotes."""
    options = choice.format, choice.file, choice.ties, choice.labels, choice.style
    said = (snapshot.sha256, snapshot.id, EXPORTER_VERSION, *options)
    return hashlib.sha256(repr(said).encode()).hexdigest()[:32]


def export_chunks(snapshot: Snapshot, choice: ExportChoice) -> Iterator[bytes]:
    """The file's bytes, to be written one after the other."""
    check_export(snapshot, choice)
    if choice.format == "sft":
        demonstrations = frozen_demonstrations(snapshot)
        if choice.file == "jsonl":
            return joined(map(sft_line, demonstrations))
        return parquet_chunks(sft_schema(), map(sft_columns, demonstrations), ROWS_PER_GROUP["sft"])
    rows = frozen_rows(snapshot)
    if choice.format == "kwise":
        if choice.file == "jsonl":
            return joined(map(kwise_line, rows))
        return parquet_chunks(kwise_schema(), map(kwise_columns, rows), ROWS_PER_GROUP["kwise"])
    pairs = pairs_of(snapshot, choice)
    if choice.labels == "adjudicated":
        rows = with_decisions(rows)
    if choice.file == "jsonl":
        return joined(pairs.lines(row) for row in rows)
    records = (record for row in rows for record in pairs.records(row))
    return parquet_chunks(pairs.schema(), records, ROWS_PER_GROUP["pairs"])


def pairs_of(snapshot: Snapshot, choice: ExportChoice) -> Pairs:
    counts = snapshot.counts
    has_decisions = choice.labels == "adjudicated" and bool(counts.get("adjudicated"))  # those have no strength
    return Pairs(
        keeps_ties=choice.ties == "keep",
        has_turns=choice.style == "conversational" or (choice.style == "auto" and bool(counts["conversational"])),
        has_margins=counts["with_strength"] == snapshot.num_rankings and not has_decisions,
    )


def frozen_rows(snapshot: Snapshot) -> Iterator[RankingRow]:
    return in_pieces(snapshot, snapshot.num_rankings, rows_between)


def frozen_demonstrations(snapshot: Snapshot) -> Iterator[DemonstrationRow]:
    return in_pieces(snapshot, snapshot.num_demonstrations, demonstrations_between)


def in_pieces(snapshot: Snapshot, last: int, read: Callable[[Session, int, int, int], Iterable[Row]]) -> Iterator[Row]:
    """The rows at positions 1 to last, each piece read in a session of its own."""
    for start in range(1, last + 1, ROWS_PER_SESSION):
        with SessionFactory() as session:
            session.execute(text("SET TRANSACTION READ ONLY"))
            piece = list(read(session, snapshot.id, start, start + ROWS_PER_SESSION - 1))
        yield from piece


def joined(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines in chunks worth sending."""
    waiting: list[bytes] = []
    size = 0
    for line in lines:
        waiting.append(line)
        size += len(line)
        if size >= CHUNK_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def kwise_columns(row: RankingRow) -> dict[str, Any]:
    """A kwise record as Parquet holds it: facts, whose names differ from file to file, as JSON."""
    record = kwise_record(row)
    for completion in record["completions"]:
        completion["facts"] = json.dumps(completion["facts"], ensure_ascii=False, sort_keys=True)
    if row.decision is not None:
        record["adjudication"]["decided_at"] = row.decision.decided_at
    return record | {"submitted_at": row.submitted_at}


def kwise_schema() -> "pa.Schema":
    import pyarrow as pa

    completion = pa.struct(
        [
            ("id", pa.string()),
            ("text", pa.string()),
            ("source", pa.string()),
            ("policy_version", pa.int64()),
            ("seed", pa.int64()),
            ("temperature", pa.float64()),
            ("top_p", pa.float64()),
            ("finish_reason", pa.string()),
            ("logprob", pa.float64()),
            ("token_ids", pa.list_(pa.int64())),
            ("tokenizer_sha256", pa.string()),
            ("facts", pa.string()),
            ("rank", pa.int32()),
            ("quality", pa.int32()),
            ("flags", pa.list_(pa.string())),
            ("is_safe", pa.bool_()),
        ]
    )
    decision = pa.struct(
        [
            ("ranks", pa.list_(pa.int32())),
            ("num_rankings", pa.int32()),
            ("decided_at", pa.timestamp("us", tz="UTC")),
        ]
    )
    return pa.schema(
        [
            ("ranking_id", pa.string()),
            ("slate_id", pa.string()),
            ("kind", pa.string()),
            ("group", pa.string()),
            ("split", pa.string()),
            ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
            ("completions", pa.list_(completion)),
            ("order_shown", pa.list_(pa.int32())),
            ("labeler", pa.string()),
            ("is_pick", pa.bool_()),
            ("strength", pa.string()),
            ("margin", pa.float64()),
            ("safety_bin", pa.string()),
            ("weight", pa.float64()),
            ("active_s", pa.float64()),
            ("submitted_at", pa.timestamp("us", tz="UTC")),
            ("adjudication", decision),
        ]
    )


class Outbox(io.RawIOBase):
    """A file that is only written to, and handed on as it is written."""

    def __init__(self) -> None:
        super().__init__()
        self.chunks: list[bytes] = []
        self.size = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.size

    def write(self, data: Any) -> int:
        self.chunks.append(bytes(data))
        self.size += len(self.chunks[-1])
        return len(self.chunks[-1])

    def take(self) -> bytes:
        taken = b"".join(self.chunks)
        self.chunks.clear()
        return taken


def parquet_chunks(schema: "pa.Schema", records: Iterable[dict[str, Any]], rows_per_group: int) -> Iterator[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    outbox = Outbox()
    with pq.ParquetWriter(outbox, schema, compression="zstd") as writer:
        for batch in batches(records, rows_per_group):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            yield outbox.take()
    yield outbox.take()

"""Files written from snapshots: the same bytes for the same snapshot, format and options, in bounded memory.

A snapshot never changes, so its rows are read a few hundred at a time, each time in a read-only session of its own: a
slow download holds no connection while it waits for its reader.
"""

import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from sqlalchemy import text

from app.batches import batches
from app.datasets.errors import BadExport
from app.datasets.kwise import encode, kwise_line, kwise_record
from app.datasets.models import Snapshot
from app.datasets.rows import RankingRow
from app.datasets.snapshots import EXPORTER_VERSION, rows_between
from app.db import SessionFactory

if TYPE_CHECKING:
    import pyarrow as pa

Format = Literal["kwise", "pairs"]
FileType = Literal["jsonl", "parquet"]
Ties = Literal["drop", "keep"]
Style = Literal["auto", "standard", "conversational"]

ROWS_PER_SESSION = 500  # of about 10 kB each
CHUNK_BYTES = 2**16
# Rows of a Parquet file that are compressed together, all of them in memory.
ROWS_PER_GROUP = {"kwise": 500, "pairs": 5000}

Rows: TypeAlias = Iterable[RankingRow]


@dataclass(frozen=True, kw_only=True)
class ExportChoice:
    """What file to write.

    ties: whether pairs of equal rank are left out or marked `tie`.
    style: how pairs hold prompts and completions, as texts or as turns (TRL knows both); auto writes texts if it can.
    Raises BadExport for what does not exist.
    """

    format: Format = "kwise"
    file: FileType = "jsonl"
    ties: Ties = "drop"
    style: Style = "auto"

    def __post_init__(self) -> None:
        for field in fields(self):
            choices = get_args(field.type)
            if getattr(self, field.name) not in choices:
                raise BadExport(
                    f"There is no {field.name} {getattr(self, field.name)!r}; choose {' or '.join(choices)}."
                )


def check_export(snapshot: Snapshot, choice: ExportChoice) -> None:
    """Raises BadExport if the snapshot cannot be written so."""
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
    said = (snapshot.sha256, snapshot.id, EXPORTER_VERSION, choice.format, choice.file, choice.ties, choice.style)
    return hashlib.sha256(repr(said).encode()).hexdigest()[:32]


def export_chunks(snapshot: Snapshot, choice: ExportChoice) -> Iterator[bytes]:
    """The file's bytes, to be written one after the other."""
    check_export(snapshot, choice)
    rows = frozen_rows(snapshot)
    if choice.format == "kwise":
        if choice.file == "jsonl":
            return joined(map(kwise_line, rows))
        return parquet_chunks(kwise_schema(), map(kwise_columns, rows), ROWS_PER_GROUP["kwise"])
    pairs = Pairs(
        keeps_ties=choice.ties == "keep",
        has_turns=choice.style == "conversational"
        or (choice.style == "auto" and bool(snapshot.counts["conversational"])),
        has_margins=snapshot.counts["with_strength"] == snapshot.num_rankings,
    )
    if choice.file == "jsonl":
        return joined(pairs.lines(row) for row in rows)
    records = (record for row in rows for record in pairs.records(row))
    return parquet_chunks(pairs.schema(), records, ROWS_PER_GROUP["pairs"])


def frozen_rows(snapshot: Snapshot) -> Iterator[RankingRow]:
    for start in range(1, snapshot.num_rankings + 1, ROWS_PER_SESSION):
        yield from read_some(snapshot.id, start)


def read_some(snapshot_id: int, start: int) -> list[RankingRow]:
    with SessionFactory() as session:
        session.execute(text("SET TRANSACTION READ ONLY"))
        return list(rows_between(session, snapshot_id, start, start + ROWS_PER_SESSION - 1))


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


@dataclass(frozen=True)
class Pairs:
    """TRL's preference format with an explicit prompt: one record a comparison, better completion first.

    has_margins: with a column `margin`; TRL learns from that column and cannot read a null in it, so it is there only
    when every ranking of the snapshot states its strength.
    """

    keeps_ties: bool
    has_turns: bool
    has_margins: bool

    def places(self, row: RankingRow) -> Iterator[tuple[int, int]]:
        """Positions of the better and the worse completion, from the best downwards."""
        order = [position for _, position in row.places]
        for place, better in enumerate(order):
            for worse in order[place + 1 :]:
                if self.keeps_ties or row.ranks[better] < row.ranks[worse]:
                    yield better, worse

    def prompt(self, row: RankingRow) -> Any:
        return row.messages if self.has_turns else row.messages[0]["content"]

    def completion(self, text: str) -> Any:
        return [{"role": "assistant", "content": text}] if self.has_turns else text

    def shared(self, row: RankingRow) -> dict[str, Any]:
        """What all comparisons of a ranking have in common."""
        margin = {"margin": row.margin} if self.has_margins else {}
        return margin | {
            "strength": None if row.strength is None else row.strength.value,
            "group": row.group_key,
            "split": row.split.value,
            "kind": row.kind.value,
            "ranking_id": str(row.ranking_id),
            "k": len(row.ranks),
            "labeler": row.pseudonym,
            "weight": row.weight,
        }

    def side(self, name: str, row: RankingRow, position: int) -> dict[str, Any]:
        """What only the better ("chosen") or the worse ("rejected") completion of a comparison has."""
        completion = row.completions[position]
        return {
            name: self.completion(completion.text),
            f"{name}_rank": row.ranks[position],
            f"{name}_policy_version": completion.policy_number,
        }

    def records(self, row: RankingRow) -> Iterator[dict[str, Any]]:
        prompt, shared, positions = self.prompt(row), self.shared(row), range(len(row.ranks))
        chosen = [self.side("chosen", row, position) for position in positions]
        rejected = [self.side("rejected", row, position) for position in positions]
        for better, worse in self.places(row):
            tie = row.ranks[better] == row.ranks[worse]
            yield {"prompt": prompt, **chosen[better], **rejected[worse], "tie": tie, **shared}

    def lines(self, row: RankingRow) -> bytes:
        """The records as lines of JSON. A text is in up to K-1 of them, so each is encoded once and then copied."""
        positions = range(len(row.ranks))
        chosen = [inside({"prompt": self.prompt(row)} | self.side("chosen", row, position)) for position in positions]
        rejected = [inside(self.side("rejected", row, position)) for position in positions]
        rest = {tie: inside({"tie": tie} | self.shared(row)) for tie in (True, False)}
        return b"".join(
            b"{%b,%b,%b}\n" % (chosen[better], rejected[worse], rest[row.ranks[better] == row.ranks[worse]])
            for better, worse in self.places(row)
        )

    def schema(self) -> "pa.Schema":
        import pyarrow as pa

        turns = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
        text_type = turns if self.has_turns else pa.string()
        margin = [("margin", pa.float64())] if self.has_margins else []
        return pa.schema(
            [
                ("prompt", text_type),
                ("chosen", text_type),
                ("chosen_rank", pa.int32()),
                ("chosen_policy_version", pa.int64()),
                ("rejected", text_type),
                ("rejected_rank", pa.int32()),
                ("rejected_policy_version", pa.int64()),
                ("tie", pa.bool_()),
                *margin,
                ("strength", pa.string()),
                ("group", pa.string()),
                ("split", pa.string()),
                ("kind", pa.string()),
                ("ranking_id", pa.string()),
                ("k", pa.int32()),
                ("labeler", pa.string()),
                ("weight", pa.float64()),
            ]
        )


def inside(fields: dict[str, Any]) -> bytes:
    """The fields as JSON without the braces around them."""
    return encode(fields)[1:-1].encode()


def kwise_columns(row: RankingRow) -> dict[str, Any]:
    """A kwise record as Parquet holds it: facts, whose names differ from file to file, as JSON."""
    record = kwise_record(row)
    for completion in record["completions"]:
        completion["facts"] = json.dumps(completion["facts"], ensure_ascii=False, sort_keys=True)
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
            ("strength", pa.string()),
            ("margin", pa.float64()),
            ("safety_bin", pa.string()),
            ("weight", pa.float64()),
            ("active_s", pa.float64()),
            ("submitted_at", pa.timestamp("us", tz="UTC")),
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

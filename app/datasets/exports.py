"""Files written from snapshots: the same bytes for the same snapshot, format and options, in bounded memory.

A snapshot never changes, so its rows are read a few hundred at a time, each time in a read-only session of its own: a
slow download holds no connection while it waits for its reader. A file of JSON lines can be begun with any of these
pieces.
"""

import hashlib
import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple
from functools import partial
from importlib.metadata import version
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.batches import batches
from app.datasets.comparisons import with_decisions, with_reliability
from app.datasets.demonstrations import demonstrations_between
from app.datasets.errors import SnapshotRedacted
from app.datasets.export_choices import ExportChoice, check_export, num_labels_of
from app.datasets.hh import Transcripts
from app.datasets.kto import Unpaired
from app.datasets.kwise import EXPORTER_VERSION, Rankings
from app.datasets.models import Redaction, Snapshot
from app.datasets.pairs import Pairs
from app.datasets.prompt_lists import Prompts, prompts_between
from app.datasets.reading import rows_between
from app.datasets.rows import RankingRow
from app.datasets.sft import Writings
from app.datasets.stiennon import Comparisons
from app.db import SessionFactory
from app.prompts.models import Split

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_SESSION = 500  # of about 10 kB each
CHUNK_BYTES = 2**17
# Rows of a Parquet file that are compressed together, all of them in memory.
ROWS_PER_GROUP = {"kwise": 500}
ROWS_PER_GROUP_ELSE = 5000


class RecordFormat(Protocol):
    """How rows of a snapshot are written. A row may give no record, or many."""

    def lines(self, row: Any, /) -> bytes:
        """Its records as lines of JSON."""

    def columns(self, row: Any, /) -> Iterable[dict[str, Any]]:
        """Its records as Parquet holds them."""

    def schema(self) -> "pa.Schema":
        """Of the records as Parquet holds them."""


Read = Callable[[Session, int, int], Iterable[Any]]  # the rows at these positions, both included


def tag_of(snapshot: Snapshot, choice: ExportChoice) -> str:
    """The same for the same bytes in the same pieces: an HTTP entity tag, without its quotes."""
    writer = version("pyarrow") if choice.file == "parquet" else ""  # writes its own version into each file
    made_by = (snapshot.exporter_version, EXPORTER_VERSION, writer, ROWS_PER_SESSION)
    said = (snapshot.sha256, snapshot.id, *made_by, *astuple(choice))
    return hashlib.sha256(repr(said).encode()).hexdigest()[:32]


def export_chunks(snapshot: Snapshot, choice: ExportChoice) -> Iterator[bytes]:
    """The file's bytes, to be written one after the other. Raises BadExport."""
    return chain.from_iterable(export_pieces(snapshot, choice))


def export_pieces(snapshot: Snapshot, choice: ExportChoice, *, first: int = 0) -> Iterator[Iterator[bytes]]:
    """The file in pieces, each of them in chunks. first: the piece to begin with, counted from 0.

    A Parquet file is one piece: its end says where everything in it lies. Raises BadExport.
    """
    check_export(snapshot, choice)
    format, read = format_of(snapshot, choice), while_whole(snapshot, reader_of(snapshot, choice))
    start, stop = positions_of(snapshot, choice)
    if choice.file == "parquet":
        records = chain.from_iterable(map(format.columns, chain.from_iterable(pieces(read, start, stop))))
        rows_per_group = ROWS_PER_GROUP.get(choice.format, ROWS_PER_GROUP_ELSE)
        return iter([parquet_chunks(format.schema(), records, rows_per_group)])
    return (joined(map(format.lines, rows)) for rows in pieces(read, start + first * ROWS_PER_SESSION, stop))


def positions_of(snapshot: Snapshot, choice: ExportChoice) -> tuple[int, int]:
    """The first position of the shard, and the first one after it."""
    num = num_labels_of(snapshot, choice)
    return 1 + num * (choice.shard - 1) // choice.num_shards, 1 + num * choice.shard // choice.num_shards


def pieces(read: Read, start: int, stop: int) -> Iterator[list[Any]]:
    """The rows from one position up to another one, each piece read while the one before it is written."""
    firsts = deque(range(start, stop, ROWS_PER_SESSION))
    with ThreadPoolExecutor(max_workers=1) as reader:
        ahead: Future[list[Any]] | None = None
        while ahead is not None or firsts:
            rows = None if ahead is None else ahead.result()
            ahead = reader.submit(piece, read, firsts.popleft(), stop) if firsts else None
            if rows is not None:
                yield rows


def piece(read: Read, first: int, stop: int) -> list[Any]:
    with SessionFactory() as session:
        session.execute(text("SET TRANSACTION READ ONLY"))
        return list(read(session, first, min(first + ROWS_PER_SESSION, stop) - 1))


def reader_of(snapshot: Snapshot, choice: ExportChoice) -> Read:
    split = None if choice.split == "all" else Split(choice.split)
    if choice.format == "sft":
        return lambda session, first, last: demonstrations_between(session, snapshot.id, first, last, split)
    if choice.format == "prompts":
        return lambda session, first, last: prompts_between(session, snapshot, first, last, split)
    return partial(rankings_between, snapshot, choice, split)


def while_whole(snapshot: Snapshot, read: Read) -> Read:
    """The same, of a snapshot that nothing is erased from. Looked at after the rows are read: no file mixes both.

    Reading raises SnapshotRedacted.
    """

    def rows(session: Session, first: int, last: int) -> list[Any]:
        found = list(read(session, first, last))
        refuse_redacted(session, snapshot)
        return found

    return rows


def refuse_redacted(session: Session, snapshot: Snapshot) -> None:
    """As the database has it now. Raises SnapshotRedacted."""
    if (redaction := session.get(Redaction, snapshot.id, populate_existing=True)) is not None:
        raise SnapshotRedacted(snapshot.name, redaction.successor_id)


def rankings_between(
    snapshot: Snapshot, choice: ExportChoice, split: Split | None, session: Session, first: int, last: int
) -> Iterable[RankingRow]:
    rows: Iterable[RankingRow] = rows_between(session, snapshot.id, first, last, split)
    if choice.weights == "reliability":
        rows = with_reliability(rows)
    return with_decisions(rows) if choice.labels == "adjudicated" else rows


def format_of(snapshot: Snapshot, choice: ExportChoice) -> RecordFormat:
    counts = snapshot.counts
    has_turns = choice.style == "conversational" or (choice.style == "auto" and bool(counts["conversational"]))
    match choice.format:
        case "kwise":
            return Rankings(snapshot.exporter_version)
        case "pairs":
            has_decisions = choice.labels == "adjudicated" and bool(counts.get("adjudicated"))  # of no strength
            return Pairs(
                ties=choice.ties,
                has_turns=has_turns,
                has_margins=counts["with_strength"] == snapshot.num_rankings and not has_decisions,
                has_agreement=snapshot.exporter_version >= 4,
            )
        case "hh":
            return Transcripts(choice.ties)
        case "stiennon":
            return Comparisons(choice.ties)
        case "kto":
            return Unpaired(choice.least_quality, has_turns)
        case "sft":
            return Writings()
        case "prompts":
            return Prompts()


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
    if size:
        yield b"".join(waiting)


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

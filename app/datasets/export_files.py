"""Downloads of exports that go on after a break, though no file lies anywhere.

Whoever writes a file to its end once notes how long it is, its SHA-256 and where its pieces begin. From then on any
part of it can be asked for: it is written again from the piece in which that part begins. A Parquet file is one piece,
so its parts are written from its start and what the reader has is left out; ask for shards where that takes too long.
"""

import base64
import hashlib
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.datasets.export_choices import ExportChoice, check_export
from app.datasets.exports import export_pieces, refuse_redacted, tag_of
from app.datasets.models import ExportFile, Snapshot
from app.db import SessionFactory

PART = re.compile(r"bytes=(\d{1,18})-(\d{1,18})?")


@dataclass(frozen=True)
class Part:
    """Bytes of a file. first, last: counted from 0, both included."""

    first: int
    last: int

    @property
    def num_bytes(self) -> int:
        return self.last - self.first + 1


class NoSuchPart(Exception):
    """The file ends before the part begins."""


def find_file(session: Session, snapshot: Snapshot, choice: ExportChoice) -> ExportFile | None:
    """What is known of the file; None before it was written to its end for the first time."""
    return session.get(ExportFile, (snapshot.id, tag_of(snapshot, choice)))


def whole(snapshot: Snapshot, choice: ExportChoice) -> Iterator[bytes]:
    """The file's bytes; what was seen of it is noted at its end. Raises BadExport before the first one."""
    check_export(snapshot, choice)
    return noted(snapshot, tag_of(snapshot, choice), export_pieces(snapshot, choice))


def noted(snapshot: Snapshot, tag: str, pieces: Iterable[Iterable[bytes]]) -> Iterator[bytes]:
    """Raises SnapshotRedacted where labels are erased from the snapshot meanwhile; nothing is noted then."""
    digest, num_bytes, starts = hashlib.sha256(), 0, []
    for piece in pieces:
        starts.append(num_bytes)
        for chunk in piece:
            digest.update(chunk)
            num_bytes += len(chunk)
            yield chunk
    with SessionFactory.begin() as session:
        refuse_redacted(session, snapshot)
        facts = {"num_bytes": num_bytes, "sha256": digest.hexdigest(), "starts": starts}
        # Two readers may come to the end together; both saw the same file.
        session.execute(insert(ExportFile).values(snapshot_id=snapshot.id, tag=tag, **facts).on_conflict_do_nothing())


def asks_for_part(asked: str | None) -> bool:
    """Whether a Range header is one that we heed; the others are answered with the whole file."""
    return PART.fullmatch(asked or "") is not None


def part_of(asked: str | None, num_bytes: int) -> Part | None:
    """The part that a Range header asks for; None where it asks for none that we know (RFC 9110, 14.2).

    Raises NoSuchPart.
    """
    found = PART.fullmatch(asked or "")
    if found is None:
        return None
    first, last = int(found[1]), num_bytes - 1 if found[2] is None else min(int(found[2]), num_bytes - 1)
    if first >= num_bytes:
        raise NoSuchPart
    return Part(first, last) if first <= last else None


def part_chunks(snapshot: Snapshot, choice: ExportChoice, file: ExportFile, part: Part) -> Iterator[bytes]:
    """The bytes of the part, written from the piece in which it begins."""
    piece = bisect_right(file.starts, part.first) - 1
    skip, wanted = part.first - file.starts[piece], part.num_bytes
    for chunk in chain.from_iterable(export_pieces(snapshot, choice, first=piece)):
        kept = chunk[skip : skip + wanted]
        skip, wanted = max(0, skip - len(chunk)), wanted - len(kept)
        if kept:
            yield kept
        if not wanted:
            return


def digest_header(file: ExportFile) -> str:
    """The whole file's SHA-256 as a Repr-Digest header has it (RFC 9530)."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(file.sha256)).decode()}:"

"""What each line of a file became: the first ones to be shown, all of them packed to be kept. Pure."""

import csv
import gzip
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from io import StringIO
from itertools import pairwise
from tempfile import SpooledTemporaryFile
from typing import IO
from weakref import finalize

from app.spreadsheets import harmless

LINES_SHOWN = 50
encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # made once: dumps makes one a call
LINES_A_BLOCK = 10_000  # packed together: about 100 kB
HELD_BYTES = 2**20  # before a log needs a file


@dataclass(frozen=True)
class Line:
    """What one line became. prompts: "new", "reused", or how many of each; remark: codes, spaces between them."""

    line: int
    became: str
    prompt: str = ""
    rankings: int = 0
    comparisons: int = 0
    remark: str = ""


@dataclass
class LineLog:
    """The lines of one import, in their order, all but the last ones in a temporary file: memory does not grow."""

    shown: list[Line] = field(default_factory=list)
    waiting: list[Line] = field(default_factory=list)
    packed: IO[bytes] = field(default_factory=lambda: SpooledTemporaryFile(HELD_BYTES))  # noqa: SIM115 - closed below
    ends: list[int] = field(default_factory=lambda: [0])  # of the blocks in the file, after its beginning

    def __post_init__(self) -> None:
        finalize(self, self.packed.close)

    def add(self, line: Line) -> None:
        if len(self.shown) < LINES_SHOWN:
            self.shown.append(line)
        self.waiting.append(line)
        if len(self.waiting) == LINES_A_BLOCK:
            self.pack()

    def pack(self) -> None:
        if self.waiting:
            self.packed.seek(self.ends[-1])
            self.packed.write(gzip.compress(b"".join(map(as_json, self.waiting)), compresslevel=6, mtime=0))
            self.ends.append(self.packed.tell())
            self.waiting = []

    def blocks(self) -> Iterator[bytes]:
        """Some thousand lines each, packed."""
        self.pack()
        for start, end in pairwise(self.ends):
            self.packed.seek(start)
            yield self.packed.read(end - start)

    def all(self) -> Iterator[Line]:
        yield from unpacked(self.blocks())


def unpacked(blocks: Iterable[bytes]) -> Iterator[Line]:
    for block in blocks:
        for line in gzip.decompress(block).splitlines():
            yield Line(**json.loads(line))


def as_json(line: Line) -> bytes:
    return encode(vars(line)).encode() + b"\n"


def as_json_lines(lines: Iterable[Line]) -> Iterator[bytes]:
    return map(as_json, lines)


def as_csv(lines: Iterable[Line]) -> Iterator[bytes]:
    buffer = StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(Line.__dataclass_fields__)
    for line in lines:
        writer.writerow([harmless(cell) for cell in vars(line).values()])
        if buffer.tell() > 2**16:
            yield taken(buffer)
    yield taken(buffer)


def taken(buffer: StringIO) -> bytes:
    content = buffer.getvalue().encode()
    buffer.seek(0)
    buffer.truncate()
    return content


WRITERS = {"jsonl": as_json_lines, "csv": as_csv}


def of_slates(new: Iterable[int], num_joined: int) -> str:
    """In words: the new slates by their K, and the rankings that joined slates that were there."""
    sizes = Counter(new)
    parts = [f"slate of {k}" if count == 1 else f"{count:,} slates of {k}" for k, count in sorted(sizes.items())]
    if num_joined:
        parts.append("a ranking more" if num_joined == 1 else f"{num_joined:,} rankings more")
    return ", ".join(parts) or "nothing new"

"""A zip file of files of any size, written as it is sent: its length is known before, and it can go on in the middle.

Nothing is compressed, for weights do not shrink; so the same files make the same bytes, every time.
"""

import hashlib
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO, cast

CHUNK_BYTES = 2**20
THEN = (1980, 1, 1, 0, 0, 0)  # the same bytes tomorrow
# Bytes of a zip file's parts (PKWARE's APPNOTE 6.3.10, sections 4.3 and 4.5); each local header has room for ZIP64.
LOCAL_HEADER, LOCAL_ZIP64, DATA_DESCRIPTOR = 30, 20, 24
CENTRAL_HEADER, CENTRAL_ZIP64, A_NUMBER = 46, 4, 8
END, END_ZIP64 = 22, 56 + 20


@dataclass(frozen=True)
class File:
    """A file to be read. size: bytes; None: nobody knows before it is read.  mark: another one when its content is.

    sha256: what it must have, where somebody wrote that down.
    """

    name: str
    size: int | None
    open: Callable[[], BinaryIO]
    mark: str
    sha256: str | None = None


def content(name: str, data: bytes) -> File:
    """A file that exists nowhere but here."""
    return File(name, len(data), lambda: BytesIO(data), hashlib.sha256(data).hexdigest())


class FileChanged(Exception):
    """A file is not the one that the manifest names: what was sent so far is no whole archive, and does not open."""


class Outlet:
    """Where the archive is written: what was sent already is dropped, the rest waits to be taken."""

    def __init__(self, skip: int) -> None:
        self.skip = skip
        self.waiting = bytearray()

    def write(self, data: Any, /) -> int:
        size = len(data)
        dropped = min(self.skip, size)
        self.skip -= dropped
        self.waiting += memoryview(data)[dropped:]
        return size

    def flush(self) -> None:
        """Part of what a file is to zipfile."""

    def take(self) -> bytes:
        taken = bytes(self.waiting)
        self.waiting.clear()
        return taken


def zip_chunks(folder: str, files: Sequence[File], *, skip: int = 0) -> Iterator[bytes]:
    """The archive's bytes. folder: in which everything lies.  skip: bytes that the reader has already.

    Raises FileChanged before the end of the archive.
    """
    outlet = Outlet(skip)
    with zipfile.ZipFile(cast(Any, outlet), "w", zipfile.ZIP_STORED) as archive:  # it can be written to: that is enough
        for file in files:
            info = zipfile.ZipInfo(f"{folder}/{file.name}", THEN)
            info.external_attr = 0o644 << 16
            with archive.open(info, "w", force_zip64=True) as member:
                for chunk in checked_chunks(file):
                    member.write(chunk)
                    if outlet.waiting:
                        yield outlet.take()
            yield outlet.take()
    yield outlet.take()


def checked_chunks(file: File) -> Iterator[bytes]:
    """The file's bytes. Raises FileChanged when they are not as many, or not those, that were promised."""
    digest, size = hashlib.sha256(), 0
    with file.open() as source:
        while chunk := source.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
            yield chunk
    if file.size not in (None, size) or file.sha256 not in (None, digest.hexdigest()):
        raise FileChanged(f"{file.name} is not the file that its manifest names; the download was broken off")


def zip_size(folder: str, files: Sequence[File]) -> int:
    """Bytes of the archive. files: whose sizes are all known."""
    limit = zipfile.ZIP64_LIMIT
    position = central = 0
    for file in files:
        assert file.size is not None
        name = len(f"{folder}/{file.name}".encode())
        large = 2 * (file.size > limit) + (position > limit)
        central += CENTRAL_HEADER + name + (CENTRAL_ZIP64 + A_NUMBER * large if large else 0)
        position += LOCAL_HEADER + name + LOCAL_ZIP64 + file.size + DATA_DESCRIPTOR
    needs_zip64 = position > limit or central > limit or len(files) > zipfile.ZIP_FILECOUNT_LIMIT
    return position + central + (END_ZIP64 if needs_zip64 else 0) + END


def mark_of(folder: str, files: Sequence[File]) -> str:
    """The same for the same archive; known before any of its files is read."""
    said = [folder, *((file.name, file.mark) for file in files)]
    return hashlib.sha256(repr(said).encode()).hexdigest()[:32]

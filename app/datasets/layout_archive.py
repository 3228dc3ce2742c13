"""The folder to publish as a zip file, written while it is sent: no file of it lies anywhere.

What is known of each file since it was read to its end once (app.datasets.export_files) is known here too: when all of
them are, the archive's length is, and it can go on in the middle.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Self, cast

from sqlalchemy.orm import Session

from app.datasets.export_choices import ExportChoice
from app.datasets.export_files import find_file, whole
from app.datasets.exports import tag_of
from app.datasets.layout import planned
from app.datasets.models import ExportFile, Snapshot
from app.projects.models import Project
from app.zip_archives import File, content


@dataclass(frozen=True)
class Listed:
    """A file of the folder. choice: the export that it is; None: a text.  known: of the export, once it was read."""

    file: File
    choice: ExportChoice | None
    known: ExportFile | None

    @property
    def sha256(self) -> str | None:
        """None: nobody has read it to its end yet."""
        return self.file.mark if self.choice is None else self.file.sha256


def files_of(session: Session, project: Project, snapshot: Snapshot) -> list[Listed]:
    """Every file of the folder, the card last. Raises SnapshotRedacted."""
    listed = []
    for plan in planned(project, snapshot):
        if plan.choice is None:
            listed.append(Listed(content(plan.name, plan.text.encode()), None, None))
        else:
            known = find_file(session, snapshot, plan.choice)
            listed.append(Listed(exported(plan.name, snapshot, plan.choice, known), plan.choice, known))
    return listed


def exported(name: str, snapshot: Snapshot, choice: ExportChoice, known: ExportFile | None) -> File:
    """An export as a file; what is seen of it is noted when it has been read."""
    return File(
        name,
        None if known is None else known.num_bytes,
        lambda: cast(BinaryIO, Written(whole(snapshot, choice))),
        mark=tag_of(snapshot, choice),
        sha256=None if known is None else known.sha256,
    )


def unread(files: Sequence[Listed]) -> list[ExportChoice]:
    """The exports of which nothing is known yet."""
    return [each.choice for each in files if each.choice is not None and each.known is None]


class Written:
    """Chunks to be read as from a file, as they are made."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is open."""

    def read(self, size: int) -> bytes:
        """The next chunk, whatever its size; nothing at the end."""
        return next((chunk for chunk in self._chunks if chunk), b"")

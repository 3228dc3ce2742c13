"""The file of a backup: an ordinary tar that any tool opens, whose last member says what all others are.

    podium-backup.json   what made it, and when
    database.pgdump      the database, as pg_restore reads it
    artifacts/…          files below the artifacts, by their names there
    manifest.json        the above again, with size and SHA-256 of each file; last, so a tar without it is no backup

Written under another name, brought to the disk, and only then renamed: a kill leaves nothing that looks whole. Knows
nothing of the database.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Any

from app.artifacts import sync
from app.upkeep.errors import BackupDamaged, BackupNotWritten, BackupUnderWay, NotABackup

HEADER, DATABASE, MANIFEST, ARTIFACTS = "podium-backup.json", "database.pgdump", "manifest.json", "artifacts/"
FORMAT = 1
CHUNK = 1 << 20  # bytes
OWN_EYES_ONLY = 0o600  # it holds password hashes and what people wrote

Watch = Callable[[str, int], None]  # what is being done; bytes done since the last call


class ArchiveWriter:
    """Writes a backup beside its place; `finish` gives it its name."""

    def __init__(self, path: Path, watch: Watch) -> None:
        """Raises BackupUnderWay, BackupNotWritten."""
        self.path, self._watch = path, watch
        self._beside = path.with_name(f".{path.name}.partial")
        self._files: dict[str, dict[str, Any]] = {}
        with self._errors():
            self._file = self._open()
            self._file.truncate(0)  # what a killed one had begun

    def _open(self) -> IO[bytes]:
        """The file beside, held by us alone. Another backup may have ended since it was opened: then it is theirs."""
        while True:
            file = os.fdopen(os.open(self._beside, os.O_RDWR | os.O_CREAT, OWN_EYES_ONLY), "r+b")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.close()
                raise BackupUnderWay(self.path) from error
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), self._beside.stat()):
                    return file
            file.close()

    def add(self, name: str, chunks: Iterable[bytes], *, sha256: str | None = None) -> str | None:
        """Write a member whose size is not known before its end; returns its SHA-256.

        sha256: what it must have; None is returned, and nothing is kept of it, when it has another. When reading the
        chunks raises, nothing is kept of it either.
        """
        start = self._file.tell()
        try:
            with self._errors():
                found, size = self._write(name, chunks)
        except BaseException:
            self._go_back(start)
            raise
        if sha256 not in (None, found):
            self._go_back(start)
            return None
        self._files[name] = {"size": size, "sha256": found}
        return found

    def forget(self, folder: str) -> None:
        """What was written of a folder does not count: it turned out that the rest of it is gone."""
        for name in [name for name in self._files if name.startswith(f"{folder}/")]:
            del self._files[name]

    @property
    def num_artifacts(self) -> int:
        """How many files of the artifacts are in it so far."""
        return sum(name.startswith(ARTIFACTS) for name in self._files)

    def finish(self, about: dict[str, Any]) -> int:
        """Write the manifest, bring everything to the disk and give the file its name; returns its bytes."""
        content = as_json({**about, "files": self._files})
        with self._errors():
            self._write(MANIFEST, [content])
            self._file.write(bytes(2 * tarfile.BLOCKSIZE))  # the end of a tar
            self._file.flush()
            os.fsync(self._file.fileno())
            size = self._file.tell()
            self._beside.replace(self.path)
            sync(self.path.parent)
        self._file.close()
        return size

    def __enter__(self) -> "ArchiveWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._file.closed:  # it was not finished
            self._beside.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # a full disk, once more
                self._file.close()

    def _write(self, name: str, chunks: Iterable[bytes]) -> tuple[str, int]:
        """The header is written again when the size is known: GNU's keeps its length whatever the size."""
        about = tarfile.TarInfo(name)
        about.mode, about.mtime = OWN_EYES_ONLY, int(time.time())
        start = self._file.tell()
        header_size = len(about.tobuf(tarfile.GNU_FORMAT))
        self._file.write(bytes(header_size))
        hash = hashlib.sha256()
        for chunk in chunks:
            hash.update(chunk)
            self._file.write(chunk)
            self._watch(name, len(chunk))
        end = self._file.tell()
        about.size = end - start - header_size
        self._file.seek(start)
        self._file.write(about.tobuf(tarfile.GNU_FORMAT))
        self._file.seek(end)
        self._file.write(bytes(-about.size % tarfile.BLOCKSIZE))
        return hash.hexdigest(), about.size

    def _go_back(self, start: int) -> None:
        with contextlib.suppress(OSError):
            self._file.seek(start)
            self._file.truncate()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Whoever reads the chunks names errors of their own: what is left is ours."""
        try:
            yield
        except OSError as error:
            raise BackupNotWritten(self.path, error.strerror) from error


class Archive:
    """A backup that was written to its end. What its manifest does not name is not looked at."""

    def __init__(self, path: Path) -> None:
        """Raises NotABackup, BackupDamaged."""
        self.path = path
        try:
            self._tar = tarfile.open(path, "r:")  # noqa: SIM115 - closed by our own __exit__
        except (OSError, tarfile.TarError) as error:
            raise NotABackup(path, getattr(error, "strerror", None) or error) from error
        try:
            self.about = self._look()
        except BaseException:
            self._tar.close()
            raise
        self.files: dict[str, dict[str, Any]] = self.about["files"]

    @property
    def num_artifacts(self) -> int:
        """How many files of the artifacts are in it."""
        return sum(name.startswith(ARTIFACTS) for name in self.files)

    def read(self, name: str) -> Iterator[bytes]:
        """A file in pieces. Raises BackupDamaged, after the last piece at the latest, if it is not what was written."""
        hash, size = hashlib.sha256(), 0
        with self._damage(name):
            for chunk in chunks_of(self._open(name)):
                hash.update(chunk)
                size += len(chunk)
                yield chunk
        if self.files[name] != {"size": size, "sha256": hash.hexdigest()}:
            raise BackupDamaged(self.path, f"{name} is not what was written")

    def verify(self, watch: Watch) -> None:
        """Read everything and hold it against the manifest. Raises BackupDamaged."""
        for name in self.files:
            for chunk in self.read(name):
                watch(name, len(chunk))

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *error: object) -> None:
        self._tar.close()

    @contextlib.contextmanager
    def _damage(self, name: str) -> Iterator[None]:
        try:
            yield
        except (OSError, tarfile.TarError) as error:
            raise BackupDamaged(self.path, f"{name} cannot be read: {error}") from error

    def _open(self, name: str) -> IO[bytes]:
        member = self._members.get(name)
        opened = None if member is None or not member.isfile() else self._tar.extractfile(member)
        if opened is None:
            raise BackupDamaged(self.path, f"{name} is missing")
        return opened

    def _look(self) -> dict[str, Any]:
        """The manifest, once the file is known to be one of ours that was written to its end."""
        header = self._json(self._tar.next(), HEADER)
        if header.get("format") != FORMAT:
            raise NotABackup(self.path, f"its format is {header.get('format')}, and this version reads {FORMAT}")
        with self._damage("its end"):
            self._members = {member.name: member for member in self._tar}
        about = self._json(self._members.get(MANIFEST), MANIFEST)
        for name in about["files"]:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise BackupDamaged(self.path, f"{name} leads out of it")
        return about

    def _json(self, member: tarfile.TarInfo | None, name: str) -> dict[str, Any]:
        if member is None:
            raise BackupDamaged(self.path, f"it ends before its {name}")
        if member.name != name:
            raise NotABackup(self.path, f"it begins with {member.name}")
        try:
            found = json.loads(self._tar.extractfile(member).read())  # type: ignore[union-attr]
        except (ValueError, AttributeError) as error:
            raise BackupDamaged(self.path, f"{name} cannot be read") from error
        return dict(found)


def as_json(values: dict[str, Any]) -> bytes:
    """As the archive's own files have it."""
    return json.dumps(values, indent=1).encode()


def chunks_of(file: IO[bytes]) -> Iterator[bytes]:
    """The content of a file in pieces; it is closed at its end."""
    with file:
        while chunk := file.read(CHUNK):
            yield chunk

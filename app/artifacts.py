"""Artifacts that several machines share through a store: any URL that fsspec opens (s3://, gs://, file://).

Round folders are worked on below PODIUM_HOME; what another machine needs of them is copied to the store, and fetched
from it, with a manifest (the SHA-256 of each file) that is written last: without a manifest a folder is not there.
Where PODIUM_ARTIFACTS names no store nothing is copied. Knows nothing of rounds, models or the database.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import fasteners
import fsspec

from app.artifact_errors import (
    ArtifactAltered,
    ArtifactError,
    CacheFull,
    NoSuchStore,
    NotInStore,
    StoreFull,
    StoreRefused,
    StoreUnreachable,
    UnknownStore,
)
from app.errors import PodiumError
from app.settings import Settings

MANIFEST = "manifest.json"
CHUNK = 1 << 20  # bytes that are read at once
FULL = (errno.ENOSPC, errno.EDQUOT)
# s3fs, gcsfs and adlfs raise errors of their own libraries when the keys are none at all.
MISSING_KEYS = ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "ClientAuthenticationError")


# Called when the store does not answer: waits and returns, and the file is tried again, or raises what ends it.
Wait = Callable[[StoreUnreachable], None]


def give_up(problem: StoreUnreachable) -> None:
    raise problem


def open_store(settings: Settings) -> "Store | None":
    """The store that PODIUM_ARTIFACTS names; None for a plain folder. Raises UnknownStore. Connects to nothing yet."""
    return None if settings.store_url is None else Store(settings.store_url, settings.artifacts)


def place_of(settings: Settings) -> "Store":
    """Where the installation keeps its artifacts, as a store: a plain folder is one too. Raises UnknownStore."""
    return open_store(settings) or Store(f"file://{settings.artifacts}", settings.artifacts)


class Store:
    """Folders in the store, and their copies on this machine: a folder has the same name below both."""

    def __init__(self, url: str, local: Path) -> None:
        """local: where copies lie on this machine."""
        self.url = url.rstrip("/")
        self.local = local
        is_disk = self.url.startswith(("file://", "local://"))
        options = {"auto_mkdir": True} if is_disk else {"use_listings_cache": False}  # others write there too
        try:
            self._files, root = fsspec.core.url_to_fs(self.url, **options)
        except (ImportError, ValueError) as error:
            raise UnknownStore(self.url, error) from error
        self._root: str = root.rstrip("/")
        self._fetching = threading.Lock()

    def check(self, *, writes: bool) -> None:
        """See that the store can be used. writes: also that this process may write to it.

        Raises NoSuchStore, StoreRefused, StoreUnreachable.
        """
        with self._errors(missing=NoSuchStore(self.url)):
            try:
                self._files.ls(self._root)
            except FileNotFoundError:  # an empty prefix of a bucket that exists is fine
                if not self._files.exists(self._root.split("/")[0] or "/"):
                    raise
            if writes:
                self._files.pipe_file(f"{self._root}/write-check", b"")
                self._files.rm_file(f"{self._root}/write-check")

    def has(self, folder: str, *, wait: Wait = give_up) -> bool:
        """Whether the folder is in the store, whole. Raises StoreRefused, and what `wait` raises."""
        return bool(self._patiently(wait, lambda: self._files.exists(f"{self._root}/{folder}/{MANIFEST}")))

    def names(self, folder: str, *, wait: Wait = give_up) -> list[str]:
        """Names of the whole folders in a folder; none where it does not exist. Raises as `has` does."""
        paths = self._patiently(wait, lambda: self._list(f"{self._root}/{folder}"))
        found = [str(path).rstrip("/").rsplit("/", 1)[-1] for path in paths]
        return [name for name in found if self.has(f"{folder}/{name}", wait=wait)]

    def send(
        self,
        folder: str,
        files: Mapping[str, Path | bytes],
        *,
        manifest: bytes | None = None,
        wait: Wait = give_up,
    ) -> None:
        """Copy files (name in the folder -> file here, or its content) to the store, and the manifest last.

        manifest: one that exists already and names these files; else it is made.  What the store has under the same
        manifest is left as it is.  Raises StoreRefused, NoSuchStore, and what `wait` raises.
        """
        manifest = manifest or manifest_of(files)
        place = f"{self._root}/{folder}"
        if self._patiently(wait, lambda: self._read(f"{place}/{MANIFEST}")) == manifest:
            return
        self._patiently(wait, lambda: self._remove(f"{place}/{MANIFEST}"))  # nobody is to read a mixture of two
        for name, content in files.items():
            self._patiently(wait, lambda target=f"{place}/{name}", content=content: self._put(content, target))  # type: ignore[misc]
        self._patiently(wait, lambda: self._put(manifest, f"{place}/{MANIFEST}"))

    def fetch(self, folder: str, *, manifest_sha256: str | None = None, wait: Wait = give_up) -> Path:
        """The folder on this machine, copied from the store unless it is here.

        manifest_sha256: of the manifest it must have; another version that lies here is replaced.
        Two processes may ask at once: one copies. A copy has its name only when it is whole and as its manifest says.
        Raises NotInStore, ArtifactAltered, CacheFull, StoreRefused, and what `wait` raises.
        """
        local = self.local / folder
        if is_whole(local, manifest_sha256):
            return local
        locks = self.local / ".fetching"
        locks.mkdir(parents=True, exist_ok=True)
        lock = fasteners.InterProcessLock(locks / hashlib.sha256(folder.encode()).hexdigest()[:16])
        with self._fetching, lock:  # the file's lock is the process's, not the thread's
            if not is_whole(local, manifest_sha256):
                self._fetch(folder, local, manifest_sha256, wait)
        return local

    def replace(self, folder: str, files: Mapping[str, bytes]) -> None:
        """Put files of a folder in the place of those of their names, one after the other.

        Raises StoreRefused, StoreUnreachable.
        """
        with self._errors(missing=NoSuchStore(self.url)):
            for name, content in files.items():
                self._put(content, f"{self._root}/{folder}/{name}")

    def read(self, file: str) -> bytes | None:
        """A file's content; None where there is none. Raises StoreRefused, StoreUnreachable."""
        with self._errors():
            return self._read(f"{self._root}/{file}")

    def remove(self, folder: str) -> None:
        """Take a folder out of the store, if it is there. Raises StoreRefused, StoreUnreachable."""
        with self._errors():
            self._remove(f"{self._root}/{folder}/{MANIFEST}")  # first: what is half gone is gone
            with contextlib.suppress(FileNotFoundError):
                self._files.rm(f"{self._root}/{folder}", recursive=True)

    def listing(self, folder: str, *, manifest_sha256: str | None) -> tuple[bytes, dict[str, str]]:
        """The folder's manifest and what it says, file -> SHA-256; nothing is copied.

        Raises NotInStore, ArtifactAltered, StoreRefused, StoreUnreachable.
        """
        manifest = self._manifest(folder, manifest_sha256, give_up)
        return manifest, self._names_in(manifest, folder)

    def size(self, file: str) -> int:
        """Bytes of a file. Raises ArtifactAltered where it is missing, StoreRefused, StoreUnreachable."""
        with self._errors(missing=ArtifactAltered(self.url, file)):
            return int(self._files.size(f"{self._root}/{file}"))

    def open(self, file: str) -> BinaryIO:
        """A file to read from its start, nothing of it kept on this machine. Raises as `size` does."""
        with self._errors(missing=ArtifactAltered(self.url, file)):
            return cast(BinaryIO, self._files.open(f"{self._root}/{file}", "rb"))

    def files(self, folder: str) -> dict[str, int]:
        """Every file in a folder and below it, by its name in the store -> bytes; none where it does not exist.

        Raises StoreRefused, StoreUnreachable.
        """
        with self._errors():
            found = self._files.find(f"{self._root}/{folder}".rstrip("/"), detail=True)
        return {str(path).removeprefix(f"{self._root}/"): int(about["size"]) for path, about in found.items()}

    def pieces(self, file: str) -> Iterator[bytes]:
        """A file in pieces. Raises ArtifactAltered where it is missing, StoreRefused, StoreUnreachable."""
        with self._errors(missing=ArtifactAltered(self.url, file)), self._files.open(f"{self._root}/{file}") as source:
            while chunk := source.read(CHUNK):
                yield chunk

    def write(self, file: str, chunks: Iterable[bytes]) -> None:
        """Write a file, over what has its name. Raises NoSuchStore, StoreRefused, StoreUnreachable, StoreFull."""
        with self._errors(missing=NoSuchStore(self.url)):
            try:
                with self._files.open(f"{self._root}/{file}", "wb") as target:
                    for chunk in chunks:
                        target.write(chunk)
            except OSError as error:
                if error.errno in FULL:
                    raise StoreFull(self.url) from error
                raise

    def remove_file(self, file: str) -> None:
        """Take one file away, if it is there. Raises StoreRefused, StoreUnreachable."""
        with self._errors():
            self._remove(f"{self._root}/{file}")

    def _manifest(self, folder: str, manifest_sha256: str | None, wait: Wait) -> bytes:
        manifest: bytes | None = self._patiently(wait, lambda: self._read(f"{self._root}/{folder}/{MANIFEST}"))
        if manifest is None:
            raise NotInStore(self.url, folder)
        if manifest_sha256 is not None and hashlib.sha256(manifest).hexdigest() != manifest_sha256:
            raise ArtifactAltered(self.url, f"{folder}/{MANIFEST}")
        return manifest

    def _fetch(self, folder: str, local: Path, manifest_sha256: str | None, wait: Wait) -> None:
        place = f"{self._root}/{folder}"
        manifest = self._manifest(folder, manifest_sha256, wait)
        aside = local.with_name(f"{local.name}.fetching")
        shutil.rmtree(aside, ignore_errors=True)  # what a killed process had begun
        try:
            with local_errors(local):
                aside.mkdir(parents=True)
                for name, sha256 in self._names_in(manifest, folder).items():
                    target = aside / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    self._patiently(wait, lambda target=target, name=name: self._get(f"{place}/{name}", target))  # type: ignore[misc]
                    if not target.is_file() or file_sha256(target) != sha256:
                        raise ArtifactAltered(self.url, f"{folder}/{name}")
                    sync(target)
                (aside / MANIFEST).write_bytes(manifest)
                sync(aside / MANIFEST)
                sync(aside)
                shutil.rmtree(local, ignore_errors=True)
                aside.rename(local)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _names_in(self, manifest: bytes, folder: str) -> dict[str, str]:
        """File -> SHA-256. A name that leads out of the folder is nobody's of ours."""
        try:
            names: dict[str, str] = json.loads(manifest)
        except ValueError as error:
            raise ArtifactAltered(self.url, f"{folder}/{MANIFEST}") from error
        if any(Path(name).is_absolute() or ".." in Path(name).parts for name in names):
            raise ArtifactAltered(self.url, f"{folder}/{MANIFEST}")
        return names

    def _list(self, path: str) -> list[str]:
        try:
            return list(self._files.ls(path, detail=False))
        except FileNotFoundError:
            return []

    def _read(self, path: str) -> bytes | None:
        try:
            return bytes(self._files.cat_file(path))
        except FileNotFoundError:
            return None

    def _put(self, content: Path | bytes, path: str) -> None:
        try:
            if isinstance(content, bytes):
                self._files.pipe_file(path, content)
            else:
                self._files.put_file(str(content), path)
        except OSError as error:
            if error.errno in FULL:
                raise StoreFull(self.url) from error
            raise

    def _get(self, path: str, target: Path) -> None:
        with contextlib.suppress(FileNotFoundError):  # the caller sees that it is missing
            self._files.get_file(path, str(target))

    def _remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._files.rm_file(path)

    def _patiently(self, wait: Wait, act: Callable[[], Any]) -> Any:
        """Act, again whenever the store did not answer and `wait` returns."""
        while True:
            try:
                with self._errors(missing=NoSuchStore(self.url)):
                    return act()
            except StoreUnreachable as problem:
                wait(problem)

    @contextlib.contextmanager
    def _errors(self, missing: ArtifactError | None = None) -> Iterator[None]:
        """Name what went wrong. missing: what a FileNotFoundError means."""
        try:
            yield
        except PodiumError:
            raise
        except FileNotFoundError as error:
            if missing is None:
                raise
            raise missing from error
        except Exception as error:  # each kind of store has errors of its own, and we import none of them
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            if isinstance(error, PermissionError) or type(error).__name__ in MISSING_KEYS:
                raise StoreRefused(self.url, reason) from error
            is_ours = type(error).__module__ == "builtins" and not isinstance(error, OSError)
            if is_ours or (isinstance(error, OSError) and error.errno in FULL):
                raise
            raise StoreUnreachable(self.url, reason) from error


@contextlib.contextmanager
def local_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise CacheFull(path) from error
        raise


def is_here(local: Path, manifest_sha256: str | None) -> bool:
    """Whether a folder lies here that was whole once, the one with this manifest if that is known."""
    manifest = local / MANIFEST
    return manifest.is_file() and manifest_sha256 in (None, file_sha256(manifest))


def is_whole(local: Path, manifest_sha256: str | None) -> bool:
    """The same, with all that the manifest names: a rule may have removed weights and left the rest."""
    if not is_here(local, manifest_sha256):
        return False
    return all((local / name).is_file() for name in json.loads((local / MANIFEST).read_bytes()))


def manifest_of(files: Mapping[str, Path | bytes]) -> bytes:
    hashes = {
        name: hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else file_sha256(content)
        for name, content in files.items()
    }
    return json.dumps(hashes, indent=1).encode()


def files_below(folder: Path, *, but: Iterable[str] = ()) -> dict[str, Path | bytes]:
    """Every file of a folder by its name in it, as `send` takes them."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in found}
    return {name: path for name, path in names.items() if name not in but}


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

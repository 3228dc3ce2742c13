"""A backup of a running installation: the database of one moment, and every artifact that it names.

A result's manifest is written after its files, and a row names it after that. So the database is dumped first, and what
it names is copied then: whatever happens meanwhile, no row of the dump names a file that the backup lacks. Files that
never change are held against the hash that was registered while they are copied; a stage that runs is copied as far as
it has come, from its newest checkpoint.
"""

import contextlib
import importlib.metadata
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, text

from app.artifact_errors import ArtifactAltered, NotInStore
from app.artifacts import MANIFEST as RESULT_MANIFEST
from app.artifacts import Store, place_of
from app.settings import Settings
from app.upkeep import archive
from app.upkeep.archive import ArchiveWriter, Watch
from app.upkeep.dump import dump, server_major
from app.upkeep.errors import ArtifactsMissing, NothingToBackUp
from app.upkeep.inventory import Inventory, Result, is_within, tables_of, take_inventory
from app.upkeep.locks import reading_files
from app.upkeep.storage import WEIGHTS
from trainer.settings import STARTER

PASSING = ("copying", "lock", "write-check")  # in a stage's folder: of the process that works there
TRIES = 3  # to copy a checkpoint that the recipe replaces while we look


@dataclass(frozen=True)
class Backup:
    """What was written, for people and scripts. outside: policies that are not in it, in words.  missing: likewise."""

    path: str
    num_bytes: int
    num_files: int
    num_rows: int
    schema: str
    made_at: str
    outside: list[str]
    missing: list[str]


def file_name(now: datetime) -> str:
    """How a backup is called in a folder: its names sort by time."""
    return f"podium-{now.astimezone(UTC):%Y-%m-%dT%H-%M-%SZ}.tar"


def back_up(
    settings: Settings, engine: Engine, url: str, path: Path, *, allow_missing: bool = False, watch: Watch
) -> Backup:
    """Write the installation into a file, whole or not at all, while it works.

    allow_missing: also where files that the database names are gone or altered; the backup says which.
    Raises NothingToBackUp, ArtifactsMissing, BackupNotWritten, BackupUnderWay, DumpFailed, NoDumpProgram,
    UpkeepUnderWay, ArtifactError.
    """
    place = place_of(settings)
    now = datetime.now(UTC)
    with engine.connect() as connection, reading_files(connection), ArchiveWriter(path, watch) as writer:
        connection.rollback()
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
        if "alembic_version" not in tables_of(connection):
            raise NothingToBackUp()
        inventory = take_inventory(connection)
        missing = [] if allow_missing else _look(place, inventory)
        if missing:
            raise ArtifactsMissing(missing)
        header = _header(settings, inventory, now)
        writer.add(archive.HEADER, [archive.as_json(header)])
        _dump(connection, url, writer)
        connection.rollback()  # the dump is done: no transaction stays open while files are copied
        missing = [problem for result in inventory.results.values() if (problem := _copy_result(place, result, writer))]
        if missing and not allow_missing:
            raise ArtifactsMissing(missing)
        for folder, may_go_on in inventory.folders.items():
            _copy_stage(place, folder, may_go_on, inventory, writer)
        counted = {"rows": dict(inventory.rows), "rules": list(inventory.rules)}
        about = {**header, **counted, "outside": list(inventory.outside), "missing": missing}
        num_files = writer.num_artifacts
        num_bytes = writer.finish(about)
    return Backup(
        path=str(path),
        num_bytes=num_bytes,
        num_files=num_files,
        num_rows=sum(inventory.rows.values()),
        schema=inventory.schema,
        made_at=now.isoformat(),
        outside=list(inventory.outside),
        missing=missing,
    )


def _header(settings: Settings, inventory: Inventory, now: datetime) -> dict[str, Any]:
    """What a restore must know before it reads on. artifacts, starter: what paths in the files begin with."""
    return {
        "format": archive.FORMAT,
        "podium": importlib.metadata.version("podium"),
        "schema": inventory.schema,
        "made_at": now.isoformat(),
        "artifacts": str(settings.artifacts),
        "starter": str(STARTER / "policy"),
    }


def _look(place: Store, inventory: Inventory) -> list[str]:
    """What is missing of the results, found before anything takes long."""
    problems = []
    for result in inventory.results.values():
        try:
            _, names = place.listing(result.folder, manifest_sha256=result.manifest_sha256)
            here = place.files(result.folder)
        except (NotInStore, ArtifactAltered) as error:
            problems.append(f"{result.what}: {error.message}")
            continue
        gone = [name for name in names if f"{result.folder}/{name}" not in here]
        problems += [f"{result.what}: {result.folder}/{name} is gone" for name in gone[:1]]
    return problems


def _dump(connection: Connection, url: str, writer: ArchiveWriter) -> None:
    snapshot = connection.execute(text("SELECT pg_export_snapshot()")).scalar_one()
    writer.add(archive.DATABASE, dump(url, snapshot=snapshot, server=server_major(connection)))


def _copy_result(place: Store, result: Result, writer: ArchiveWriter) -> str | None:
    """Copy a folder that never changes; what is wrong with it, if anything is: nothing of it is kept then."""
    try:
        manifest, names = place.listing(result.folder, manifest_sha256=result.manifest_sha256 or None)
        for name, sha256 in names.items():
            file = f"{result.folder}/{name}"
            if writer.add(archive.ARTIFACTS + file, place.pieces(file), sha256=sha256) is None:
                raise ArtifactAltered(place.url, file)
        writer.add(f"{archive.ARTIFACTS}{result.folder}/{RESULT_MANIFEST}", [manifest])
    except (NotInStore, ArtifactAltered) as error:
        writer.forget(archive.ARTIFACTS + result.folder)
        return f"{result.what}: {error.message}"
    return None


def _copy_stage(place: Store, folder: str, may_go_on: bool, inventory: Inventory, writer: ArchiveWriter) -> None:
    """Copy what a stage, a try or an evaluation read and measured, and the checkpoint that it would go on from.

    Nothing here is registered: what is gone since it was listed is left out, and the stage begins anew where a restored
    installation resumes it.
    """
    result = f"{folder}/result"
    for _ in range(TRIES if may_go_on else 0):
        if _copy_checkpoint(place, folder, writer):
            break
    for file in place.files(folder):
        if is_within(file, inventory.doomed):
            continue
        inside = file.removeprefix(f"{folder}/").split("/")
        if inside[0] in ("result", "checkpoints", *PASSING) or file.endswith(".tmp"):
            continue
        with contextlib.suppress(ArtifactAltered):
            writer.add(archive.ARTIFACTS + file, place.pieces(file))
    if result in inventory.reduced:
        for file in place.files(result):
            with contextlib.suppress(ArtifactAltered):
                if not file.endswith(WEIGHTS):  # what a removal that was killed has left: nothing names it
                    writer.add(archive.ARTIFACTS + file, place.pieces(file))
    elif result not in inventory.results and place.has(result):
        _copy_result(place, Result(result, "", result), writer)


def _copy_checkpoint(place: Store, folder: str, writer: ArchiveWriter) -> bool:
    """Copy the newest that is whole; False: it was dropped meanwhile, and there is a newer one."""
    files = list(place.files(f"{folder}/checkpoints"))
    names = {file.removeprefix(f"{folder}/checkpoints/").split("/")[0] for file in files}
    newest = max((name for name in names if _is_whole(f"{folder}/checkpoints/{name}", files)), default=None)
    if newest is None:
        return True
    checkpoint = f"{folder}/checkpoints/{newest}"
    if "." in newest:
        return _copy_result(place, Result(checkpoint, "", checkpoint), writer) is None
    try:
        for file in files:
            if file.startswith(f"{checkpoint}/"):
                writer.add(archive.ARTIFACTS + file, place.pieces(file))
    except ArtifactAltered:
        writer.forget(archive.ARTIFACTS + checkpoint)
        return False
    return True


def _is_whole(checkpoint: str, files: list[str]) -> bool:
    """On a disk a checkpoint gets its name when it is whole; in a store, where `.<attempt>` follows it, a manifest."""
    name = checkpoint.rpartition("/")[2]
    return f"{checkpoint}/{RESULT_MANIFEST}" in files if "." in name else True

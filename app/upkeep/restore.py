"""Brings a backup back into an empty installation: all of it, or nothing that looks like it.

The whole file is held against its manifest before anything is written. Then come the artifacts, which no row names yet,
then the database in one transaction, then the migrations that this version has more. A restore that was killed leaves a
mark among the artifacts, by which the same backup, and no other, may be restored there again.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session

from app import migrate
from app.artifacts import MANIFEST as RESULT_MANIFEST
from app.artifacts import Store, place_of
from app.people.service import audit
from app.rounds.stage_copies import STAGE_FILE
from app.settings import Settings
from app.upkeep import archive, dump
from app.upkeep.archive import Archive, Watch
from app.upkeep.errors import BackupIsNewer, InstallationNotEmpty, RestoreIncomplete
from app.upkeep.inventory import count_rows, rules_of, tables_of
from trainer.settings import STARTER

MARK = "restoring.json"  # among the artifacts, while a restore is not at its end
RESTORED = "installation.restored"  # in the audit log
PROJECTS = "projects"  # the folder that all artifacts lie in


@dataclass(frozen=True)
class Restored:
    """What stands there now. schema_before: of the backup; it was migrated from there. The rest as in a Backup."""

    path: str
    num_files: int
    num_rows: int
    made_at: str
    schema_before: str
    outside: list[str]
    missing: list[str]


def restore(settings: Settings, engine: Engine, url: str, backup: Archive, *, watch: Watch) -> Restored:
    """Fill an empty database and an empty place for artifacts from a backup.

    Raises BackupDamaged, BackupIsNewer, InstallationNotEmpty, DumpFailed, NoDumpProgram, RestoreIncomplete,
    ArtifactError.
    """
    _require_known(backup)
    place = place_of(settings)
    with engine.connect() as connection:
        # Nobody migrates meanwhile, nor restores something else; the lock goes with the connection.
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": migrate.LOCK})
        connection.commit()
        try:
            is_filled = _require_empty(connection, place, backup)
            if not (is_filled and _is_finished(connection, backup)):
                _fill(settings, connection, url, backup, place, watch, is_filled=is_filled)
            place.remove_file(MARK)
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": migrate.LOCK})
            connection.commit()
    about = backup.about
    return Restored(
        path=str(backup.path),
        num_files=backup.num_artifacts,
        num_rows=sum(about["rows"].values()),
        made_at=about["made_at"],
        schema_before=about["schema"],
        outside=about["outside"],
        missing=about["missing"],
    )


def _fill(
    settings: Settings,
    connection: Connection,
    url: str,
    backup: Archive,
    place: Store,
    watch: Watch,
    *,
    is_filled: bool,
) -> None:
    """is_filled: files and rows are there, by a restore that was killed after them."""
    backup.verify(watch)
    if not is_filled:
        place.write(MARK, [_mark(backup)])
        _put_artifacts(settings, place, backup, watch)
        connection.rollback()  # pg_restore needs the tables to itself
        dump.restore(url, _watched(backup, watch), server=dump.server_major(connection))
    _finish(connection, backup)


def _is_finished(connection: Connection, backup: Archive) -> bool:
    """Whether only the mark was left to take away: the word in the audit log is committed with the last migration."""
    if "audit_event" not in tables_of(connection):
        return False
    query = "SELECT 1 FROM audit_event WHERE action = :action AND detail ->> 'made_at' = :made_at"
    return bool(connection.scalar(text(query), {"action": RESTORED, "made_at": backup.about["made_at"]}))


def _require_known(backup: Archive) -> None:
    known = {script.revision for script in ScriptDirectory(str(migrate.SCRIPTS)).walk_revisions()}
    if backup.about["schema"] not in known:
        raise BackupIsNewer(backup.path, backup.about["podium"], backup.about["schema"])


def _require_empty(connection: Connection, place: Store, backup: Archive) -> bool:
    """Whether a restore of the same backup was broken off after the database was filled: that took one transaction."""
    marks = place.files(MARK)
    is_ours = bool(marks) and b"".join(place.pieces(MARK)) == _mark(backup)
    query = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v', 'p')"
    is_filled = bool(connection.scalar(text(query)))
    if is_filled and not is_ours:
        raise InstallationNotEmpty("the database has tables already")
    if not is_ours and (marks or place.files(PROJECTS)):
        raise InstallationNotEmpty(f"there are artifacts in {place.url.removeprefix('file://')} already")
    return is_filled


def _mark(backup: Archive) -> bytes:
    return archive.as_json({"made_at": backup.about["made_at"], "sha256": backup.files[archive.DATABASE]["sha256"]})


def _put_artifacts(settings: Settings, place: Store, backup: Archive, watch: Watch) -> None:
    """A result's manifest comes after its files, as everywhere."""
    names = [name for name in backup.files if name.startswith(archive.ARTIFACTS)]
    for name in sorted(names, key=lambda name: (name.endswith(f"/{RESULT_MANIFEST}"), name)):
        file = name.removeprefix(archive.ARTIFACTS)
        pieces: Iterator[bytes] = backup.read(name)
        if file.endswith(f"/{STAGE_FILE}"):
            pieces = iter([moved_stage(b"".join(pieces), backup.about, settings)])
        place.write(file, pieces)
        watch(name, backup.files[name]["size"])
    os.sync()  # all of it is on the disk before a row names it


def moved_stage(content: bytes, about: dict[str, Any], settings: Settings) -> bytes:
    """stage.json with the models where they lie now: it names them by whole paths, and a stage may go on here."""
    values = json.loads(content)
    moved = {about["artifacts"]: str(settings.artifacts), about["starter"]: str(STARTER / "policy")}
    for name, path in values["models"].items():
        for before, now in moved.items():
            if path == before or path.startswith(f"{before}/"):
                values["models"][name] = now + path.removeprefix(before)
    return json.dumps(values, indent=1).encode()


def _watched(backup: Archive, watch: Watch) -> Iterator[bytes]:
    for piece in backup.read(archive.DATABASE):
        watch(archive.DATABASE, len(piece))
        yield piece


def _finish(connection: Connection, backup: Archive) -> None:
    """What stands there is what was counted, rows and rules; then it is brought to this version's schema."""
    expected, found = backup.about["rows"], count_rows(connection)
    if wrong := sorted(table for table in expected.keys() | found.keys() if expected.get(table) != found.get(table)):
        raise RestoreIncomplete(wrong)
    if "rules" in backup.about and (wrong := sorted({*backup.about["rules"]} ^ {*rules_of(connection)})):
        raise RestoreIncomplete((), wrong)
    migrate.upgrade_on(connection)
    with Session(connection, join_transaction_mode="control_fully") as session:
        audit(
            session,
            None,
            RESTORED,
            "installation",
            made_at=backup.about["made_at"],
            podium=backup.about["podium"],
            schema=backup.about["schema"],
        )
        session.commit()

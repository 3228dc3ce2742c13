"""What can go wrong with a backup and with bringing one back, in words."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from app.errors import PodiumError

NAMED = 3  # of many problems, so many are named


class BackupError(PodiumError):
    """A backup cannot be made, read or brought back."""

    code: ClassVar[str] = "backup_error"


class BackupNotWritten(BackupError):
    """The file of a backup cannot be written where it was wanted."""

    code = "backup_not_written"

    def __init__(self, path: Path, reason: object) -> None:
        super().__init__(
            f"the backup {path} cannot be written ({reason}): nothing was left there; free space or choose another"
        )


class BackupUnderWay(BackupError):
    """Another process writes a backup to the same place."""

    code = "backup_under_way"

    def __init__(self, path: Path) -> None:
        super().__init__(f"another backup is being written to {path}: wait for it, or choose another name")


class NotABackup(BackupError):
    """The file is none that `podium backup` wrote."""

    code = "not_a_backup"

    def __init__(self, path: Path, reason: object) -> None:
        super().__init__(f"{path} is no backup of Podium ({reason}): nothing was changed; name another file")


class BackupDamaged(BackupError):
    """The file ends too soon, or holds something else than what was written."""

    code = "backup_damaged"

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"the backup {path} is damaged ({what}): take another one; this one cannot be relied on")


class BackupIsNewer(BackupError):
    """The backup's schema is one that this version does not know."""

    code = "backup_is_newer"

    def __init__(self, path: Path, version: str, schema: str) -> None:
        super().__init__(
            f"{path} was made by Podium {version}, whose schema {schema} this version does not know:"
            " nothing was changed; install that version or a later one and restore again"
        )


class InstallationNotEmpty(BackupError):
    """A backup is brought back into an empty installation only."""

    code = "installation_not_empty"

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}: a backup is restored into an empty installation only, and nothing was changed;"
            " set PODIUM_HOME to a new folder, or DATABASE_URL and PODIUM_ARTIFACTS to empty places"
        )


class NothingToBackUp(BackupError):
    """The database has no tables of Podium."""

    code = "nothing_to_back_up"

    def __init__(self) -> None:
        super().__init__("there is no installation to back up: set PODIUM_HOME or DATABASE_URL to the one you mean")


class ArtifactsMissing(BackupError):
    """The database names files that are gone, or are not those that were registered."""

    code = "artifacts_missing"

    def __init__(self, problems: Sequence[str]) -> None:
        named = "; ".join(problems[:NAMED])
        more = f"; and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        super().__init__(
            f"the backup would not be whole ({named}{more}): bring the files back,"
            " or say --allow-missing to write the backup without them",
            problems=list(problems),
        )


class NoDumpProgram(BackupError):
    """The server is newer than every pg_dump that is found here."""

    code = "no_dump_program"

    def __init__(self, program: str, server: int) -> None:
        super().__init__(
            f"the server is Postgres {server}, and no {program} of version {server} or later is found here:"
            f" install Postgres {server}'s client programs (Debian: postgresql-client-{server}) and put them on PATH"
        )


class DumpFailed(BackupError):
    """pg_dump or pg_restore ended with an error; the message carries its own words."""

    code = "dump_failed"

    def __init__(self, program: str, words: str) -> None:
        super().__init__(f"{program} failed ({words}): nothing half-made was left; mend that and try again")


class RestoreIncomplete(BackupError):
    """What stands in the database after a restore is not what the backup counted."""

    code = "restore_incomplete"

    def __init__(self, tables: Sequence[str], rules: Sequence[str] = ()) -> None:
        what = f"these tables have other numbers of rows than the backup: {', '.join(tables)}"
        if not tables:
            what = f"these rules of the backup are missing, or were not in it: {', '.join(rules)}"
        super().__init__(
            f"after the restore {what};"
            " do not use this database: empty it and restore again, from another backup if this one fails twice"
        )


class WeightsNotTheirs(BackupError):
    """The files that are to be brought back are not those that a version was registered with."""

    code = "weights_not_theirs"

    def __init__(self, folder: Path, file: str) -> None:
        super().__init__(
            f"{folder / file} is missing, or not the file that was registered: nothing was changed; name a folder out"
            " of a backup, or one that `podium reproduce` wrote and found to be equal"
        )


class WeightsNotRemoved(BackupError):
    """The version has its weights."""

    code = "weights_not_removed"

    def __init__(self, what: str) -> None:
        super().__init__(f"the weights of {what} were not removed: nothing was changed, and nothing needs to be done")


class UpkeepUnderWay(BackupError):
    """A backup reads the files that another command would remove, or the other way round."""

    code = "upkeep_under_way"

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} at the moment: nothing was changed; try again when it has ended")

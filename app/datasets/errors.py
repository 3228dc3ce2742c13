"""What can go wrong with snapshots, exports and imports."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.errors import PodiumError


class DatasetError(PodiumError):
    """Something about datasets was refused."""


class SnapshotNotFound(DatasetError):
    """The project has no such snapshot."""

    code = "snapshot_not_found"

    def __init__(self, snapshot: object) -> None:
        super().__init__(f"There is no snapshot {snapshot} here; the datasets page lists the snapshots there are.")


class SnapshotRedacted(DatasetError):
    """Labels were erased from the snapshot: neither the file that its hash names nor a stage on it can be had again."""

    code = "snapshot_redacted"

    def __init__(self, name: str, successor_id: int | None) -> None:
        whence = "nothing of it was left" if successor_id is None else f"take its successor, snapshot {successor_id}"
        super().__init__(
            f"Labels of the snapshot “{name}” were erased with a person, so its file is gone for good, and no stage can"
            f" learn from it again; {whence}. A new round learns from the labels that are left.",
            successor_id=successor_id,
        )


class SnapshotNameTaken(DatasetError):
    """Another snapshot of the project has the name."""

    code = "snapshot_name_taken"

    def __init__(self, name: str) -> None:
        super().__init__(f"A snapshot named “{name}” exists already; snapshots never change, so choose another name.")


class NothingSelected(DatasetError):
    """The filter selects no ranking and no demonstration."""

    code = "nothing_selected"

    def __init__(self) -> None:
        super().__init__("No ranking and no demonstration fits this filter; widen it, or collect or import some first.")


class BadFilter(DatasetError):
    """A filter contradicts itself or has no name."""

    code = "bad_filter"


class UnknownLicence(DatasetError):
    """No licence that a card can name has this name."""

    code = "unknown_licence"

    def __init__(self, licence: str) -> None:
        super().__init__(f"There is no licence “{licence}” to choose; nothing was changed. Choose one of the list.")


class BadExport(DatasetError):
    """The format, file or option does not exist, or does not fit the snapshot."""

    code = "bad_export"


class ImportNotFound(DatasetError):
    """The project has no such import."""

    code = "import_not_found"

    def __init__(self, import_id: int) -> None:
        super().__init__(f"There is no import {import_id} here; the datasets page lists the imports there are.")


class UnknownFormat(DatasetError):
    """The format asked for is none that can be imported."""

    code = "unknown_format"

    def __init__(self, what: str, format: str, known: Sequence[str]) -> None:
        super().__init__(f"{what} cannot be imported as {format}; the formats are {', '.join(known)}.")


class ImportRunning(DatasetError):
    """Another import into the project runs, and takes longer than one waits for it."""

    code = "import_running"

    def __init__(self, slug: str) -> None:
        super().__init__(
            f"Another file is being imported into {slug}, and only one can be at a time. Nothing was imported of this"
            " one; wait for the other, which the page of imports shows, and import this one again."
        )


class ImportStopped(DatasetError):
    """Somebody stopped the import while it ran."""

    code = "import_stopped"

    def __init__(self) -> None:
        super().__init__("The import was stopped, and nothing was imported; import the file again when you want to.")


class ImportNotRunning(DatasetError):
    """An import that has ended cannot be stopped."""

    code = "import_not_running"

    def __init__(self, file_name: str) -> None:
        super().__init__(f"The import of {file_name} has ended already, so there is nothing to stop.")


class NoRoom(DatasetError):
    """The database's disk is full."""

    code = "no_room"

    def __init__(self) -> None:
        super().__init__(
            "The database has no room left on its disk. Nothing was imported, and nothing was lost; free some space and"
            " import the file again."
        )


@dataclass(frozen=True)
class Problem:
    """What is wrong with one line of a file. line: counted from 1; None: the file as a whole."""

    line: int | None
    reason: str

    def __str__(self) -> str:
        return self.reason if self.line is None else f"line {self.line}: {self.reason}"


class ImportRefused(DatasetError):
    """A file holds something that cannot be imported, so nothing of it was."""

    code = "import_refused"

    def __init__(self, file_name: str, problems: Sequence[Problem]) -> None:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(
            f"{file_name}: {problems[0]}{more}. Nothing was imported; correct the file and import it again.",
            problems=[{"line": problem.line, "reason": problem.reason} for problem in problems],
        )
        self.file_name, self.problems = file_name, list(problems)


class BadFile(Exception):
    """A file cannot be read on from this line."""

    def __init__(self, line: int | None, reason: str) -> None:
        super().__init__(reason)
        self.problem = Problem(line, reason)


class BadRecord(Exception):
    """A record is not what its format says; the message is the reason."""

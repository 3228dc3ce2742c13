"""What can go wrong with snapshots, exports and imports."""

from app.errors import PodiumError


class DatasetError(PodiumError):
    """Something about datasets was refused."""


class SnapshotNotFound(DatasetError):
    """The project has no such snapshot."""

    code = "snapshot_not_found"

    def __init__(self, snapshot: object) -> None:
        super().__init__(f"There is no snapshot {snapshot} here; the datasets page lists the snapshots there are.")


class SnapshotNameTaken(DatasetError):
    """Another snapshot of the project has the name."""

    code = "snapshot_name_taken"

    def __init__(self, name: str) -> None:
        super().__init__(f"A snapshot named “{name}” exists already; snapshots never change, so choose another name.")


class NothingSelected(DatasetError):
    """The filter selects no ranking."""

    code = "nothing_selected"

    def __init__(self) -> None:
        super().__init__("No ranking fits this filter; widen it, or collect or import rankings first.")


class BadFilter(DatasetError):
    """A filter contradicts itself or has no name."""

    code = "bad_filter"


class BadExport(DatasetError):
    """The format, file or option does not exist, or does not fit the snapshot."""

    code = "bad_export"

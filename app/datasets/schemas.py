"""Snapshots and imports as JSON, and what their forms send."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from app.datasets.models import ImportState
from app.datasets.snapshots import SnapshotFilter, filter_of


class FilterQuery(BaseModel):
    """A filter as an address or a form holds it; empty fields choose nothing."""

    model_config = ConfigDict(frozen=True)

    contents: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    policy_versions: tuple[int, ...] = ()
    labelers: tuple[str, ...] = ()
    since: str = ""
    until: str = ""

    @field_validator("policy_versions", "labelers", mode="before")
    @classmethod
    def nothing_chosen(cls, values: Any) -> Any:
        return [value for value in values if value != ""] if isinstance(values, list | tuple) else values

    def as_filter(self) -> SnapshotFilter:
        """Raises BadFilter."""
        return filter_of(**self.model_dump(include=set(FilterQuery.model_fields)))


class SnapshotForm(FilterQuery):
    name: str = ""


class SnapshotIn(BaseModel):
    name: str
    filter: SnapshotFilter = SnapshotFilter()


class SnapshotOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    filter: dict[str, Any]
    num_rankings: int
    num_comparisons: int
    num_demonstrations: int
    counts: dict[str, Any]
    sha256: str
    sft_sha256: str | None
    exporter_version: int
    created_at: datetime


class ImportOut(BaseModel):
    """One import: while it runs, done, or failed with a problem a line; a check stores nothing but its report.

    is_new: false when the same file was imported before: this is that import, or names it as `same_as` in its report.
    """

    model_config = ConfigDict(from_attributes=True)

    id: int
    what: str
    format: str
    file_name: str
    sha256: str
    state: ImportState
    is_trial: bool
    is_new: bool = True
    report: dict[str, Any]
    problems: list[dict[str, Any]]
    num_bytes: int
    num_bytes_read: int
    num_lines_read: int
    created_at: datetime
    finished_at: datetime | None

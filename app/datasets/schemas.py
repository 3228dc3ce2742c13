"""Snapshots and imports as JSON, and what their forms send."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from app.datasets.filters import SnapshotFilter, filter_of
from app.datasets.licences import Licence
from app.datasets.models import ImportState


class FilterQuery(BaseModel):
    """A filter as an address or a form holds it; empty fields choose nothing."""

    model_config = ConfigDict(frozen=True)

    contents: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    prompt_kinds: tuple[str, ...] = ()
    policy_versions: tuple[int, ...] = ()
    labelers: tuple[str, ...] = ()
    labeler_groups: tuple[str, ...] = ()
    without_labeler_groups: tuple[str, ...] = ()
    since: str = ""
    until: str = ""
    min_k: str = ""
    max_k: str = ""
    min_agreement: str = ""
    max_agreement: str = ""
    flags: tuple[str, ...] = ()
    without_flags: tuple[str, ...] = ()
    ties: str = ""
    strengths: tuple[str, ...] = ()
    asked_by: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    is_shared: str = ""
    is_adjudicated: str = ""

    @field_validator("policy_versions", mode="before")
    @classmethod
    def nothing_chosen(cls, values: Any) -> Any:
        return [value for value in values if value != ""] if isinstance(values, list | tuple) else values

    @field_validator("labelers", mode="before")
    @classmethod
    def apart(cls, values: Any) -> Any:
        """One field holds several pseudonyms, with commas or spaces between them."""
        if not isinstance(values, list | tuple):
            return values
        return [name for value in values for name in str(value).replace(",", " ").split()]

    def as_filter(self) -> SnapshotFilter:
        """Raises BadFilter."""
        return filter_of(**self.chosen())

    def chosen(self) -> dict[str, Any]:
        """The filter's fields alone, as they were given."""
        return self.model_dump(include=set(FilterQuery.model_fields))

    def as_query(self) -> list[tuple[str, str]]:
        """Name and value of all that is chosen, as an address or hidden fields of a form hold them."""
        return [
            (name, str(value))
            for name, given in self.chosen().items()
            for value in (given if isinstance(given, tuple) else (given,))
            if value != ""
        ]


class SnapshotForm(FilterQuery):
    name: str = ""
    licence: str = ""


class SnapshotIn(BaseModel):
    """licence: one of the names that Hugging Face knows; left out: the project's."""

    name: str
    filter: SnapshotFilter = SnapshotFilter()
    licence: Licence | None = None


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
    licence: str | None
    measured: dict[str, Any]
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


class PreviewOut(BaseModel):
    """What a filter selects now. margin: null, and every count is exact; else the counts of rankings are estimates,
    num_rankings plus or minus the margin in 95 of 100 cases, and num_labelers are those met at least.
    """

    model_config = ConfigDict(from_attributes=True)

    num_rankings: int
    num_comparisons: int
    num_slates: int
    num_labelers: int
    num_demonstrations: int
    margin: int | None
    kinds: dict[str, int]
    splits: dict[str, int]
    policy_versions: dict[int, int]
    weeks: dict[str, int]
    words: str


class LayoutFileOut(BaseModel):
    """A file of the folder to publish. num_bytes, sha256: null until somebody has read it to its end.

    export: the query with which `export` gives the same file; null: a text that stands in the zip file alone.
    """

    name: str
    num_bytes: int | None
    sha256: str | None
    export: str | None

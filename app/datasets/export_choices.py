"""What file of a snapshot is wanted: format, options, and which part of it."""

import re
from dataclasses import dataclass, fields
from typing import Literal, get_args

from app.datasets.comparisons import Ties
from app.datasets.errors import BadExport, SnapshotRedacted
from app.datasets.models import Snapshot

Format = Literal["kwise", "pairs", "hh", "stiennon", "kto", "sft", "prompts"]
FileType = Literal["jsonl", "parquet"]
Labels = Literal["given", "adjudicated"]
Style = Literal["auto", "standard", "conversational"]
Weights = Literal["equal", "reliability"]
Part = Literal["all", "train", "validation", "test"]

# Which options mean something in which format; file, split and shards do in all.
OPTIONS: dict[str, tuple[str, ...]] = {
    "kwise": ("weights",),
    "pairs": ("ties", "labels", "style", "weights"),
    "hh": ("ties", "labels", "weights"),
    "stiennon": ("ties", "labels", "weights"),
    "kto": ("labels", "style", "weights", "least_quality"),
    "sft": (),
    "prompts": (),
}
OF_DEMONSTRATIONS, OF_BOTH = ("sft",), ("prompts",)
MOST_SHARDS = 1_000
KNOWS_RELIABILITY = 4  # the first exporter version that freezes it
QUALITIES = range(2, 8)  # from 1 on, every completion would be good


@dataclass(frozen=True, kw_only=True)
class ExportChoice:
    """What file to write.

    ties: whether pairs of equal rank are left out, marked `tie`, or there both ways with half the weight each.
    labels: whether a comparison is what labelers said, or a researcher's decision where there is one.
    style: how prompts and completions are held, as texts or as turns (TRL knows both); auto writes texts if it can.
    weights: whether all labelers weigh the same, or as reliable as they were at the freeze.
    least_quality: from which quality on `kto` calls a completion good; None: above the middle of its slate.
    split: one side of the split alone.
    shard, num_shards: which of so many files, counted from 1; each has as many labels, and together they are the whole.
    Raises BadExport for what does not exist or means nothing together.
    """

    format: Format = "kwise"
    file: FileType = "jsonl"
    ties: Ties = "drop"
    labels: Labels = "given"
    style: Style = "auto"
    weights: Weights = "equal"
    least_quality: int | None = None
    split: Part = "all"
    shard: int = 1
    num_shards: int = 1

    def __post_init__(self) -> None:
        for field in fields(self):
            value, choices = getattr(self, field.name), get_args(field.type)
            if isinstance(value, str) and value not in choices:
                raise BadExport(f"There is no {field.name} {value!r}; choose {' or '.join(choices)}.")
        for field in fields(self):
            is_option = any(field.name in options for options in OPTIONS.values())
            if is_option and getattr(self, field.name) != field.default and field.name not in OPTIONS[self.format]:
                raise BadExport(f"{field.name} means nothing in {self.format}; leave it out.")
        if self.ties == "keep" and self.format != "pairs":
            raise BadExport(f"{self.format} has no place for a tie; drop ties, or halve them.")
        if self.least_quality is not None and self.least_quality not in QUALITIES:
            raise BadExport(
                f"least_quality is {self.least_quality}; it is a quality from {QUALITIES[0]} to {QUALITIES[-1]}."
            )
        if self.least_quality is not None and self.labels == "adjudicated":
            raise BadExport("A decision gives no qualities; leave out least_quality, or take the labels as given.")
        if not 1 <= self.shard <= self.num_shards <= MOST_SHARDS:
            raise BadExport(
                f"There is no shard {self.shard} of {self.num_shards}; they are 1 to at most {MOST_SHARDS}."
            )


def check_export(snapshot: Snapshot, choice: ExportChoice) -> None:
    """Raises BadExport if the snapshot cannot be written so, SnapshotRedacted if it cannot be written any more."""
    if snapshot.redaction is not None:
        raise SnapshotRedacted(snapshot.name, snapshot.redaction.successor_id)
    if choice.format in OF_DEMONSTRATIONS and not snapshot.num_demonstrations:
        raise BadExport("The snapshot holds no demonstration; freeze one that does.")
    if choice.format not in OF_DEMONSTRATIONS + OF_BOTH and not snapshot.num_rankings:
        raise BadExport("The snapshot holds demonstrations alone; choose sft.")
    if choice.weights == "reliability" and not knows_reliability(snapshot):
        raise BadExport(
            "The snapshot was frozen before labelers' reliability was; freeze the same labels under another name."
            if snapshot.exporter_version < KNOWS_RELIABILITY
            else "No two labelers compared the same slate of it, so nobody's reliability is known; leave out weights."
        )
    conversational = snapshot.counts["conversational"]
    if choice.style == "standard" and conversational:
        raise BadExport(
            f"{conversational} rankings have prompts of several turns, which do not fit the standard style;"
            " choose conversational."
        )


def knows_reliability(snapshot: Snapshot) -> bool:
    """Whether its labelers have a reliability; without one, all would weigh the same."""
    return snapshot.exporter_version >= KNOWS_RELIABILITY and bool(snapshot.counts.get("shared_slates"))


def file_name_of(project_slug: str, snapshot: Snapshot, choice: ExportChoice) -> str:
    split = "" if choice.split == "all" else f"-{choice.split}"
    return f"{stem_of(project_slug, snapshot)}-{choice.format}{split}{shard_suffix(choice)}.{choice.file}"


def stem_of(project_slug: str, snapshot: Snapshot) -> str:
    """What the names of its files begin with."""
    name = re.sub(r"[^a-z0-9]+", "-", snapshot.name.lower()).strip("-") or str(snapshot.id)
    return f"{project_slug}-{name}"


def shard_suffix(choice: ExportChoice) -> str:
    """-00000-of-00003, counted from 0 as everybody names shards; nothing for the only one."""
    return "" if choice.num_shards == 1 else f"-{choice.shard - 1:05}-of-{choice.num_shards:05}"


def num_labels_of(snapshot: Snapshot, choice: ExportChoice) -> int:
    """How many labels the format is written from: rankings, demonstrations, or both."""
    num_rankings = 0 if choice.format in OF_DEMONSTRATIONS else snapshot.num_rankings
    with_demonstrations = choice.format in OF_DEMONSTRATIONS + OF_BOTH
    return num_rankings + (snapshot.num_demonstrations if with_demonstrations else 0)

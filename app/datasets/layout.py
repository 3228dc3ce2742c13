"""A folder that `datasets.load_dataset` opens: the layout in which a snapshot is published.

README.md                                     the dataset card, with the configurations in front
LICENSE.md                                    who may say under which licence, as long as nobody has
data/pairs/train-00000-of-00002.parquet       a folder a format, a file or more a side of the split
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.datasets.cards import dataset_card
from app.datasets.errors import BadExport
from app.datasets.export_choices import OF_BOTH, OF_DEMONSTRATIONS, ExportChoice, Format, check_export, shard_suffix
from app.datasets.exports import export_chunks
from app.datasets.models import Snapshot
from app.projects.models import Project

# The first that a snapshot can give is what `load_dataset` opens when it is told no other.
PUBLISHED: tuple[Format, ...] = ("pairs", "kwise", "kto", "sft", "prompts")
LABELS_A_SHARD = 50_000  # of about 10 kB each: a few hundred MB before they are compressed
SPLITS = ("train", "validation", "test")

LICENSE = """\
# Licence

Podium does not know under which licence “{name}” may be used. Who publishes it decides, and is bound by what the people
who wrote and ranked its texts agreed to, by the licences of the prompts' sources, and by the terms of the models that
wrote the completions. Replace this file with the licence, and name it in the card's front matter (`license: …`).
"""

Write = Callable[[Path, Iterable[bytes]], int]  # whole or not at all; returns the file's size in bytes


@dataclass(frozen=True)
class LayoutFile:
    """A file of the folder. name: its path there."""

    name: str
    num_bytes: int


@dataclass(frozen=True)
class Planned:
    """A file that the folder is to hold: an export, or else a text. name: its path there."""

    name: str
    choice: ExportChoice | None = None
    text: str = ""


def write_layout(folder: Path, project: Project, snapshot: Snapshot, *, write: Write) -> Iterator[LayoutFile]:
    """Write the files one after the other, the card last: a folder without one is not complete.

    Raises BadExport where the folder holds other things, and what `write` raises.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise BadExport(f"{folder} is not empty, and nothing was written; name a new folder.")
    for file in planned(project, snapshot):
        path = folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = [file.text.encode()] if file.choice is None else export_chunks(snapshot, file.choice)
        yield LayoutFile(file.name, write(path, content))


def planned(project: Project, snapshot: Snapshot) -> list[Planned]:
    """Every file of the folder, the card last. Raises SnapshotRedacted."""
    configurations = {format: splits_of(snapshot, format) for format in PUBLISHED if fits(snapshot, format)}
    return [
        *(
            Planned(f"data/{format}/{split}-{numbered(choice)}.parquet", choice)
            for format, splits in configurations.items()
            for split, num in splits.items()
            for choice in shards_of(format, split, num)
        ),
        Planned("LICENSE.md", text=LICENSE.format(name=snapshot.name)),
        Planned("README.md", text=dataset_card(project, snapshot, configs(configurations))),
    ]


def fits(snapshot: Snapshot, format: Format) -> bool:
    try:
        check_export(snapshot, ExportChoice(format=format))
    except BadExport:
        return False
    return True


def splits_of(snapshot: Snapshot, format: Format) -> dict[str, int]:
    """The sides of the split that the snapshot has labels on, with how many."""
    counts = snapshot.counts
    counted = [] if format in OF_DEMONSTRATIONS else [counts["split"]]
    if format in OF_DEMONSTRATIONS + OF_BOTH:
        counted.append(counts.get("demonstration_split", {}))
    totals = {split: sum(count.get(split, 0) for count in counted) for split in SPLITS}
    return {split: num for split, num in totals.items() if num}


def shards_of(format: Format, split: Any, num_labels: int) -> list[ExportChoice]:
    num = -(-num_labels // LABELS_A_SHARD)
    return [
        ExportChoice(format=format, file="parquet", split=split, shard=shard, num_shards=num)
        for shard in range(1, num + 1)
    ]


def numbered(choice: ExportChoice) -> str:
    return shard_suffix(choice).removeprefix("-") or "00000-of-00001"


def configs(configurations: dict[Format, dict[str, int]]) -> list[dict[str, Any]]:
    """Which files are which configuration's; the first one is what `datasets` opens when none is named."""
    return [
        {
            "config_name": format,
            **({"default": True} if place == 0 else {}),
            "data_files": [{"split": split, "path": f"data/{format}/{split}-*.parquet"} for split in splits],
        }
        for place, (format, splits) in enumerate(configurations.items())
    ]

"""What lies where among the artifacts, and how large it is."""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from app.artifacts import Store, open_store
from app.settings import Settings

WEIGHTS = ".safetensors"


@dataclass(frozen=True)
class Use:
    """Bytes of one project's files."""

    project: str  # its short name, as the folder has it
    weights: int  # of versions
    checkpoints: int
    rest: int  # what stages read and measured, scores, reports

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.checkpoints + self.rest


def places_of(settings: Settings) -> list[Store]:
    """Where files may lie that this process can see: the store, if there is one, and this machine's folder."""
    here = Store(f"file://{settings.artifacts}", settings.artifacts)
    store = open_store(settings)
    return [here] if store is None else [store, here]


def free_bytes(place: Store) -> int | None:
    """Room on the disk that a folder is on, or will be; None of a store."""
    if not place.url.startswith("file://"):
        return None
    folder = Path(name_of(place))
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def name_of(place: Store) -> str:
    """As people know it."""
    return place.url.removeprefix("file://")


def used_by_projects(files: Mapping[str, int]) -> list[Use]:
    """files: name below the artifacts -> bytes.  The largest project first."""
    sums: dict[str, dict[str, int]] = {}
    for name, size in files.items():
        parts = name.split("/")
        if len(parts) < 3 or parts[0] != "projects":
            continue
        of_project = sums.setdefault(parts[1], {"weights": 0, "checkpoints": 0, "rest": 0})
        of_project[_kind(parts)] += size
    return sorted((Use(slug, **kinds) for slug, kinds in sums.items()), key=lambda use: -use.total)


def weights_in(files: Iterable[str], folder: str) -> list[str]:
    """The files of a result that a rule may remove: its report and its figures stay."""
    return [name for name in files if name.startswith(f"{folder}/") and name.endswith(WEIGHTS)]


def _kind(parts: list[str]) -> str:
    if "checkpoints" in parts:
        return "checkpoints"
    return "weights" if "result" in parts and parts[-1].endswith(WEIGHTS) else "rest"

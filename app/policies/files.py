"""The files of a version, wherever they lie: the package, a folder of this machine, or the artifact store.

They are read and never copied: a web process needs no disk of its own to hand out a model of any size.
"""

import json
from pathlib import Path

from app.artifact_errors import ArtifactError, StoreUnreachable
from app.artifacts import MANIFEST, Store, is_here, open_store
from app.policies.errors import PolicyFilesMissing, PolicyStoreAway
from app.policies.models import PolicyVersion
from app.policies.service import policy_files
from app.settings import Settings
from app.zip_archives import File, content

README, OWN_README = "README.md", "README.base.md"  # ours, and the one that came with the model
# What Transformers opens of a model, and its licence: a folder that was named to us may hold other things.
OPENED = (
    *("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "tokenizer*"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "chat_template*", "LICENSE*", "NOTICE*"),
)


def files_of(settings: Settings, version: PolicyVersion) -> list[File]:
    """Everything that a Hugging Face folder of the version holds but its card.

    Raises PolicyFilesMissing, PolicyStoreAway.
    Sizes are looked at, and the manifest against the one that was registered; each file is held against the manifest
    while it is read.
    """
    place = policy_files(settings, version)
    if place.folder is None:
        return files_in(version, Path(place.path))
    local = settings.artifacts / place.folder
    try:
        if is_here(local, version.manifest_sha256):
            return files_here(version, local)
        store = open_store(settings)
        if store is None:
            raise PolicyFilesMissing(
                version.number, f"its folder {local} is not on this machine, or not the one that its stage made"
            )
        return files_in_store(store, place.folder, version.manifest_sha256)
    except StoreUnreachable as error:
        raise PolicyStoreAway(version.number, error.message) from error
    except ArtifactError as error:
        raise PolicyFilesMissing(version.number, f"{error.message}; {error.advice}") from error


def files_in(version: PolicyVersion, folder: Path) -> list[File]:
    """Of the model that a project began with."""
    if not folder.is_absolute():
        raise PolicyFilesMissing(
            version.number, f"it is {version.source} as Hugging Face has it; get it there: hf download {version.source}"
        )
    found = sorted({path for pattern in OPENED for path in folder.glob(pattern) if path.is_file()})
    if not any(path.name == "config.json" for path in found):
        raise PolicyFilesMissing(version.number, f"no model lies in {folder} on the machine of the web process")
    readme = folder / README
    return [on_disk(path.name, path) for path in found] + ([on_disk(OWN_README, readme)] if readme.is_file() else [])


def files_here(version: PolicyVersion, folder: Path) -> list[File]:
    """Of a result that lies on this machine."""
    manifest = (folder / MANIFEST).read_bytes()
    names: dict[str, str] = json.loads(manifest)
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise PolicyFilesMissing(version.number, f"{folder / missing[0]} is gone")
    return [on_disk(name, folder / name, sha256) for name, sha256 in names.items()] + [content(MANIFEST, manifest)]


def files_in_store(store: Store, folder: str, manifest_sha256: str | None) -> list[File]:
    """Of a result that the store has. Raises what Store.listing does."""
    manifest, names = store.listing(folder, manifest_sha256=manifest_sha256)

    def in_store(name: str, sha256: str) -> File:
        file = f"{folder}/{name}"
        return File(name, store.size(file), lambda: store.open(file), sha256, sha256)

    return [in_store(name, sha256) for name, sha256 in names.items()] + [content(MANIFEST, manifest)]


def on_disk(name: str, path: Path, sha256: str | None = None) -> File:
    found = path.stat()
    return File(name, found.st_size, lambda: path.open("rb"), sha256 or str(found.st_mtime_ns), sha256)

"""Brings weights back that the installation's rule removed: the very files that were registered, from a folder.

The folder is of a backup that was unpacked, or what `podium reproduce` made again to the bit. The version's mark goes
after its files have come: a process killed in between leaves files that nothing names, and the next run takes them.
"""

from datetime import datetime
from pathlib import Path

from sqlalchemy.orm import Session

from app.artifacts import MANIFEST, Store, file_sha256
from app.people.service import audit
from app.policies.models import PolicyVersion, RewardModelVersion
from app.settings import Settings
from app.upkeep.archive import chunks_of
from app.upkeep.errors import WeightsNotRemoved, WeightsNotTheirs
from app.upkeep.locks import read_until_commit
from app.upkeep.retention import folder_of, lock_versions, name_of_version
from app.upkeep.storage import WEIGHTS, places_of


def bring_back(
    session: Session, settings: Settings, version: PolicyVersion | RewardModelVersion, source: Path, *, now: datetime
) -> int:
    """Put the version's weights where they lay; a policy version's are kept by hand from now on. Returns their bytes.

    source: the result folder, or the stage's that it lies in.
    Raises WeightsNotRemoved, WeightsNotTheirs, UpkeepUnderWay, ArtifactError. The caller owns the transaction.
    """
    read_until_commit(session.connection())  # nothing is pruned meanwhile
    lock_versions(session, version.project_id)
    session.refresh(version)
    folder = folder_of(version)
    if version.weights_removed_at is None or folder is None:
        raise WeightsNotRemoved(name_of_version(version))
    places = places_of(settings)  # where results are registered comes first
    _, names = places[0].listing(folder, manifest_sha256=version.manifest_sha256)
    weights = {name: sha256 for name, sha256 in names.items() if name.endswith(WEIGHTS)}
    found = source / "result" if (source / "result" / MANIFEST).is_file() else source
    for name, sha256 in weights.items():
        if not (found / name).is_file() or file_sha256(found / name) != sha256:
            raise WeightsNotTheirs(found, name)
    for place in [places[0], *(place for place in places[1:] if place.has(folder))]:
        _write(place, folder, found, weights)
    version.weights_removed_at = None
    if isinstance(version, PolicyVersion):
        version.kept_at = now  # or the next run of the rule would take them again
    num_bytes = sum((found / name).stat().st_size for name in weights)
    what = f"weights of {name_of_version(version)}"
    audit(session, None, "artifacts.brought_back", folder, version.project_id, what=what, num_bytes=num_bytes)
    session.flush()
    return num_bytes


def _write(place: Store, folder: str, found: Path, weights: dict[str, str]) -> None:
    for name in weights:
        place.write(f"{folder}/{name}", chunks_of((found / name).open("rb")))

"""Removes what the installation's rule lets go: one thing at a time, each decided once more under its lock.

A version is marked before its weights go: a process killed in between leaves files that nothing names, and the next
run takes them. Each removal is written into the audit log, and none is made while a backup reads.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from app.artifacts import Store
from app.db import clock
from app.people.service import audit
from app.policies.models import PolicyVersion, RewardModelVersion
from app.rounds.models import Round, Stage
from app.settings import Settings
from app.upkeep.locks import removing_files
from app.upkeep.retention import (
    Removable,
    Rule,
    lock_versions,
    removable,
    removable_checkpoints,
    removable_weights,
)
from app.upkeep.storage import places_of, weights_in


@dataclass(frozen=True)
class Pruned:
    """What went, or would go. num_bytes: in all places that this process sees.

    policy_version: the version's number within the project, if it is the weights of one.
    """

    folder: str
    what: str
    costs: str
    num_bytes: int
    project: str | None
    policy_version: int | None


def plan(session: Session, settings: Settings, rule: Rule) -> Iterator[Pruned]:
    """What the rule would remove now. Raises ArtifactError."""
    files = [place.files("projects") for place in places_of(settings)]
    for each in removable(session, rule, now=clock(session)):
        if num_bytes := sum(_size(listed, each) for listed in files):
            yield _pruned(each, num_bytes)


def prune(engine: Engine, settings: Settings, rule: Rule) -> Iterator[Pruned]:
    """Remove it, each before it is yielded. Raises UpkeepUnderWay, ArtifactError: what went before then is gone."""
    places = places_of(settings)
    with Session(engine) as session:
        found = removable(session, rule, now=clock(session))
    for each in found:
        if num_bytes := _remove(engine, places, rule, each):
            yield _pruned(each, num_bytes)


def _pruned(each: Removable, num_bytes: int) -> Pruned:
    return Pruned(each.folder, each.what, each.costs, num_bytes, each.project, each.number)


def _remove(engine: Engine, places: list[Store], rule: Rule, each: Removable) -> int:
    """Bytes that went; 0 where nothing was left, or where somebody began to use it."""
    with engine.connect() as connection, removing_files(connection):  # to the last file, not to the commit alone
        with Session(connection) as session, session.begin():
            num_bytes = sum(_size(place.files(each.folder), each) for place in places)
            if not num_bytes:
                return 0
            if not (_mark(session, rule, each) if each.is_weights else _lock_stage(session, rule, each)):
                return 0
            _write_down(session, each, num_bytes)
            if not each.is_weights:  # of a stage that nobody can begin meanwhile: its row is locked
                for place in places:
                    place.remove(each.folder)
        if each.is_weights:
            for place in places:
                for file in weights_in(place.files(each.folder), each.folder):
                    place.remove_file(file)
    return num_bytes


def _write_down(session: Session, each: Removable, num_bytes: int) -> None:
    audit(
        session,
        None,
        "artifacts.removed",
        each.folder,
        _project_of(session, each),
        what=each.what,
        num_bytes=num_bytes,
        **({"costs": each.costs} if each.costs else {}),
    )


def _size(files: dict[str, int], each: Removable) -> int:
    if each.is_weights:
        return sum(files[name] for name in weights_in(files, each.folder))
    return sum(size for name, size in files.items() if name.startswith(f"{each.folder}/"))


def _lock_stage(session: Session, rule: Rule, each: Removable) -> bool:
    """Whether the rule still lets the checkpoints go, and nobody resumes the stage until this transaction ends."""
    stage = session.scalar(select(Stage).where(Stage.id == each.stage_id).with_for_update(skip_locked=True))
    if stage is None:
        return False
    found = removable_checkpoints(session, rule, now=clock(session), stage_id=stage.id)
    return each.folder in {other.folder for other in found}


def _mark(session: Session, rule: Rule, each: Removable) -> bool:
    """Write down that the weights go, if the rule still lets them: nothing is promoted meanwhile."""
    version = _version(session, each)
    project = lock_versions(session, version.project_id)
    now = clock(session)
    if each.folder not in {other.folder for other in removable_weights(session, project, rule, now=now)}:
        return False
    version.weights_removed_at = version.weights_removed_at or now
    return True


def _version(session: Session, each: Removable) -> PolicyVersion | RewardModelVersion:
    if each.is_reward_model:
        return session.get_one(RewardModelVersion, each.version_id)
    return session.get_one(PolicyVersion, each.version_id)


def _project_of(session: Session, each: Removable) -> int | None:
    if each.is_weights:
        return _version(session, each).project_id
    query = select(Round.project_id).join(Stage, Stage.round_id == Round.id).where(Stage.id == each.stage_id)
    return session.scalar(query)

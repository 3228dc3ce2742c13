"""What a stage that ended well was run with, looked up again: for whoever runs it once more. Changes nothing.

A stage's configuration, seed and parents are in its row, its labels in the round's snapshot. Its prompts are those that
the project had when the stage's inputs were written.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets.errors import SnapshotRedacted
from app.datasets.models import Snapshot
from app.policies.models import PolicyVersion, RewardModelVersion
from app.policies.service import get_version, policy_files, reward_model_files
from app.projects.models import Project
from app.reward_models.errors import RewardModelNotFound
from app.rounds.errors import NothingToReproduce
from app.rounds.inputs import StageInputs
from app.rounds.models import Recipe, Stage
from app.settings import Settings

# What a stage calls its models, in the order in which its folder has them: the first one's tokenizer is the stage's.
MODEL_NAMES = ("policy", "candidate", "current", "reference", "reward_model")


class ModelKey(NamedTuple):
    """Which model: a policy version or a reward model, by the id of its row."""

    is_reward_model: bool
    id: int


@dataclass(frozen=True, kw_only=True)
class Original:
    """A model that a stage made, and all that it was made with.

    versions: what the stage recorded of its code, libraries, threads, device and data.
    """

    key: ModelKey
    name: str  # for people: "policy version 2"
    manifest_sha256: str
    inputs: StageInputs
    versions: dict[str, Any]


def find_original(
    session: Session, settings: Settings, project: Project, number: int, *, is_reward_model: bool = False
) -> Original:
    """The policy version, or the reward model, of this number.

    Raises PolicyVersionNotFound, RewardModelNotFound, NothingToReproduce, SnapshotRedacted.
    """
    version = _version(session, project, number, is_reward_model)
    if version.stage_id is None or version.manifest_sha256 is None:
        raise NothingToReproduce(_name(version))
    return _original(session, settings, version, version.stage_id, version.manifest_sha256)


def chain_to(
    session: Session, settings: Settings, project: Project, number: int, *, is_reward_model: bool = False
) -> list[Original]:
    """The model of this number and every one that led to it, parents before children; none that was imported.

    Raises as find_original does, of any of them.
    """
    asked = find_original(session, settings, project, number, is_reward_model=is_reward_model)
    chain: dict[ModelKey, Original] = {}

    def add(original: Original) -> None:
        for key in parents_of(original.inputs).values():
            parent = _version_of(session, key)
            if key not in chain and parent.stage_id is not None and parent.manifest_sha256 is not None:
                add(_original(session, settings, parent, parent.stage_id, parent.manifest_sha256))
        chain[original.key] = original

    add(asked)
    return list(chain.values())


def parents_of(inputs: StageInputs) -> dict[str, ModelKey]:
    """What the stage calls each model that it reads -> which one that is."""
    named = {name: inputs.parents.get(f"{name}_id") for name in MODEL_NAMES}
    return {name: ModelKey(name == "reward_model", id) for name, id in named.items() if id is not None}


def on(original: Original, made: Mapping[ModelKey, Path]) -> Original:
    """The same, reading models that were made again in the place of those of then. made: key -> result folder.

    All of its parents that a stage made are among them, as chain_to has it: no result of then is read.
    """
    again = {name: str(made[key]) for name, key in parents_of(original.inputs).items() if key in made}
    return replace(original, inputs=replace(original.inputs, models=original.inputs.models | again, results={}))


def _original(
    session: Session,
    settings: Settings,
    version: PolicyVersion | RewardModelVersion,
    stage_id: int,
    manifest_sha256: str,
) -> Original:
    stage = session.get_one(Stage, stage_id)
    return Original(
        key=ModelKey(isinstance(version, RewardModelVersion), version.id),
        name=_name(version),
        manifest_sha256=manifest_sha256,
        inputs=inputs_as_they_were(session, settings, stage),
        versions=stage.versions,
    )


def _version(
    session: Session, project: Project, number: int, is_reward_model: bool
) -> PolicyVersion | RewardModelVersion:
    return _reward_model(session, project, number) if is_reward_model else get_version(session, project, number)


def _version_of(session: Session, key: ModelKey) -> PolicyVersion | RewardModelVersion:
    if key.is_reward_model:
        return session.get_one(RewardModelVersion, key.id)
    return session.get_one(PolicyVersion, key.id)


def _name(version: PolicyVersion | RewardModelVersion) -> str:
    kind = "reward model" if isinstance(version, RewardModelVersion) else "policy version"
    return f"{kind} {version.number}"


def inputs_as_they_were(session: Session, settings: Settings, stage: Stage) -> StageInputs:
    """What the stage was run with. Raises SnapshotRedacted."""
    round, parents = stage.round, {name: id for name, id in stage.parents.items() if name != "snapshot_id"}
    files = {}
    for name in MODEL_NAMES:
        if (id := parents.get(f"{name}_id")) is None:
            continue
        if name == "reward_model":
            files[name] = reward_model_files(session, settings, session.get_one(RewardModelVersion, id))
        else:
            files[name] = policy_files(settings, session.get_one(PolicyVersion, id))
    snapshot = None if round.snapshot_id is None else session.get_one(Snapshot, round.snapshot_id)
    if snapshot is not None and snapshot.redaction is not None:
        raise SnapshotRedacted(snapshot.name, snapshot.redaction.successor_id)
    sha256 = None if snapshot is None else snapshot.sft_sha256 if stage.recipe is Recipe.SFT else snapshot.sha256
    written_at = stage.versions.get("inputs_at")
    return StageInputs(
        recipe=stage.recipe,
        folder=stage.folder or "",
        configuration=stage.configuration,
        preset=stage.preset,
        seed=stage.seed,
        project_id=round.project_id,
        round_number=round.number,
        snapshot_id=round.snapshot_id,
        snapshot_sha256=sha256,
        models={name: model.path for name, model in files.items()},
        results={folder: sha256 for model in files.values() for folder, sha256 in model.results.items()},
        parents=parents,
        max_prompt_tokens=session.get_one(Project, round.project_id).max_prompt_tokens,
        as_of=datetime.fromisoformat(written_at) if written_at else stage.started_at,
    )


def _reward_model(session: Session, project: Project, number: int) -> RewardModelVersion:
    found = session.scalar(
        select(RewardModelVersion).where(
            RewardModelVersion.project_id == project.id, RewardModelVersion.number == number
        )
    )
    if found is None:
        raise RewardModelNotFound(number)
    return found

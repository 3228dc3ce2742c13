"""What a stage that ended well was run with, looked up again: for whoever runs it once more. Changes nothing.

A stage's configuration, seed and parents are in its row, its labels in the round's snapshot. Its prompts are those that
the project had when the stage's inputs were written.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets.models import Snapshot
from app.policies.models import PolicyVersion, RewardModelVersion
from app.policies.service import get_version, policy_files, reward_model_files
from app.projects.models import Project
from app.reward_models.errors import RewardModelNotFound
from app.rounds.errors import NothingToReproduce, SnapshotWasRedacted
from app.rounds.inputs import StageInputs
from app.rounds.models import Recipe, Stage
from app.settings import Settings

# What a stage calls its models, in the order in which its folder has them: the first one's tokenizer is the stage's.
MODEL_NAMES = ("policy", "candidate", "current", "reference", "reward_model")


@dataclass(frozen=True, kw_only=True)
class Original:
    """A model that a stage made, and all that it was made with.

    versions: what the stage recorded of its code, libraries, threads, device and data.
    """

    name: str  # for people: "policy version 2"
    manifest_sha256: str
    inputs: StageInputs
    versions: dict[str, Any]


def find_original(
    session: Session, settings: Settings, project: Project, number: int, *, is_reward_model: bool = False
) -> Original:
    """The policy version, or the reward model, of this number.

    Raises PolicyVersionNotFound, RewardModelNotFound, NothingToReproduce, SnapshotWasRedacted.
    """
    version: PolicyVersion | RewardModelVersion
    if is_reward_model:
        version, name = _reward_model(session, project, number), f"reward model {number}"
    else:
        version, name = get_version(session, project, number), f"policy version {number}"
    if version.stage_id is None or version.manifest_sha256 is None:
        raise NothingToReproduce(name)
    stage = session.get_one(Stage, version.stage_id)
    return Original(
        name=name,
        manifest_sha256=version.manifest_sha256,
        inputs=inputs_as_they_were(session, settings, stage),
        versions=stage.versions,
    )


def inputs_as_they_were(session: Session, settings: Settings, stage: Stage) -> StageInputs:
    """What the stage was run with. Raises SnapshotWasRedacted."""
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
        raise SnapshotWasRedacted(snapshot.name)
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

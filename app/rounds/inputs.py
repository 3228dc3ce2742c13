"""What a claimed stage is run with: its configuration, the models it reads, prompts and demonstrations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from app.datasets.models import Snapshot, SnapshotDemonstration
from app.labeling.models import Demonstration
from app.policies.models import PolicyVersion, RewardModelVersion
from app.policies.service import ModelFiles, policy_files, reward_model_files
from app.projects.models import Project
from app.prompts.models import Prompt, Split, Use
from app.rounds.claims import StageClaim, locked_stage
from app.rounds.models import POLICY_RECIPES, Recipe, Round
from app.settings import Settings


class MissingParent(Exception):
    """The stage needs a model that no stage has made yet."""

    code = "missing_parent"


@dataclass(frozen=True, kw_only=True)
class StageInputs:
    """What a stage is run with. models: name -> what it opens with.  parents: name -> id of its version.

    results: what of the models rounds made, folder below the artifacts -> SHA-256 of its manifest.
    as_of: the prompts are those of this moment; None: of now.
    """

    recipe: Recipe
    folder: str  # below the artifacts
    configuration: dict[str, Any]
    preset: str
    seed: int
    project_id: int
    round_number: int
    snapshot_id: int | None
    snapshot_sha256: str | None
    models: dict[str, str]
    results: dict[str, str]
    parents: dict[str, int]
    max_prompt_tokens: int
    as_of: datetime | None = None


def stage_inputs(session: Session, settings: Settings, claim: StageClaim) -> StageInputs:
    """All that the stage's folder is made from, looked up. Raises ClaimLost, MissingParent."""
    stage = locked_stage(session, claim)
    round = stage.round
    files, parents = _models(session, settings, round, stage.recipe, stage.configuration)
    stage.parents = {**parents, "snapshot_id": round.snapshot_id}
    assert stage.folder is not None
    snapshot_sha256 = None
    if round.snapshot_id is not None:
        snapshot = session.get_one(Snapshot, round.snapshot_id)
        snapshot_sha256 = snapshot.sft_sha256 if stage.recipe is Recipe.SFT else snapshot.sha256
    return StageInputs(
        recipe=stage.recipe,
        folder=stage.folder,
        configuration=stage.configuration,
        preset=stage.preset,
        seed=stage.seed,
        project_id=round.project_id,
        round_number=round.number,
        snapshot_id=round.snapshot_id,
        snapshot_sha256=snapshot_sha256,
        models={name: model.path for name, model in files.items()},
        results={folder: sha256 for model in files.values() for folder, sha256 in model.results.items()},
        parents=parents,
        max_prompt_tokens=session.get_one(Project, round.project_id).max_prompt_tokens,
    )


def record_versions(session: Session, claim: StageClaim, versions: dict[str, Any]) -> None:
    """Note with which code and libraries the stage runs. Raises ClaimLost."""
    locked_stage(session, claim).versions = versions


def prompts_for(
    session: Session,
    project_id: int,
    splits: Sequence[Split],
    *,
    use: Use | None = None,
    as_of: datetime | None = None,
) -> list[Prompt]:
    """The project's prompts of some splits that are not set aside, in a fixed order.

    use: only prompts for this use, in a project whose prompts serve one use each.  as_of: those there were then.
    """
    wanted = [Prompt.project_id == project_id, Prompt.split.in_(splits)]
    if as_of is None:
        wanted.append(Prompt.set_aside_at.is_(None))
    else:
        wanted += [Prompt.created_at <= as_of, or_(Prompt.set_aside_at.is_(None), Prompt.set_aside_at > as_of)]
    if use is not None and not session.get_one(Project, project_id).uses_overlap:
        # A use is a matter of training; every choice and report reads all of its split.
        wanted.append(or_(Prompt.use == use, Prompt.split != Split.TRAIN))
    return list(session.scalars(select(Prompt).where(*wanted).order_by(Prompt.id)))


def demonstrations_of(session: Session, snapshot_id: int | None) -> list[tuple[Demonstration, Prompt]]:
    """The demonstrations that were frozen when the round began, with their prompts, in a fixed order.

    The test split's are nobody's to fit.
    """
    found = session.execute(
        select(Demonstration, Prompt)
        .join(SnapshotDemonstration, SnapshotDemonstration.demonstration_id == Demonstration.id)
        .join(Prompt, Prompt.id == Demonstration.prompt_id)
        .where(SnapshotDemonstration.snapshot_id == snapshot_id, Prompt.split != Split.TEST)
        .order_by(SnapshotDemonstration.position)
    )
    return [(demonstration, prompt) for demonstration, prompt in found]


def _models(
    session: Session, settings: Settings, round: Round, recipe: Recipe, configuration: Mapping[str, Any]
) -> tuple[dict[str, ModelFiles], dict[str, int]]:
    """The models a recipe reads: where their files lie, and whose they are."""
    policies = _policies(session, round, recipe, configuration)
    models = {name: policy_files(settings, version) for name, version in policies.items()}
    parents = {f"{name}_id": version.id for name, version in policies.items()}
    if recipe in (*POLICY_RECIPES, Recipe.EVALUATE) or configuration.get("select_by") == "score":
        reward_model = _reward_model(session, round)
        models["reward_model"] = reward_model_files(session, settings, reward_model)
        parents["reward_model_id"] = reward_model.id
    return models, parents


def _policies(
    session: Session, round: Round, recipe: Recipe, configuration: Mapping[str, Any]
) -> dict[str, PolicyVersion]:
    """The policies by what the recipe calls them. Raises MissingParent."""
    sft = session.get_one(PolicyVersion, round.sft_policy_id)
    current = session.get_one(PolicyVersion, round.baseline_id)  # as it was when the round was started
    if recipe == Recipe.EVALUATE:
        if round.candidate_id is None:
            raise MissingParent("there is no candidate to evaluate: add a stage that makes a policy to the round")
        candidate = session.get_one(PolicyVersion, round.candidate_id)
        return {"candidate": candidate, "current": current, "reference": sft}
    if configuration.get("start_from") == "current" and current.id != sft.id:
        return {"policy": current, "reference": sft}
    return {"policy": sft}


def _reward_model(session: Session, round: Round) -> RewardModelVersion:
    """The one that this round fitted, or else the project's last one."""
    stage_ids = [stage.id for stage in round.stages]
    found = session.scalar(
        select(RewardModelVersion)
        .where(RewardModelVersion.project_id == round.project_id)
        .order_by(RewardModelVersion.stage_id.in_(stage_ids).desc(), RewardModelVersion.number.desc())
        .limit(1)
    )
    if found is None:
        raise MissingParent("there is no reward model yet: add the stage reward to the round")
    return found

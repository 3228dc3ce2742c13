"""Policy versions: where their files lie, and which one is current. How that changes: app.policies.promotion."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.policies.errors import (
    PolicyFilesMissing,
    PolicyVersionNotFound,
    RewardModelFilesRemoved,
)
from app.policies.models import PolicyState, PolicyVersion, RewardModelVersion
from app.projects.models import Project
from app.rounds.models import Stage
from app.settings import Settings
from trainer.settings import STARTER

STARTER_SOURCE = "starter"
ROUNDS_PREFIX = "rounds:"  # before a result folder below the artifacts


@dataclass(frozen=True)
class InspectedPolicy:
    """A policy that was looked at and can be used: what a project starts from.

    source: "starter", a hub name, or an absolute folder.
    """

    source: str
    num_parameters: int
    context_tokens: int
    tokenizer_sha256: str
    manifest_sha256: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelFiles:
    """Where a model's files lie: `path` is what it opens with, an absolute folder or a hub name.

    folder, manifest_sha256: of a result of a round, below the artifacts; with a store it may have to be fetched first.
    trunk: the policy that adapters in it sit on, if it has any.
    """

    path: str
    folder: str | None = None
    manifest_sha256: str | None = None
    trunk: "ModelFiles | None" = None

    @property
    def results(self) -> dict[str, str]:
        """The results of rounds that it takes, folder -> SHA-256 of the manifest: what a store may have to give."""
        own = {self.folder: self.manifest_sha256} if self.folder and self.manifest_sha256 else {}
        return {**own, **(self.trunk.results if self.trunk else {})}


def policy_files(settings: Settings, version: PolicyVersion) -> ModelFiles:
    """Raises PolicyFilesMissing where the installation's rule removed the weights."""
    path = policy_path(settings, version)
    if version.weights_removed_at is not None:
        raise PolicyFilesMissing(version.number, removed(version.weights_removed_at))
    if not version.source.startswith(ROUNDS_PREFIX):
        return ModelFiles(path)
    return ModelFiles(path, version.source.removeprefix(ROUNDS_PREFIX), version.manifest_sha256)


def reward_model_files(session: Session, settings: Settings, version: RewardModelVersion) -> ModelFiles:
    """Its stage's policy is what its adapters, if any, were fitted on."""
    policy_id = session.get_one(Stage, version.stage_id).parents.get("policy_id")
    if version.weights_removed_at is not None:
        raise RewardModelFilesRemoved(version.number, removed(version.weights_removed_at))
    trunk = None if policy_id is None else policy_files(settings, session.get_one(PolicyVersion, policy_id))
    return ModelFiles(str(settings.artifacts / version.source), version.source, version.manifest_sha256, trunk)


def removed(at: datetime) -> str:
    """Why weights are not there, and the way back."""
    way_back = "`podium artifacts bring` brings them back, from a backup or from what `podium reproduce` made again"
    return f"its weights were removed on {at:%Y-%m-%d} by the installation's rule; {way_back}"


def policy_path(settings: Settings, version: PolicyVersion) -> str:
    """What the version opens with: an absolute folder, or a hub name."""
    if version.source == STARTER_SOURCE:
        return str(STARTER / "policy")
    if version.source.startswith(ROUNDS_PREFIX):
        return str(settings.artifacts / version.source.removeprefix(ROUNDS_PREFIX))
    return version.source


def import_first_version(
    session: Session, project: Project, policy: InspectedPolicy, *, now: datetime
) -> PolicyVersion:
    """The version a project starts from: current at once; rounds start from it until an SFT stage makes a better."""
    version = PolicyVersion(
        project_id=project.id,
        number=1,
        state=PolicyState.CURRENT,
        recipe="imported",
        source=policy.source,
        is_sft=True,
        num_parameters=policy.num_parameters,
        context_tokens=policy.context_tokens,
        tokenizer_sha256=policy.tokenizer_sha256,
        manifest_sha256=policy.manifest_sha256,
        facts=policy.facts,
        created_at=now,
        promoted_at=now,
    )
    session.add(version)
    session.flush()
    return version


def get_version(session: Session, project: Project, number: int) -> PolicyVersion:
    """Raises PolicyVersionNotFound."""
    version = session.scalar(
        select(PolicyVersion).where(PolicyVersion.project_id == project.id, PolicyVersion.number == number)
    )
    if version is None:
        raise PolicyVersionNotFound(number)
    return version


def versions_of(session: Session, project: Project) -> list[PolicyVersion]:
    """Every version of the project, the first one first."""
    return list(
        session.scalars(
            select(PolicyVersion).where(PolicyVersion.project_id == project.id).order_by(PolicyVersion.number)
        )
    )


def current_version(session: Session, project: Project) -> PolicyVersion:
    """The version whose completions labelers see."""
    return session.scalars(
        select(PolicyVersion).where(PolicyVersion.project_id == project.id, PolicyVersion.state == PolicyState.CURRENT)
    ).one()


def sft_policy_of(session: Session, version: PolicyVersion) -> PolicyVersion:
    """What a round starts from when `version` is current: the version, or the nearest SFT policy it came from."""
    while not version.is_sft:
        parent = session.get_one(PolicyVersion, version.parent_id)
        version = parent
    return version

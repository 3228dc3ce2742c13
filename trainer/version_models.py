"""The models that a sampler has open, by the versions that the database names.

One of the modules here that touch the database. What was made on another machine is fetched from the artifact store.
"""

from app.artifact_errors import ArtifactError
from app.artifacts import Store
from app.db import SessionFactory
from app.policies.models import PolicyVersion, RewardModelVersion
from app.policies.service import ModelFiles, policy_files, reward_model_files
from app.settings import Settings
from trainer.completions_server import CompletionsServer
from trainer.doubts import Doubts
from trainer.errors import StageError
from trainer.models import RewardModel
from trainer.open_models import OpenModels, OpenPolicy


class VersionModels:
    """Opens the files of a version, on the device that is sampled on."""

    def __init__(self, settings: Settings, store: Store | None, server: CompletionsServer | None) -> None:
        self._settings, self._store = settings, store
        self._open = OpenModels(self._path_of, server)

    @property
    def device(self) -> str:
        return self._open.device

    def move_to(self, device: str) -> None:
        """Open what is asked for next on this device."""
        self._open.move_to(device)

    def policy(self, version: PolicyVersion) -> OpenPolicy:
        return self._open.policies.get(policy_files(self._settings, version))

    def policy_of(self, version_id: int) -> OpenPolicy:
        with SessionFactory() as session:
            version = session.get_one(PolicyVersion, version_id)
        return self.policy(version)

    def reward_model(self, version_id: int) -> RewardModel:
        return self._open.reward_models.get(self._reward_model_files(version_id))

    def ensemble(self, version_id: int) -> Doubts:
        """A reward model that says how far its members disagree."""
        return self._open.ensembles.get(self._reward_model_files(version_id))

    def _reward_model_files(self, version_id: int) -> ModelFiles:
        with SessionFactory() as session:
            return reward_model_files(session, self._settings, session.get_one(RewardModelVersion, version_id))

    def _path_of(self, files: ModelFiles) -> str:
        """Where the files are on this machine, fetched if they were made on another. Raises ModelNotFetched."""
        if self._store is not None:
            try:
                for folder, manifest_sha256 in files.results.items():
                    self._store.fetch(folder, manifest_sha256=manifest_sha256)
            except ArtifactError as error:
                raise ModelNotFetched(error) from error
        return files.path


class ModelNotFetched(StageError):
    """A model that was made elsewhere cannot be had from the artifact store."""

    code = "model_not_fetched"

    def __init__(self, error: ArtifactError) -> None:
        super().__init__(error.message, advice=error.advice)

"""Stages by their content: the same recipe, settings, models and data lie in the same folder and run once.

So arms share what they have in common, a run that was killed goes on from its last checkpoint, and one that is started
again finds what is finished.
"""

import dataclasses
import hashlib
import importlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainer.recipes.program import EXIT_LOCKED, Interrupt, run_in_folder
from trainer.round_folder import DemonstrationRow, PromptRow, RankingRow, RoundFolder, Stage
from trainer.settings import RecipeConfig, Value, recipe_config

RECIPE_FUNCTIONS = {
    "sft": "fine_tune",
    "reward": "fit_reward_model",
    "ppo": "run_ppo",
    "grpo": "run_grpo",
    "rejection": "improve_by_rejection",
}

LOCK_WAIT_S = 5.0


class StageFailed(Exception):
    """A recipe ended with an error of its own; the message carries its words."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageInputs:
    """What a stage is made from."""

    recipe: str
    settings: Mapping[str, Value]  # over the preset `small`
    seed: int
    models: Mapping[str, str]
    prompts: Sequence[PromptRow]
    rankings: Sequence[RankingRow] = ()
    demonstrations: Sequence[DemonstrationRow] = ()

    def config(self) -> RecipeConfig:
        return recipe_config(self.recipe, "small", self.settings)

    def name(self) -> str:
        """A digest: models by their folders' names, which are digests of what they were made from."""
        content = {
            **vars(self),
            "settings": vars(self.config()),  # a default that changes makes another stage
            "models": {name: Path(path).parent.name for name, path in self.models.items()},
        }
        text = json.dumps(content, sort_keys=True, default=vars)
        return f"{self.recipe}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def run_stage(work: Path, inputs: StageInputs) -> Path:
    """The result folder, now or from before. Raises StageFailed."""
    folder = RoundFolder(work / inputs.name())
    if not (folder.path / "stage.json").exists():
        write(folder, inputs)
    module = importlib.import_module(f"trainer.recipes.{inputs.recipe}")
    recipe = getattr(module, RECIPE_FUNCTIONS[inputs.recipe])
    while (status := run_in_folder(recipe, folder, Interrupt())) == EXIT_LOCKED:
        time.sleep(LOCK_WAIT_S)  # another arm runs the very same stage
    if status:
        raise StageFailed((folder.path / "error.json").read_text(encoding="utf-8"))
    shutil.rmtree(folder.checkpoints, ignore_errors=True)  # finished: the result stands, and disks are small
    return folder.result


def write(folder: RoundFolder, inputs: StageInputs) -> None:
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.write_prompts(inputs.prompts)
    folder.write_demonstrations(inputs.demonstrations)
    if inputs.rankings:
        folder.write_rankings(inputs.rankings)
    folder.write_stage(
        Stage(
            recipe=inputs.recipe,
            config=inputs.config(),
            preset="small",
            seed=inputs.seed,
            num_threads=1,
            device="cpu",
            models=inputs.models,
        )
    )

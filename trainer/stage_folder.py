"""What the worker puts into a stage's folder beside its tables, takes over from an earlier attempt, reads at its end.

One of the modules here that know the app: the stage as the database has it becomes the stage that a recipe reads.
"""

import dataclasses
from collections.abc import Collection

from app.rounds.inputs import StageInputs
from app.rounds.models import Recipe
from app.rounds.results import StageResult
from trainer.errors import StageError
from trainer.inspect_policy import describe_policy
from trainer.round_folder import MANIFEST, RoundFolder, file_sha256, read_result, read_table
from trainer.round_folder import Stage as StageFile
from trainer.score_table import SCORES_FILE
from trainer.settings import SAME_RESULT, recipe_config
from trainer.versions import code_version, library_versions


class OtherSettings(StageError):
    """The stage's folder holds what was computed with other settings."""

    code = "other_settings"

    def __init__(self, folder: str, names: Collection[str]) -> None:
        super().__init__(
            f"{folder} holds checkpoints made with other settings ({', '.join(sorted(names))})",
            advice="retry the stage with changed settings and let it begin anew: that has a folder of its own",
        )


def stage_file(inputs: StageInputs, *, device: str, num_threads: int) -> StageFile:
    """All that a recipe is told, and what of this machine its numbers depend on."""
    return StageFile(
        recipe=inputs.recipe.value,
        config=recipe_config(inputs.recipe.value, inputs.preset, inputs.configuration),
        preset=inputs.preset,
        seed=inputs.seed,
        num_threads=num_threads,
        device=device,
        models=inputs.models,
        parents=inputs.parents,
        snapshot_sha256=inputs.snapshot_sha256,
        code_version=code_version(),
        library_versions=library_versions(),
    )


def take_over(folder: RoundFolder, inputs: StageInputs, *, device: str) -> str | None:
    """Go on with what an earlier attempt began, on what this machine has; what there is to tell of it.

    Numbers may differ in their last bits on another device. Settings may differ where a checkpoint stays what it is.
    Raises OtherSettings where it does not.
    """
    stage = folder.read_stage()
    config = recipe_config(inputs.recipe.value, inputs.preset, inputs.configuration)
    before, after = dataclasses.asdict(stage.config), dataclasses.asdict(config)
    changed = {name for name, value in after.items() if value != before[name]}
    if others := changed - SAME_RESULT:
        raise OtherSettings(inputs.folder, others)
    if stage.device == device and not changed:
        return None
    folder.write_stage(dataclasses.replace(stage, device=device, config=config))
    return None if stage.device == device else f"Goes on on {device}; it was begun on {stage.device}."


def read_stage_result(recipe: Recipe, folder: RoundFolder) -> StageResult:
    """What a finished recipe left, its files compared with their manifest. Raises BrokenRoundFolder."""
    result = read_result(folder.result)
    figures = {**result.pop("figures"), **result}
    manifest_sha256 = file_sha256(folder.result / MANIFEST)
    if recipe == Recipe.EVALUATE:
        completions = read_table(folder.result / "completions.parquet")
        return StageResult(figures=figures, manifest_sha256=manifest_sha256, completions=completions)
    if recipe == Recipe.REWARD:
        scores = folder.result / SCORES_FILE
        rows = read_table(scores) if scores.is_file() else []  # one that an earlier version of the recipe left has none
        return StageResult(figures=figures, manifest_sha256=manifest_sha256, scores=rows)
    policy = describe_policy(folder.result)
    return StageResult(
        figures=figures,
        manifest_sha256=manifest_sha256,
        num_parameters=policy.num_parameters,
        context_tokens=policy.context_tokens,
        tokenizer_sha256=policy.tokenizer_sha256,
    )

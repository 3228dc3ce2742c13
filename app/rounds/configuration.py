"""The settings of a round's stages: a preset, what the project decides, and what was set otherwise. Reads no table."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from app.policies.models import PolicyVersion
from app.projects.models import Project
from app.rounds.errors import BadRoundSetting
from app.rounds.models import Recipe
from trainer.settings import ConfigError, Preset, Value, describe, preset_for, recipe_config

Overrides = Mapping[str, Mapping[str, Value]]  # recipe -> setting -> value, as text or as itself


def preset_of(version: PolicyVersion) -> Preset:
    """The preset that holds for a policy of this size."""
    return preset_for(version.num_parameters) if version.num_parameters is not None else "paper"


def configure(
    project: Project, recipes: Sequence[Recipe], preset: Preset, overrides: Overrides
) -> dict[Recipe, dict[str, Any]]:
    """Every setting of every stage. Raises BadRoundSetting with all that is wrong, not just the first."""
    problems = {
        f"{recipe}.{name}": "belongs to a stage that was not chosen"
        for recipe, values in overrides.items()
        if recipe not in recipes
        for name in values
    }
    configurations = {}
    for recipe in recipes:
        given = {**project_defaults(project, recipe), **overrides.get(recipe, {})}
        wrong = setting_problems(recipe, preset, given)
        problems |= wrong
        if not wrong:
            configurations[recipe] = dataclasses.asdict(recipe_config(recipe, preset, given))
    if problems:
        raise BadRoundSetting(problems)
    return configurations


def project_defaults(project: Project, recipe: str) -> dict[str, Value]:
    """What the project decides for a recipe: completions are as long in training as on the slates."""
    known = {setting.name for setting in describe(recipe)}
    return {"max_completion_tokens": project.max_completion_tokens} if "max_completion_tokens" in known else {}


def setting_problems(recipe: str, preset: str, given: Mapping[str, Value]) -> dict[str, str]:
    """What is wrong with the settings, by "recipe.setting": each alone first, then the rules between them."""
    problems = {}
    for name, value in given.items():
        try:
            recipe_config(recipe, preset, {name: value})
        except ConfigError as error:
            if error.setting == f"{recipe}.{name}" and not is_rule_between_settings(error):
                problems[error.setting] = error.rule
    if not problems:
        try:
            recipe_config(recipe, preset, given)
        except ConfigError as error:
            problems[error.setting] = error.rule
    return problems


def is_rule_between_settings(error: ConfigError) -> bool:
    """Such a rule names the other setting with its value, which may be given too."""
    return "=" in error.rule

"""The recipes by name: their settings made from a preset and from what was set otherwise, and described for a form."""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from trainer.settings.fields import ConfigError, Preset, RecipeConfig, Value, article
from trainer.settings.fitted import RewardConfig, SFTConfig
from trainer.settings.scored import EvaluateConfig, GRPOConfig, PPOConfig, RejectionConfig, ScoreConfig

SMALL_MODEL_PARAMETERS = 100_000_000  # `small` holds below this many parameters

# Settings that change how a stage computes and not what: it may go on from a checkpoint made with other values of them.
SAME_RESULT = frozenset({"micro_batch_tokens", "gradient_checkpointing", "checkpoint_every_steps"})

RECIPES: dict[str, type[RecipeConfig]] = {
    config.recipe: config
    for config in (SFTConfig, RewardConfig, PPOConfig, GRPOConfig, RejectionConfig, EvaluateConfig, ScoreConfig)
}


def config_class_of(recipe: str) -> type[RecipeConfig]:
    """Raises ConfigError if there is no such recipe."""
    if recipe not in RECIPES:
        raise ConfigError("recipe", recipe, f"must be one of {', '.join(RECIPES)}")
    return RECIPES[recipe]


def preset_for(num_parameters: int) -> Preset:
    """The preset that holds for a model of this size: `small` was measured on the starter policy."""
    return "small" if num_parameters < SMALL_MODEL_PARAMETERS else "paper"


def recipe_config(recipe: str, preset: str, overrides: Mapping[str, str | int | float | bool]) -> RecipeConfig:
    """The settings of a recipe: a preset, and what was set otherwise.

    overrides: setting (without the recipe's name) -> value, as text or as itself.
    Raises ConfigError for an unknown recipe, preset or setting, or a value that breaks its rule.
    """
    config_class = config_class_of(recipe)
    if preset not in ("small", "paper"):
        raise ConfigError("preset", preset, "must be one of small, paper")
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    values = {name: field.metadata["presets"][preset] for name, field in fields.items()}
    for name, given in overrides.items():
        if name not in fields:
            raise ConfigError(f"{recipe}.{name}", given, f"is no setting of {recipe}{suggestion(name, fields)}")
        values[name] = read_value(f"{recipe}.{name}", type(fields[name].default), given)
    return config_class(**values)


def suggestion(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def read_value(name: str, kind: type, given: str | int | float | bool) -> Value:
    """A value in the field's type; numbers and texts are read, nothing is rounded. Raises ConfigError."""
    if isinstance(given, str):
        given = given.strip()
    if kind is str:
        return str(given)
    if kind is bool:
        known = {
            "true": True,
            "yes": True,
            "on": True,
            "1": True,
            "false": False,
            "no": False,
            "off": False,
            "0": False,
        }
        if str(given).lower() not in known:
            raise ConfigError(name, given, "must be true or false")
        return known[str(given).lower()]
    try:
        number = float(given)
    except ValueError:
        raise ConfigError(name, given, f"must be {article(kind.__name__)}") from None
    if kind is float:
        return number
    if not number.is_integer():
        raise ConfigError(name, given, "must be a whole number")
    return int(number)


@dataclass(frozen=True, kw_only=True)
class SettingDescription:
    """One setting as a form shows it. kind: int, float, bool or choice."""

    name: str
    kind: Literal["int", "float", "bool", "choice"]
    help: str
    paper: str
    minimum: float | None
    maximum: float | None
    above: float | None
    choices: tuple[str, ...]
    presets: Mapping[str, Value]  # preset -> the value it gives


def describe(recipe: str) -> list[SettingDescription]:
    """All settings of a recipe, in the order of its form. Raises ConfigError if there is no such recipe."""
    return [describe_field(field) for field in dataclasses.fields(config_class_of(recipe))]


def describe_field(field: "dataclasses.Field[Any]") -> SettingDescription:
    kind = "choice" if field.metadata["choices"] else type(field.default).__name__
    return SettingDescription(
        name=field.name, kind=cast(Literal["int", "float", "bool", "choice"], kind), **field.metadata
    )


def parse_assignments(assignments: Iterable[str]) -> dict[str, dict[str, str]]:
    """`["reward.learning_rate=1e-4", ...]` as recipe -> setting -> value, not yet checked against the recipe.

    Raises ConfigError for what is not of the form recipe.setting=value.
    """
    overrides: dict[str, dict[str, str]] = {}
    for assignment in assignments:
        left, equals, value = assignment.partition("=")
        recipe, dot, name = left.strip().partition(".")
        if not (equals and dot and name):
            raise ConfigError("--set", assignment, "must read recipe.setting=value")
        config_class_of(recipe)
        overrides.setdefault(recipe, {})[name] = value.strip()
    return overrides

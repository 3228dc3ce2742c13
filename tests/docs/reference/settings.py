"""docs/reference/settings.md: what an installation and what each recipe may be told."""

from typing import Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from app.settings import Settings
from tests.docs.reference.tables import parts, table
from trainer.settings import RECIPES, SettingDescription, describe

TITLES = {
    "sft": "learn from demonstrations",
    "reward": "fit a reward model to rankings",
    "ppo": "improve the policy against the reward model",
    "grpo": "the same, by comparing completions of one prompt",
    "rejection": "learn from the best of n completions",
    "evaluate": "judge the candidate on test prompts",
    "score": "score a snapshot with a reward model",
}


def of_installation() -> str:
    return table(
        ("variable", "kind", "default", "meaning"),
        [
            (f"`{variable_of(name, field)}`", kind_of(field), default_of(name, field), field.description or "")
            for name, field in Settings.model_fields.items()
        ],
    )


def of_recipes() -> str:
    return parts(part for recipe in RECIPES for part in (f"### `{recipe}`: {TITLES[recipe]}", table_of(recipe)))


def variable_of(name: str, field: FieldInfo) -> str:
    return str(field.validation_alias or f"PODIUM_{name}".upper())


def kind_of(field: FieldInfo) -> str:
    kinds = [kind for kind in get_args(field.annotation) or (field.annotation,) if kind is not type(None)]
    if get_origin(field.annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in kinds)
    if SecretStr in kinds:
        return "secret"
    limits = {type(limit).__name__: limit for limit in field.metadata}
    least = f" from {limits['Ge'].ge}" if "Ge" in limits else ""
    most = f" to {limits['Le'].le}" if "Le" in limits else ""
    return (
        {"int": "whole number", "str": "text", "Path": "path", "bool": "yes or no", "float": "number"}[
            kinds[0].__name__
        ]
        + least
        + most
    )


def default_of(name: str, field: FieldInfo) -> str:
    if name == "home":
        return "the user's data folder: `~/.local/share/podium`"
    return "" if field.default in (None, "") else f"`{field.default}`"


def table_of(recipe: str) -> str:
    return table(
        ("setting", "`small`", "`paper`", "allowed", "meaning"),
        [
            (f"`{one.name}`", f"`{one.presets['small']}`", f"`{one.presets['paper']}`", allowed(one), one.help)
            for one in describe(recipe)
        ],
    )


def allowed(one: SettingDescription) -> str:
    if one.choices:
        return ", ".join(f"`{choice}`" for choice in one.choices)
    if one.kind == "bool":
        return "`true`, `false`"
    least = (
        f"above {one.above:g}" if one.above is not None else f"from {one.minimum:g}" if one.minimum is not None else ""
    )
    most = f"to {one.maximum:g}" if one.maximum is not None else ""
    return f"{least} {most}".strip()

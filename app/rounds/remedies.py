"""What a failed stage's advice comes to on the form: the setting it names, and the value to try next. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.rounds.forms import as_text
from app.rounds.models import Recipe
from trainer.settings import SAME_RESULT, ConfigError, SettingDescription, Value, describe, recipe_config

# "lower ppo.micro_batch_tokens=4096", "set ppo.tuning=lora", "raise ppo.kl_budget", "a lower learning rate"
ADVICE = re.compile(r"\b(lower|raise|set) (?:the )?(?:(\w+)\.)?(\w+(?: rate)?)(?:=([\w.\-]+))?")
FACTOR = {"lower": 0.5, "raise": 2}


@dataclass(frozen=True)
class Remedy:
    """One change that the advice names. value: as the form has it. goes_on: from the last checkpoint."""

    recipe: Recipe
    name: str
    value: str
    goes_on: bool

    @property
    def field(self) -> str:
        return f"{self.recipe}.{self.name}"


def remedies(recipe: Recipe, preset: str, configuration: Mapping[str, Any], advice: str) -> list[Remedy]:
    """Every change of the stage's own settings that the advice names and that its rules allow."""
    known = {setting.name: setting for setting in describe(recipe)}
    found = []
    for verb, of, named, given in ADVICE.findall(advice):
        name = named.replace(" ", "_")
        if of not in ("", recipe) or name not in known or name not in configuration:
            continue
        value = next_value(known[name], verb, given, configuration[name])
        if value is not None and is_allowed(recipe, preset, configuration, name, value):
            found.append(Remedy(recipe, name, as_text(value), name in SAME_RESULT))
    return found


def next_value(setting: SettingDescription, verb: str, given: str, was: Value) -> Value | None:
    """The value to try: the one that is named, or half or twice what it was."""
    if verb == "set":
        return given or None
    if isinstance(was, bool) or not isinstance(was, int | float):
        return None
    value = was * FACTOR[verb]
    return max(1, int(value)) if isinstance(was, int) else value


def is_allowed(recipe: Recipe, preset: str, configuration: Mapping[str, Any], name: str, value: Value) -> bool:
    """Whether the stage may run with it: it differs from what failed, and breaks no rule."""
    try:
        config = recipe_config(recipe, preset, {**configuration, name: value})
    except ConfigError:
        return False
    return bool(getattr(config, name) != configuration[name])

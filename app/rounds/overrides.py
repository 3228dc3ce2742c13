"""Settings given on a command line: `--set ppo.kl_coef=0.02`."""

from collections.abc import Iterable

from app.rounds.errors import BadRoundSetting
from trainer.settings import Value


def read_overrides(given: Iterable[str]) -> dict[str, dict[str, Value]]:
    """Recipe -> setting -> value, as text.  Raises BadRoundSetting for what has not the form RECIPE.SETTING=VALUE."""
    overrides: dict[str, dict[str, Value]] = {}
    for text in given:
        name, equals, value = text.partition("=")
        recipe, dot, setting = name.strip().partition(".")
        if not (equals and dot and recipe and setting):
            raise BadRoundSetting({text: "must be RECIPE.SETTING=VALUE, for example ppo.kl_coef=0.02"})
        overrides.setdefault(recipe, {})[setting] = value.strip()
    return overrides

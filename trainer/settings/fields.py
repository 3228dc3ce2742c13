"""What a setting is: a dataclass field that carries its help, its source and its limits, and what checks it."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

Value = int | float | bool | str
Preset = Literal["small", "paper"]


class ConfigError(ValueError):
    """A setting is unknown, cannot be read, or breaks its rule."""

    code = "bad_setting"

    def __init__(self, setting: str, value: object, rule: str) -> None:
        super().__init__(f"{setting}={value} {rule}")
        self.setting, self.value, self.rule = setting, value, rule


def setting(
    default: Value,
    help: str,
    *,
    small: Value | None = None,
    paper: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A dataclass field for one setting.

    default: the value of the preset `paper`.  small: the value of the preset `small`, where it differs.
    paper: where the default comes from.  minimum, maximum: inclusive limits.  above: an exclusive lower limit.
    """
    metadata = {
        "help": help,
        "paper": paper,
        "minimum": minimum,
        "maximum": maximum,
        "above": above,
        "choices": choices,
        "presets": {"paper": default, "small": default if small is None else small},
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class RecipeConfig:
    """What every recipe's settings share: they are checked once, when they are made."""

    recipe: ClassVar[str]  # its name

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_value(f"{self.recipe}.{field.name}", field, getattr(self, field.name))


def check_value(name: str, field: "dataclasses.Field[Any]", value: object) -> None:
    """Raises ConfigError when the value has the wrong type or lies outside the field's limits."""
    limits = field.metadata
    if not isinstance(value, field.type if isinstance(field.type, type) else type(field.default)):
        raise ConfigError(name, value, f"must be {article(type(field.default).__name__)}")
    if limits["choices"] and value not in limits["choices"]:
        raise ConfigError(name, value, f"must be one of {', '.join(limits['choices'])}")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    if not math.isfinite(value):
        raise ConfigError(name, value, "must be a finite number")
    if limits["minimum"] is not None and value < limits["minimum"]:
        raise ConfigError(name, value, f"must be at least {limits['minimum']:g}")
    if limits["above"] is not None and value <= limits["above"]:
        raise ConfigError(name, value, f"must be above {limits['above']:g}")
    if limits["maximum"] is not None and value > limits["maximum"]:
        raise ConfigError(name, value, f"must be at most {limits['maximum']:g}")


def article(kind: str) -> str:
    return {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}[kind]

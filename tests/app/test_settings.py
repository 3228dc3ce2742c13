"""The operator's table of settings is what the code reads: every one, with its default, and no other."""

import re
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from app.settings import Settings

TABLE = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
# The recipe reads them from its own environment: where one of them runs, there may be no Podium but its folder.
READ_BY_RECIPES = {"PODIUM_ROLLOUTS_URL": "", "PODIUM_ROLLOUTS_KEY": ""}
# What an unset one comes to is found when the process starts.
IN_WORDS = {
    "DATABASE_URL": "the embedded Postgres",
    "PODIUM_HOME": "`~/.local/share/podium`",
    "PODIUM_ARTIFACTS": "`$PODIUM_HOME/artifacts`",
}


def documented() -> dict[str, str]:
    section = TABLE.read_text().partition("\n## Settings\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `([A-Z_]+)` \| ([^|]*?) ?\| .+ \|$", section, re.MULTILINE))


def variable(name: str, field: FieldInfo) -> str:
    return str(field.validation_alias or f"PODIUM_{name.upper()}")


def default(field: FieldInfo) -> str:
    value: Any = field.default
    if value in (None, "", PydanticUndefined):
        return ""
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def test_the_table_of_settings_is_the_settings():
    expected = {variable(name, field): default(field) for name, field in Settings.model_fields.items()}
    assert documented() == expected | IN_WORDS | READ_BY_RECIPES


def test_every_setting_says_what_it_is():
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []

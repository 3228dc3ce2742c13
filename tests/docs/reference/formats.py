"""docs/reference/formats.md: what files hold, with a line of each that a test has just written or read."""

import json
import re
from collections.abc import Mapping
from typing import Any

from app.datasets.export_choices import OPTIONS
from app.datasets.export_examples import DESCRIPTIONS
from tests.docs.pages import ROOT
from tests.docs.reference.tables import parts

PAGE = ROOT / "docs" / "reference" / "formats.md"


def all_exported(written: Mapping[str, str]) -> str:
    """written: export format -> one line of it."""
    return parts(part for name in OPTIONS for part in exported(name, written[name]))


def exported(name: str, line: str) -> list[str]:
    options = ", ".join(f"`{option}`" for option in ("split", *OPTIONS[name]))
    return [f"### {name}", f"{DESCRIPTIONS[name]} Options: {options}.", f"```json\n{line}\n```"]


def records() -> dict[str, dict[str, Any]]:
    """The examples of what is imported beside rankings: prompts, demonstrations."""
    _, _, imported = PAGE.read_text(encoding="utf-8").partition("## Imported: prompts and demonstrations")
    return {name: json.loads(line) for name, line in re.findall(r"### (\w+)\n\n```json\n(.*)\n```", imported)}


def told_formats() -> set[str]:
    """Formats of rankings that the page leads to."""
    return set(re.findall(r"^\| `(\w+)` \|.*imports\.md#", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE))

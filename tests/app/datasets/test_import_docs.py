"""Every example of docs/imports.md is what it says it is, and becomes what the page says it becomes."""

import io
import re
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from app.datasets.imports import import_file
from app.datasets.readers import RANKING_FORMATS
from app.projects.models import Project
from tests.app.datasets.conftest import NOW

PAGE = (Path(__file__).parents[3] / "docs" / "imports.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"### `(\w+)`\n.*?```json\n(.*?)\n```\n\nbecomes (.*?)\n", PAGE, flags=re.DOTALL)


def test_the_page_has_an_example_of_each_format() -> None:
    assert {name for name, _, _ in EXAMPLES} == set(RANKING_FORMATS)


@pytest.mark.parametrize(("name", "record", "becomes"), EXAMPLES, ids=[name for name, _, _ in EXAMPLES])
def test_an_example_is_found_to_be_its_format_and_becomes_what_is_said(
    session: Session, garden: Project, name: str, record: str, becomes: str
) -> None:
    imported = import_file(session, garden, "rankings", io.BytesIO(record.encode()), "example.jsonl", now=NOW)
    assert (imported.format, imported.summary) == (name, becomes)

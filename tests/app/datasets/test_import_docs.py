"""Every example of docs/imports.md is what it says it is, and becomes what the page says it becomes."""

import io
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from app.datasets.errors import BadRecord
from app.datasets.imports import import_file
from app.datasets.readers import RANKING_FORMATS, ranking_format_of
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


WRONG: list[Any] = [
    None,
    True,
    -1,
    2.5,
    2**70,
    1e400,
    "",
    "x",
    [],
    [[1]],
    [None, None],
    {},
    {"a": [1]},
    [{"a": 1}, {"a": 2}],
]


def spoiled(value: Any, wrong: Any) -> Iterator[Any]:
    """The value with each of its parts in turn, and itself, replaced by the wrong one."""
    yield wrong
    places = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for place, part in places:
        for other in spoiled(part, wrong):
            copy = value.copy()
            copy[place] = other
            yield copy


@pytest.mark.parametrize(("name", "record"), [example[:2] for example in EXAMPLES], ids=[name for name, *_ in EXAMPLES])
def test_a_record_that_is_spoiled_anywhere_is_read_or_refused_and_breaks_nothing(name: str, record: str) -> None:
    full = json.loads(record) | {"ranking_id": "r", "order_shown": [0, 1], "is_pick": False, "margin": 0, "labels": []}
    full["extra"] = {"ranking_id": "r", "tie": False, "confidence": 1, "strength": "better"}
    for wrong in WRONG:
        for other in spoiled(full, wrong):
            if isinstance(other, dict):  # the files' readers give nothing else
                for read in (RANKING_FORMATS[name], ranking_format_of):
                    with suppress(BadRecord):
                        read(other)

"""Files that are not what they should be: named by line, with nothing of them imported."""

import gzip
import io
import json
import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.datasets import files, ranking_imports
from app.datasets.errors import ImportRefused
from app.datasets.imports import import_file
from app.labeling.models import Completion, Ranking, Slate
from app.projects.models import Project
from app.prompts.models import Prompt
from tests.app.datasets.conftest import NOW

GOOD = {"prompt": "Name a tree.", "chosen": "Oak", "rejected": "Car"}
DEEP = "[" * 100_000


def lines(*records: Any) -> bytes:
    return "".join(f"{json.dumps(record)}\n" for record in records).encode()


def packed(num: int) -> bytes:
    """Records that do not pack well, so that half the bytes are half the records."""
    return gzip.compress(lines(*(GOOD | {"prompt": f"Name tree {number**9}."} for number in range(num))), mtime=0)


KWISE = {"id": "s", "prompt": "Name a tree.", "completions": [{"text": "Oak", "rank": 1}, {"text": "Car", "rank": 2}]}
OTHER_WAY = [{"text": "Oak", "rank": 2}, {"text": "Car", "rank": 1}]


@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "photo.png", "line 1: byte 0x89"),
        (b"Name a tree.\n", "prompts.txt", "line 1: this is no ranking we know"),
        (lines(GOOD) + '{"prompt": "Caf\xe9"}'.encode("latin-1"), "pairs.jsonl", "line 2: byte 0xe9"),
        (packed(2000)[: len(packed(2000)) // 2], "pairs.jsonl.gz", "gzip data is damaged here"),
        (lines(GOOD) + lines(GOOD | {"chosen": "x" * 2000}), "pairs.jsonl", "line 2: longer than"),
        (lines(GOOD) + b'{"prompt": ' + DEEP.encode(), "pairs.jsonl", "line 2: not JSON we can read"),
        (json.dumps([GOOD, GOOD]).encode(), "pairs.json", "write one object a line"),
        (lines(KWISE, KWISE | {"completions": OTHER_WAY}), "kwise.jsonl", "line 2: its labeler has ranked this slate"),
        ("\ufeffprompt,chosen,rejected\na,b,c\nd,e\n".encode(), "pairs.csv", "line 3: 2 columns where the first"),
    ],
    ids=["picture", "prompts", "latin 1", "half a gz", "long line", "deep", "a list", "contradiction", "csv"],
)
def test_a_bad_file_is_refused_by_line_with_the_next_move(
    session: Session,
    garden: Project,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    name: str,
    reason: str,
) -> None:
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 1000 if "longer" in reason else files.MAX_LINE_BYTES)
    with pytest.raises(ImportRefused, match=reason) as caught:
        import_file(session, garden, "rankings", io.BytesIO(content), name, now=NOW)
    assert str(caught.value).endswith("Nothing was imported; correct the file and import it again.")
    assert {session.scalar(select(func.count()).select_from(table)) for table in (Prompt, Slate, Ranking)} == {0}


def test_a_csv_with_a_byte_order_mark_is_read(session: Session, garden: Project) -> None:
    content = "\ufeffprompt,chosen,rejected\nName a tree.,Oak,Car\n".encode()
    assert import_file(session, garden, "rankings", io.BytesIO(content), "pairs.csv", now=NOW).format == "trl"


def test_judgements_in_a_circle_are_kept_pair_by_pair(session: Session, garden: Project) -> None:
    judged = [{"a": 1, "b": 2, "preferred": 1}, {"a": 2, "b": 3, "preferred": 2}, {"a": 1, "b": 3, "preferred": 3}]
    record = {"question": "Name a tree.", "completions": ["Oak", "Elm", "Ash"], "pairwise": judged}
    report = import_file(session, garden, "rankings", io.BytesIO(lines(record)), "qa.jsonl", now=NOW).report
    assert (report["k"], report["counts"]["comparisons"], report["lines"]["fits_no_ordering"]) == ({"2": 3}, 3, [1])


def test_more_records_without_an_id_than_can_be_told_apart_are_refused(
    session: Session, garden: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking_imports, "MAX_WITHOUT_IDS", 3)
    some = [GOOD | {"prompt": f"Name tree {number}."} for number in range(4)]
    with pytest.raises(ImportRefused, match=r"line 4: .*split it"):
        import_file(session, garden, "rankings", io.BytesIO(lines(*some)), "pairs.jsonl", now=NOW)
    named = [KWISE | {"id": f"s{number}"} for number in range(4)]
    report = import_file(session, garden, "rankings", io.BytesIO(lines(*named)), "kwise.jsonl", now=NOW).report
    assert report["counts"]["slates"] == 4


def test_numbers_that_are_none_are_no_facts_and_dates_are_kept_as_texts(session: Session, garden: Project) -> None:
    at = datetime(2026, 5, 4, tzinfo=UTC)
    facts = {"score": math.nan, "at": at, "price": Decimal("0.5"), "nested": [math.inf], "raw": b"Oak"}
    items = [{"text": "Oak", "rank": 1, "facts": facts}, {"text": "Car", "rank": 2, "facts": facts}]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([{"prompt": "Name a tree.", "completions": items}]), file)
    import_file(session, garden, "rankings", file, "kwise.parquet", now=NOW)
    (kept, _) = session.scalars(select(Completion.facts))
    assert kept == {"score": None, "at": str(at), "price": 0.5, "nested": [None], "raw": "Oak"}

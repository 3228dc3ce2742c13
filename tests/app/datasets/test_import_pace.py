"""What a long import costs does not grow with what it has brought so far."""

import io
import json

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.datasets.imports import import_file
from app.projects.models import Project
from tests.app.datasets.test_imports import NOW

PLANNED = (
    "SELECT relname, reltuples FROM pg_class WHERE relname IN ('ranking', 'ranking_item', 'slate', 'ranking_facts')"
)

FILLED = ("ranking", "ranking_item", "slate", "ranking_facts")


def pairs(num: int) -> bytes:
    return b"".join(
        json.dumps({"prompt": f"prompt {number}", "chosen": "yes", "rejected": "no"}).encode() + b"\n"
        for number in range(num)
    )


def test_the_planner_learns_of_tables_that_an_import_fills(session: Session, garden: Project) -> None:
    """It knows of no row when the import begins, and of none that is not committed unless somebody tells it."""
    session.execute(text("ANALYZE"))  # of empty tables
    import_file(session, garden, "rankings", io.BytesIO(pairs(2100)), "pairs.jsonl", now=NOW)
    known = {row.relname: row.reltuples for row in session.execute(text("SELECT relname, reltuples FROM pg_class"))}
    assert min(known[name] for name in FILLED) >= 2000

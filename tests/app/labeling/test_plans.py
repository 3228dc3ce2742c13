"""What labelers ask for many times a slate is answered from indexes, with plans that are made once for all values."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from app import db
from app.projects.models import Project
from tests.app.conftest import Person
from tests.app.labeling.conftest import MakeSlate, in_order, save, take
from tests.emptying import forget_sizes

TYPES = {timedelta: "interval", bytes: "bytea", int: "bigint"}  # where a statement itself names none
PARAMETER = re.compile(r"%\((\w+)\)s")


@pytest.fixture
def asked(session: Session) -> Iterator[dict[str, Any]]:
    """Every statement that the event loop's requests send, and what was bound."""
    statements: dict[str, Any] = {}

    def note(connection: Any, cursor: Any, statement: str, bound: Any, *arguments: Any) -> None:
        statements[statement] = bound

    engine = db.LoopSessionFactory.kw["bind"]
    event.listen(engine, "before_cursor_execute", note)
    yield statements
    event.remove(engine, "before_cursor_execute", note)


def plan(session: Session, statement: str, bound: dict[str, Any]) -> str:
    """How Postgres runs the statement whatever is bound, when it takes any index that there is over reading a table."""
    names = list(dict.fromkeys(PARAMETER.findall(statement)))
    numbered = PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", statement)
    connection = session.connection()
    for setting in ("plan_cache_mode = force_generic_plan", "enable_seqscan = off", "enable_bitmapscan = off"):
        connection.exec_driver_sql(f"SET LOCAL {setting}")
    types = ", ".join(TYPES.get(type(bound[name]), "unknown") for name in names)
    connection.exec_driver_sql(f"PREPARE asked{f'({types})' if names else ''} AS {numbered}")
    nothing = f"({', '.join(['NULL'] * len(names))})" if names else ""
    lines = connection.execute(text(f"EXPLAIN EXECUTE asked{nothing}")).scalars().all()
    connection.exec_driver_sql("DEALLOCATE asked")
    session.rollback()
    return "\n".join(lines)


@pytest.mark.parametrize("share", ["gold_share", "repeat_share"])
def test_no_statement_of_a_slates_requests_reads_a_whole_table(
    labeler: Person, project: Project, make_slate: MakeSlate, session: Session, asked: dict[str, Any], share: str
) -> None:
    project.gold_share, project.repeat_share = 0.0, 0.0
    setattr(project, share, 1.0)
    session.commit()
    make_slate()
    (lease,) = take(labeler, project)
    assert save(labeler, lease, 0, note="so far").status_code == 200
    assert labeler.post(f"/api/v1/leases/{lease['id']}/renewal").status_code == 200
    ranking = {"ranking_id": str(uuid4()), "ranks": in_order(lease)}
    assert labeler.post(f"/api/v1/leases/{lease['id']}/ranking", json=ranking).status_code == 201
    assert len(asked) >= 15
    forget_sizes(session.connection())
    session.commit()
    plans = [plan(session, statement, bound) for statement, bound in asked.items()]
    assert [found for found in plans if "Seq Scan" in found] == []

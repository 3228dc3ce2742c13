"""Pages that people have open all day ask the database for nothing that grows with the project, however large it is.

The tables here hold a few rows; the planner is told that they hold those of some years, and then says how it would run
what each page asks.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from app import db
from app.db import clock
from app.labeling.models import Demonstration, Lease, LeaseEnd
from app.labeling.queue import plan_slates
from app.people.service import audit
from app.projects.models import Project
from app.prompts.models import Split
from tests.app.conftest import Person
from tests.app.labeling.test_plans import plan
from tests.app.loop import make_prompts, make_slate, rank
from tests.emptying import forget_sizes

ROWS = {
    "prompt": 500_000,
    "slate": 1_500_000,
    "completion": 10_000_000,
    "lease": 1_000_000,
    "ranking": 1_000_000,
    "ranking_item": 6_500_000,
    "ranking_facts": 1_000_000,
    "demonstration": 20_000,
    "audit_event": 200_000,
}
READS_A_TABLE = re.compile(rf"Seq Scan on ({'|'.join(ROWS)})\b")
PAGES = [
    "/",
    "/projects/everyday",
    "/projects/everyday/live",
    "/projects/everyday/slates",
    "/projects/everyday/slates?state=done&kind=training",
    "/projects/everyday/prompts",
    "/projects/everyday/people",
    "/projects/everyday/policies",
    "/projects/everyday/policies/1",
    "/projects/everyday/rounds",
    "/projects/everyday/rounds/new",
    "/projects/everyday/quality/adjudication",
    "/projects/everyday/datasets/holds",
    "/projects/everyday/datasets/holds?ties=without&prompt_kinds=plain&without_flags=Hallucination",
    "/projects/everyday/policies/try-out?draw=true",
    "/projects/everyday/audit",
    "/projects/everyday/reward-models",
    "/api/v1/projects/everyday/prompts",
]
LABELERS_PAGES = ["/", "/projects/everyday/rank", "/projects/everyday/mine", "/projects/everyday/answer"]


@pytest.fixture
def asked(session: Session) -> Iterator[list[tuple[str, Any]]]:
    """Every statement that requests send, and what was bound."""
    statements: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, bound: Any, *arguments: Any) -> None:
        if statement.lstrip().startswith(("SELECT", "WITH")):
            statements.append((statement, bound))

    engines = [factory.kw["bind"] for factory in (db.SessionFactory, db.LoopSessionFactory)]
    for engine in engines:
        event.listen(engine, "before_cursor_execute", note)
    yield statements
    for engine in engines:
        event.remove(engine, "before_cursor_execute", note)


@pytest.fixture
def ranked(session: Session, project: Project) -> None:
    """A row in each of the tables: the planner knows that an empty one is empty, whatever it is told."""
    project.task_weights = {"rank": 1, "answer": 1}
    for prompt in make_prompts(session, project, Split.TRAIN, 2):
        ranking = rank(session, make_slate(session, prompt), [1, 2, 3, 4])
    at = ranking.submitted_at
    session.add(
        Lease(
            slate_id=ranking.slate_id,
            labeler_id=ranking.labeler_id,
            slot=1,
            order_shown=[],
            granted_at=at,
            expires_at=at,
            closed_at=at,
            end=LeaseEnd.EXPIRED,
        )
    )
    session.add(Demonstration(prompt_id=prompt.id, text="Like this."))
    audit(session, None, "project.create", f"project:{project.slug}", project_id=project.id)
    session.commit()


def plans(session: Session, statements: list[tuple[str, Any]]) -> Iterator[str]:
    """How Postgres would run each of them if the tables held ROWS."""
    connection = session.connection()
    forget_sizes(connection)
    for table, num in ROWS.items():
        told = f"'schemaname', 'public', 'relname', '{table}', 'relpages', 1, 'reltuples', {num}::real"
        connection.exec_driver_sql(f"SELECT pg_restore_relation_stats({told})")
    for statement, bound in statements:
        yield "\n".join(connection.exec_driver_sql(f"EXPLAIN {statement}", bound).scalars())
    session.rollback()


def whole_tables(session: Session, statements: list[tuple[str, Any]]) -> list[str]:
    """The plans that read a large table from end to end."""
    return [plan for plan in plans(session, statements) if READS_A_TABLE.search(plan)]


def whole_tables_of(
    person: Person, pages: list[str], session: Session, asked: list[tuple[str, Any]]
) -> dict[str, list[str]]:
    """The same by page; a page that reads none is not in it."""
    found = {}
    for page in pages:
        asked.clear()
        assert person.get(page).status_code == 200, page
        assert asked, page
        found[page] = whole_tables(session, list(asked))
    return {page: those for page, those in found.items() if those}


def test_no_page_reads_a_large_table_from_end_to_end(
    admin: Person, session: Session, ranked: None, asked: list[tuple[str, Any]]
) -> None:
    assert whole_tables_of(admin, PAGES, session, asked) == {}


def test_no_page_of_a_labeler_reads_a_large_table_from_end_to_end(
    labeler: Person, session: Session, ranked: None, asked: list[tuple[str, Any]]
) -> None:
    assert whole_tables_of(labeler, LABELERS_PAGES, session, asked) == {}


def test_demonstrations_are_counted_without_their_prompts(
    admin: Person, ranked: None, asked: list[tuple[str, Any]]
) -> None:
    for page in ("/projects/everyday", "/projects/everyday/rounds/new", "/projects/everyday/datasets/holds"):
        asked.clear()
        assert admin.get(page).status_code == 200
        counts = [statement for statement, _ in asked if re.search(r"count\(.*FROM demonstration", statement, re.S)]
        assert counts, page
        assert not [statement for statement in counts if "prompt.id" in statement], page


def test_a_prompt_to_answer_and_one_to_try_out_are_found_by_an_index(
    admin: Person, labeler: Person, session: Session, ranked: None, asked: list[tuple[str, Any]]
) -> None:
    for person, page in ((labeler, "answer"), (admin, "policies/try-out?draw=true")):
        asked.clear()
        assert person.get(f"/projects/everyday/{page}").status_code == 200
        nearby = next(each for each in asked if "md5" in each[0])  # what follows where nothing is near reads all
        assert "Index Scan using ix_prompt_shuffled" in "\n".join(plans(session, [nearby]))
        # Of half a million the planner walks the whole order for those near, where it may (8 s, measured).
        assert re.search(r"ORDER BY anon_\d+\.place", nearby[0])


@pytest.mark.parametrize("overlap", [True, False])
def test_the_queue_is_filled_without_looking_at_every_prompt(
    project: Project, session: Session, ranked: None, asked: list[tuple[str, Any]], overlap: bool
) -> None:
    project.uses_overlap = overlap
    session.commit()
    asked.clear()
    with db.SessionFactory.begin() as own:
        assert plan_slates(own, own.get_one(Project, project.id), now=clock(own)) == 2
    (line,) = [each for each in asked if "last_taken_at" in each[0]]
    wanted = 3 if overlap else 1  # a line for each use
    assert "\n".join(plans(session, [line])).count("Index Scan using ix_prompt_turn") == wanted
    forget_sizes(session.connection())
    session.commit()
    assert plan(session, *line).count("Index Scan using ix_prompt_turn") == wanted  # whatever is bound


def test_the_planner_believes_what_it_is_told(session: Session, ranked: None) -> None:
    """A statement that must read a whole table is found to do so: the tests above can fail."""
    found = whole_tables(session, [("SELECT * FROM completion WHERE text LIKE %(text)s", {"text": "%yes%"})])
    assert len(found) == 1

"""Two versions side by side on one database: what a migration adds must not be in the way of the version before."""

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, event, inspect, text
from sqlalchemy.orm import Session

from app import db, migrate
from app.migrate import Standing
from app.projects.models import Project
from app.prompts.models import Split
from app.settings import Settings
from app.terminal import reach_migrated
from tests.app.conftest import Person
from tests.app.loop import make_prompts, make_slate
from tests.app.rounds.stages import make_loop
from tests.app.upkeep.installations import empty_installation, fit_reward_model
from tests.faults.processes import wait_for

RULED_SINCE = "0024"  # the first migration that the rule is for: programs before it asked for equality
TAKES_AWAY = re.compile(
    r"\bDROP\s+(TABLE|COLUMN|VIEW)\b|\bRENAME\b|\bSET\s+NOT\s+NULL\b|\bALTER\s+COLUMN\s+\S+\s+(SET\s+DATA\s+)?TYPE\b"
    r"|\bADD\s+COLUMN\b(?!.*\bDEFAULT\b).*\bNOT\s+NULL\b",
    re.IGNORECASE,
)


def ruled() -> list[str]:
    """Revisions that the rule is for, the oldest first."""
    scripts = [script.revision for script in ScriptDirectory(str(migrate.SCRIPTS)).walk_revisions()][::-1]
    return scripts[scripts.index(RULED_SINCE) :]


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """A transaction that is undone: schemas come and go in it."""
    with engine.connect() as connection, connection.begin() as transaction:
        yield connection
        transaction.rollback()


def statements_of(connection: Connection, revision: str) -> list[str]:
    """What the migration to the revision executes on the schema before it."""
    said: list[str] = []

    def listen(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        said.append(statement)

    config = migrate._config(connection)
    before = ScriptDirectory(str(migrate.SCRIPTS)).get_revision(revision).down_revision
    command.downgrade(config, str(before))
    event.listen(connection, "before_cursor_execute", listen)
    try:
        command.upgrade(config, revision)
    finally:
        event.remove(connection, "before_cursor_execute", listen)
    return said


@pytest.mark.parametrize("revision", ruled())
def test_a_migration_only_adds_or_says_whom_it_still_serves(connection: Connection, revision: str) -> None:
    script = ScriptDirectory(str(migrate.SCRIPTS)).get_revision(revision)
    if getattr(script.module, "serves", None) is not None and revision != RULED_SINCE:
        return
    taking = [statement for statement in statements_of(connection, revision) if TAKES_AWAY.search(statement)]
    assert not taking, f"{revision} takes something away: do that a release later, and say `serves` (docs/upgrading.md)"


@pytest.mark.parametrize(
    ("statement", "takes_away"),
    [
        ("ALTER TABLE slate DROP COLUMN overlap", True),
        ("ALTER TABLE slate RENAME overlap TO num_rankings", True),
        ("ALTER TABLE slate ADD COLUMN size BIGINT NOT NULL", True),
        ("ALTER TABLE slate ADD COLUMN size BIGINT DEFAULT 0 NOT NULL", False),
        ("ALTER TABLE slate ADD COLUMN size BIGINT", False),
        ("ALTER TABLE slate ALTER COLUMN overlap SET NOT NULL", True),
        ("ALTER TABLE slate ALTER COLUMN overlap TYPE SMALLINT", True),
        ("CREATE INDEX ix_slate ON slate (overlap)", False),
        ("DROP TRIGGER append_only ON ranking", False),
    ],
)
def test_what_the_rule_takes_for_taking_away(statement: str, takes_away: bool) -> None:
    assert bool(TAKES_AWAY.search(statement)) is takes_away


def test_what_the_version_before_reads_and_writes_is_read_and_written_on_the_new_schema(
    session: Session, settings: Settings, connection: Connection
) -> None:
    """Its SELECTs name the columns that it knew; so do its INSERTs, tried on real rows under the new constraints."""
    fit_reward_model(session, settings, make_loop(session))
    config = migrate._config(connection)
    command.downgrade(config, "0022")
    before = {
        table: [column["name"] for column in inspect(connection).get_columns(table) if "computed" not in column]
        for table in inspect(connection).get_table_names()
        if table != "alembic_version"
    }
    command.upgrade(config, "head")
    num_rows = 0
    for table, columns in before.items():
        named = ", ".join(f'"{column}"' for column in columns)
        connection.execute(text(f'CREATE TEMP TABLE copy_of_{table} (LIKE "{table}" INCLUDING ALL)'))
        num_rows += connection.execute(
            text(f'INSERT INTO copy_of_{table} ({named}) SELECT {named} FROM "{table}"')
        ).rowcount
    assert len(before) > 50
    assert num_rows > 50


def ahead(connection: Connection, *, least: str) -> None:
    """As a later version leaves a schema: a table, a column and an index more, and a revision that we do not know."""
    connection.execute(text("ALTER TABLE ranking ADD COLUMN mood TEXT"))
    connection.execute(text("ALTER TABLE lease ADD COLUMN seen_at TIMESTAMPTZ NOT NULL DEFAULT now()"))
    connection.execute(text("CREATE TABLE mood (id BIGINT PRIMARY KEY)"))
    connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    connection.execute(text("DELETE FROM schema_serves"))
    connection.execute(text("INSERT INTO schema_serves VALUES (1, :least)"), {"least": least})


@pytest.fixture
def newer(engine: Engine) -> Iterator[Engine]:
    """The tests' database under a schema of a later version that serves this one; as before afterwards."""
    with engine.begin() as connection:
        ahead(connection, least=migrate.head())
    yield engine
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE ranking DROP COLUMN mood"))
        connection.execute(text("ALTER TABLE lease DROP COLUMN seen_at"))
        connection.execute(text("DROP TABLE mood"))
        connection.execute(text("UPDATE alembic_version SET version_num = :head"), {"head": migrate.head()})


def test_an_old_web_process_is_ready_on_a_newer_schema_that_serves_it_and_people_go_on_ranking(
    newer: Engine, labeler: Person, project: Project, session: Session
) -> None:
    make_slate(session, make_prompts(session, project, Split.TRAIN)[0])
    session.commit()
    assert migrate.standing(newer) is Standing.AHEAD
    assert labeler.get("/readyz").status_code == 200
    lease = labeler.post("/api/v1/projects/everyday/leases", json={"wanted": 1}).json()["leases"][0]
    ranks = {completion["id"]: rank for rank, completion in enumerate(lease["completions"], start=1)}
    ranking_id = "11111111-1111-4111-8111-111111111111"
    sent = labeler.post(f"/api/v1/leases/{lease['id']}/ranking", json={"ranking_id": ranking_id, "ranks": ranks})
    assert sent.status_code == 201
    assert labeler.get("/projects/everyday/rank").status_code == 200


def test_an_old_program_starts_on_a_newer_schema_that_serves_it_and_migrates_nothing(newer: Engine) -> None:
    url = newer.url.render_as_string(hide_password=False)
    bound = db.SessionFactory.kw["bind"]
    try:
        reach_migrated(Settings(DATABASE_URL=url), application="old").dispose()
    finally:
        db.SessionFactory.configure(bind=bound)
    migrate.upgrade(newer)
    assert migrate.standing(newer) is Standing.AHEAD


def test_a_program_is_not_ready_where_a_later_version_took_away_what_it_needs(newer: Engine, labeler: Person) -> None:
    with newer.begin() as connection:
        connection.execute(text("UPDATE schema_serves SET least = '9998'"))
    ready = labeler.get("/readyz")
    assert (ready.status_code, ready.text.partition(": ")[2]) == (503, "upgrade this program\n")
    with pytest.raises(migrate.SchemaTooNew, match="no longer serves this one"):
        migrate.upgrade(newer)


def test_a_program_is_not_ready_before_its_migrations_have_run(connection: Connection) -> None:
    command.downgrade(migrate._config(connection), "0022")
    assert migrate.standing_on(connection) is Standing.BEHIND


def test_what_is_wrong_with_a_schema_is_told_with_the_next_move(engine: Engine, tmp_path: Path) -> None:
    with empty_installation(engine, tmp_path) as fresh:
        assert migrate.trouble(fresh.engine) == "the database has no tables yet: run `podium migrate` first"
        with fresh.engine.begin() as connection:
            command.upgrade(migrate._config(connection), "0022")
        assert (
            migrate.trouble(fresh.engine) == "the database has an earlier version's schema: run `podium migrate` first"
        )
        migrate.upgrade(fresh.engine)
        assert migrate.trouble(fresh.engine) is None


def is_waiting(engine: Engine) -> bool:
    """Whether somebody waits for a table of this database."""
    here = "(SELECT oid FROM pg_database WHERE datname = current_database())"
    with engine.connect() as connection:
        return bool(connection.scalar(text(f"SELECT count(*) FROM pg_locks WHERE NOT granted AND database = {here}")))


def test_neither_a_migration_nor_a_request_is_ended_for_waiting_for_the_other(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request reads what a migration changes late, and then, while that one waits, what it changes early."""
    with empty_installation(engine, tmp_path) as old, ThreadPoolExecutor(1) as pool:
        with old.engine.begin() as connection:
            command.upgrade(migrate._config(connection), "0022")
        monkeypatch.setattr(migrate, "PAUSE_S", 0.0)
        with old.engine.begin() as request:
            request.execute(text("SET LOCAL lock_timeout = '500ms'"))  # Postgres ends one of two after a second
            request.execute(text("SELECT count(*) FROM api_key"))
            upgrade = pool.submit(migrate.upgrade, old.engine)
            wait_for(lambda: is_waiting(old.engine), "the migration to wait")
            request.execute(text("SELECT count(*) FROM project"))
        upgrade.result(20)
        assert migrate.standing(old.engine) is Standing.CURRENT


def test_migrating_writes_down_the_least_schema_that_is_served(engine: Engine) -> None:
    migrate.upgrade(engine)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT least FROM schema_serves")) == migrate.least_served()
    assert migrate.least_served() in {
        script.revision for script in ScriptDirectory(str(migrate.SCRIPTS)).walk_revisions()
    }


def test_a_migration_lets_others_past_while_a_dump_reads_and_is_tried_again_until_it_has_ended(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def change_a_table(connection: Connection) -> None:
        tries.append(connection)
        connection.execute(text("LOCK TABLE ranking IN ACCESS EXCLUSIVE MODE"))

    monkeypatch.setattr(migrate, "upgrade_on", change_a_table)
    monkeypatch.setattr(migrate, "LOCK_WAIT_S", 0.02)
    with engine.connect() as dump:
        dump.execute(text("SELECT count(*) FROM ranking"))
        monkeypatch.setattr(time, "sleep", lambda seconds: dump.rollback() if len(tries) == 2 else None)
        migrate.upgrade(engine)
        assert len(tries) == 3
        dump.execute(text("SELECT count(*) FROM ranking"))
        monkeypatch.setattr(migrate, "PATIENCE_S", 0.0)
        with pytest.raises(migrate.TablesInUse, match="nothing was changed"):
            migrate.upgrade(engine)

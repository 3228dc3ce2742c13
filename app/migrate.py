"""Brings a database to this version's schema. Safe to call from every process at once.

During an upgrade old processes work on the new schema for a while: a migration adds, and what the versions before it
use goes only in a later release. A migration that takes something away says `serves = "<revision>"`: the least schema
whose programs it still serves. The database keeps that in the table `schema_serves`, for programs that do not know its
migration. See docs/upgrading.md.
"""

import logging
import time
from enum import StrEnum
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg.errors import DeadlockDetected, LockNotAvailable, QueryCanceled
from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import OperationalError

from app.errors import PodiumError
from app.tables import metadata

SCRIPTS = Path(__file__).resolve().parent.parent / "migrations"
LOCK = 7_305_821  # any number, the same in every process: one migrates, the others wait
LOCK_WAIT_S = 2.0  # for a table that somebody uses; whoever wants it next waits as long
HOLD_WITHIN_S = 0.5  # all tables together: less than the second (deadlock_timeout) after which Postgres ends a request
PAUSE_S = 5.0
PATIENCE_S = 1800.0

log = logging.getLogger(__name__)


class Standing(StrEnum):
    """How a database's schema stands to this program."""

    CURRENT = "current"
    BEHIND = "behind"  # migrations are missing
    AHEAD = "ahead"  # a later version's, which serves this one too
    TOO_NEW = "too_new"  # a later version's, which does not


class SchemaTooNew(PodiumError):
    """The database was migrated by a later version, which took away what this one uses."""

    code = "schema_too_new"

    def __init__(self, revision: str) -> None:
        super().__init__(
            f"the database has the schema {revision} of a later version, which no longer serves this one:"
            " nothing was changed; upgrade this program"
        )


class TablesInUse(PodiumError):
    """A long transaction, a backup's or a dump's, holds tables that a migration changes."""

    code = "tables_in_use"

    def __init__(self) -> None:
        super().__init__(
            f"tables that have to change were in use for {PATIENCE_S / 60:.0f} minutes, by a backup or by another long"
            " transaction: nothing was changed; run `podium migrate` again when that has ended"
        )


class _NotAllHeld(Exception):
    """Some table is in use, by a request perhaps that lasts for milliseconds."""


def upgrade(engine: Engine) -> None:
    """Run the migrations that are missing, in one transaction. Raises SchemaTooNew, TablesInUse.

    Who waits for a table that a dump reads makes everybody wait who comes after: so nobody waits for long, and the
    whole is tried again.
    """
    give_up_at = time.monotonic() + PATIENCE_S
    while True:
        try:
            with engine.begin() as connection:
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})  # of others' migrations
                connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_WAIT_S:g}s'"))
                if standing_on(connection) is Standing.BEHIND:
                    _hold_tables(connection)
                upgrade_on(connection)
                return
        except (OperationalError, _NotAllHeld) as error:
            if isinstance(error, OperationalError) and not isinstance(error.orig, LockNotAvailable | DeadlockDetected):
                raise
            if time.monotonic() > give_up_at:
                raise TablesInUse() from error
            log.warning("tables are in use, by requests or by a backup; trying again in %g s", PAUSE_S)
            time.sleep(PAUSE_S)


def _hold_tables(connection: Connection) -> None:
    """Hold every table before any is changed, or none. Raises _NotAllHeld.

    Whoever changes one after the other waits in the end for a request that waits for what was changed before, and
    Postgres ends one of the two.
    """
    there = sorted(set(inspect(connection).get_table_names()) & set(metadata.tables))
    if not there:
        return
    connection.execute(text(f"SET LOCAL statement_timeout = {HOLD_WITHIN_S * 1000:.0f}"))
    try:
        connection.execute(text(f"LOCK TABLE {', '.join(there)} IN ACCESS EXCLUSIVE MODE"))
    except OperationalError as error:
        if isinstance(error.orig, QueryCanceled):
            raise _NotAllHeld from error
        raise
    connection.execute(text("SET LOCAL statement_timeout = DEFAULT"))


def upgrade_on(connection: Connection) -> None:
    """The same in a transaction of the caller's. A later schema that serves this program stays as it is."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    found = standing_on(connection)
    if found is Standing.TOO_NEW:
        raise SchemaTooNew(str(_revision(connection)))
    if found is Standing.AHEAD:
        return
    command.upgrade(_config(connection), "head")
    write = "INSERT INTO schema_serves (id, least) VALUES (1, :least) ON CONFLICT (id) DO UPDATE SET least = :least"
    connection.execute(text(write), {"least": least_served()})


def head() -> str:
    """The schema of this version."""
    return str(_scripts().get_current_head())


def least_served() -> str:
    """The least schema whose programs this version's schema serves: the newest migration that says so knows."""
    said = (getattr(script.module, "serves", None) for script in _scripts().walk_revisions())
    return next(str(least) for least in said if least is not None)


def standing(engine: Engine) -> Standing:
    """How the database's schema stands to this program."""
    with engine.connect() as connection:
        return standing_on(connection)


def standing_on(connection: Connection) -> Standing:
    """The same, on a connection of the caller's."""
    found = _revision(connection)
    known = {script.revision for script in _scripts().walk_revisions()}
    if found == head():
        return Standing.CURRENT
    if found is None or found in known:
        return Standing.BEHIND
    return Standing.AHEAD if _least(connection) in known else Standing.TOO_NEW


def is_current(engine: Engine) -> bool:
    """Whether the database is at this version's schema."""
    return standing(engine) is Standing.CURRENT


def serves(engine: Engine) -> bool:
    """Whether this program may work on the database: its schema is this version's, or a later one that serves it."""
    return standing(engine) in (Standing.CURRENT, Standing.AHEAD)


def trouble(engine: Engine) -> str | None:
    """Why this program may not work on the database, with the next move; None where it may."""
    with engine.connect() as connection:
        found = standing_on(connection)
        if found in (Standing.CURRENT, Standing.AHEAD):
            return None
        if found is Standing.TOO_NEW:
            return "the database has the schema of a later version, which serves this one no more: upgrade this program"
        if _revision(connection) is None:
            return "the database has no tables yet: run `podium migrate` first"
        return "the database has an earlier version's schema: run `podium migrate` first"


def differences(engine: Engine) -> list[object]:
    """What the models say and the migrated database does not: must be empty."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _least(connection: Connection) -> str | None:
    if connection.scalar(text("SELECT to_regclass('schema_serves')")) is None:
        return None
    least = connection.scalar(text("SELECT least FROM schema_serves"))
    return None if least is None else str(least)


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(SCRIPTS))


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config

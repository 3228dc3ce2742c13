"""Empties the test database by deleting what is in it.

TRUNCATE makes the files and the catalogue rows of every table and index anew, four hundred of them, whatever they
held, and every connection must then learn all tables again. A test writes to a dozen tables, a few rows to each.
"""

from functools import lru_cache

from sqlalchemy import Connection, Engine, text

# From the database and not from the models: some tables are written by triggers alone.
TABLES = (
    "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    " AND relname <> 'alembic_version'"
)
WRITTEN_TO = f"{TABLES} AND pg_relation_size(oid) > 0"  # VACUUM leaves an empty table without a page
COUNT_FROM_THE_START = (
    "SELECT setval(seqrelid, seqstart, false) FROM pg_sequence WHERE pg_sequence_last_value(seqrelid) IS NOT NULL"
)


@lru_cache(maxsize=1)
def lock_all(engine: Engine) -> str:
    """The statement that keeps everybody out of all tables that hold data."""
    with engine.connect() as connection:
        return f"LOCK TABLE {', '.join(connection.exec_driver_sql(TABLES).scalars())} IN ACCESS EXCLUSIVE MODE"


def empty(engine: Engine) -> None:
    """Delete every row of every table, and let their numbers begin at the first again. Needs a superuser."""
    statement = lock_all(engine)
    with engine.begin() as connection:
        written_to = _delete_rows(connection, statement)
    if written_to:
        # Or the next test would find its rows in the order of the gaps that these leave.
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(f"VACUUM (INDEX_CLEANUP on, PROCESS_TOAST off) {', '.join(written_to)}")


def forget_sizes(connection: Connection) -> None:
    """Let the planner know of no table how large it is: what earlier tests wrote changes no plan. Needs a superuser."""
    connection.execute(
        text(
            "SELECT pg_clear_relation_stats('public', relname) FROM pg_class"
            " WHERE relkind IN ('r', 'i') AND relnamespace = 'public'::regnamespace"
        )
    )
    connection.execute(
        text(
            "DELETE FROM pg_statistic USING pg_class c WHERE c.oid = starelid AND c.relkind = 'r'"
            " AND relnamespace = 'public'::regnamespace"
        )
    )


def _delete_rows(connection: Connection, lock: str) -> list[str]:
    """The names of the tables that held any."""
    # Nobody else is in the middle of anything then: what a test left running must not write into the next one's tables.
    connection.exec_driver_sql(lock)
    written_to = list(connection.exec_driver_sql(WRITTEN_TO).scalars())
    # No trigger fires: neither those that keep labels for ever nor those that look for what refers to a row.
    connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
    for table in written_to:
        connection.exec_driver_sql(f"DELETE FROM {table}")
    connection.exec_driver_sql(COUNT_FROM_THE_START)
    return written_to

"""Rows for Postgres by COPY: many times the pace of INSERT, and they are made as they are sent."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from psycopg import Connection, sql
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from app.db import Base, table_of

# Made once: dumps makes one a call. Dates, which Parquet files have among their facts, are kept as texts.
encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=str).encode


def look_at_sizes(session: Session, models: Iterable[type[Base]], at_least: int) -> None:
    """Tell the planner about tables of which it knows fewer rows than they surely hold.

    A table that was empty before a long import is taken for empty until that is over, and read from end to end for
    every few hundred rows, by us and by triggers: ten times the rows take a hundred times as long. Nothing waits.
    """
    names = [table_of(model).name for model in models]
    known = text("SELECT relname FROM pg_class WHERE oid = ANY (CAST(:names AS regclass[])) AND reltuples < :at_least")
    for name in session.scalars(known, {"names": names, "at_least": at_least}).all():
        session.execute(text(f"ANALYZE (SKIP_LOCKED) {name}"))


def copy_rows(session: Session, model: type[Base], rows: Iterable[Mapping[str, Any]]) -> None:
    """Add the rows to the model's table, in the session's transaction; all name the same columns."""
    waiting = iter(rows)
    first = next(waiting, None)
    if first is None:
        return
    table, names = table_of(model), tuple(first)
    as_json = [isinstance(table.c[name].type, JSONB) for name in names]
    connection = session.connection().connection.driver_connection
    assert isinstance(connection, Connection)
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(table.name), sql.SQL(", ").join(map(sql.Identifier, names))
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        row: Mapping[str, Any] | None = first
        while row is not None:
            copy.write_row(
                [
                    encode(value) if is_json and value is not None else value
                    for value, is_json in zip(row.values(), as_json, strict=True)
                ]
            )
            row = next(waiting, None)

"""Rows for Postgres by COPY: many times the pace of INSERT, and they are made as they are sent."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from psycopg import Connection, sql
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from app.db import Base, table_of

# Made once: dumps makes one a call. Dates, which Parquet files have among their facts, are kept as texts.
encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=str).encode


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

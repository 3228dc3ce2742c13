"""Who reads files that others would remove: a backup and a removal keep apart, on however many machines."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, text

from app.upkeep.errors import UpkeepUnderWay

LOCK = 7_305_822  # any number, the same in every process, and another one than the migrations'


@contextmanager
def reading_files(connection: Connection) -> Iterator[None]:
    """No command removes files meanwhile; others may read. Raises UpkeepUnderWay."""
    if not connection.scalar(text("SELECT pg_try_advisory_lock_shared(:lock)"), {"lock": LOCK}):
        raise UpkeepUnderWay("old files are being removed")
    try:
        yield
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock_shared(:lock)"), {"lock": LOCK})
        connection.rollback()


def read_until_commit(connection: Connection) -> None:
    """As `reading_files`, for the rest of the connection's transaction. Raises UpkeepUnderWay."""
    if not connection.scalar(text("SELECT pg_try_advisory_xact_lock_shared(:lock)"), {"lock": LOCK}):
        raise UpkeepUnderWay("old files are being removed")


@contextmanager
def removing_files(connection: Connection) -> Iterator[None]:
    """No backup is made meanwhile, whatever transactions end on the connection. Raises UpkeepUnderWay."""
    if not connection.scalar(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": LOCK}):
        raise UpkeepUnderWay("files are being read, by a backup or to bring weights back,")
    connection.rollback()
    try:
        yield
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": LOCK})
        connection.rollback()

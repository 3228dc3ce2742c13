"""Two at once, in a known order: one waits for a lock until the other has ended."""

from sqlalchemy import Engine, text


def wait_until_blocked(engine: Engine) -> None:
    """Until a connection waits for a lock that another one holds."""
    blocked = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for _ in range(10_000):
            if connection.scalar(blocked):
                return
    raise AssertionError("nothing waited")

"""What connections to the database do where it comes and goes."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import OperationalError

from app import db


@pytest.fixture
def loop_like(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A pool that notices the dead as the event loop's does, at once."""
    monkeypatch.setattr(db, "TRUSTED_S", 0.0)
    pooled = create_engine(engine.url, pool_size=1, max_overflow=0)
    db._notice_the_dead(pooled)
    yield pooled
    pooled.dispose()


def end(engine: Engine, pid: int) -> None:
    """The server ends a connection; returns when it has."""
    with engine.connect() as connection:
        assert connection.execute(text("SELECT pg_terminate_backend(:pid, 2000)"), {"pid": pid}).scalar_one()


def backend(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())


def test_a_connection_that_died_while_it_rested_is_replaced(engine: Engine, loop_like: Engine) -> None:
    first = backend(loop_like)
    end(engine, first)
    assert backend(loop_like) != first


def test_connections_that_die_as_soon_as_they_are_made_say_that_the_database_is_away(
    engine: Engine, loop_like: Engine
) -> None:
    """And not that we made a mistake: the answer is 503, and browsers try again."""
    rested = backend(loop_like)
    event.listen(loop_like, "connect", lambda made, _: end(engine, made.info.backend_pid))
    end(engine, rested)
    with pytest.raises(OperationalError):
        backend(loop_like)

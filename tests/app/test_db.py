"""What connections to the database do where it comes and goes, and who is served first."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import NullPool

from app import db, greenlets
from app.settings import Settings
from app.terminal import reach_migrated


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


def test_a_process_that_stands_still_in_a_transaction_does_not_keep_what_it_has_locked(engine: Engine) -> None:
    one_that_stops = create_engine(engine.url, poolclass=NullPool)
    event.listen(one_that_stops, "connect", partial(db._end_when_idle, 1))
    with one_that_stops.connect() as stopped, engine.begin() as other:
        stopped.execute(text("SELECT pg_advisory_xact_lock(7)"))
        other.execute(text("SET LOCAL lock_timeout = '20s'"))
        other.execute(text("SELECT pg_advisory_xact_lock(7)"))
        with pytest.raises(DBAPIError) as told:
            stopped.execute(text("SELECT"))
        assert told.value.connection_invalidated  # which is tried again, and answered 503


def test_trainers_and_samplers_are_such_processes(engine: Engine, tmp_path: Path) -> None:
    bound = db.SessionFactory.kw["bind"]
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    made = reach_migrated(Settings(home=tmp_path, DATABASE_URL=url), application="podium-trainer")
    try:
        with made.connect() as connection:
            assert connection.execute(text("SHOW idle_in_transaction_session_timeout")).scalar_one() == "5min"
    finally:
        made.dispose()
        db.SessionFactory.configure(bind=bound)


def test_who_waits_for_a_connection_is_served_before_who_asks_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = []

    async def three_and_one_who_waits() -> None:
        pooled = create_async_engine(engine.url, pool_size=1, max_overflow=0)
        factory = sessionmaker(bind=pooled.sync_engine)
        monkeypatch.setattr(greenlets, "LoopSessionFactory", factory)

        def work(who: str) -> None:
            with factory.begin() as session:
                session.execute(text("SELECT 1"))
                served.append(who)

        async def hurry() -> None:
            for _ in range(3):
                await greenlets.without_a_thread(work)("in a hurry")

        try:
            await asyncio.gather(hurry(), greenlets.without_a_thread(work)("patient"))
        finally:
            await pooled.dispose()

    with ThreadPoolExecutor(1) as thread:  # this one may have a loop, of browser tests before
        thread.submit(lambda: asyncio.run(three_and_one_who_waits())).result()
    assert served == ["in a hurry", "patient", "in a hurry", "in a hurry"]

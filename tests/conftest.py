"""What every test may use: a real Postgres, migrated, and empty again after each test."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

import trainer  # noqa: F401 - before any test loads torch: it sets how its threads wait
from app import db, embedded_postgres, migrate
from tests.emptying import empty
from tests.object_store import object_store, s3_server

__all__ = ["object_store", "s3_server"]  # fixtures: one server for all who ask

A_MINUTE = {
    "test_chain.py",
    "test_every_page.py",
    "test_killed_cycle.py",
    "test_kills.py",
    "test_story.py",
    "test_up.py",
}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest begin first, or one process would be at them while the others have nothing left to do.

    All else stays in its random order.
    """
    items.sort(key=lambda item: item.path.name not in A_MINUTE)


@pytest.fixture(scope="session")
def database_url() -> Iterator[str]:
    """A migrated database of this test process alone, on DATABASE_URL's server or on an embedded one."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    folder = None
    server = os.environ.get("DATABASE_URL")
    if server is None:
        folder = Path(tempfile.mkdtemp(prefix="podium test "))  # with a space: such paths must work
        server = embedded_postgres.start(folder, fsync=False)
    name = f"podium_test_{worker}_{os.getpid()}"
    admin = create_engine(db.driver_url(server), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        if folder is not None:  # tables are swept after each test; plans must not change while one runs
            connection.execute(text("ALTER SYSTEM SET autovacuum = off"))
            connection.execute(text("SELECT pg_reload_conf()"))
        connection.execute(text(f'CREATE DATABASE "{name}"'))
    url = make_url(db.driver_url(server)).set(database=name).render_as_string(hide_password=False)
    try:
        yield url
    finally:
        with admin.connect() as connection:
            connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))
        admin.dispose()
        if folder is not None:
            embedded_postgres.stop(folder)
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def migrated_engine(database_url: str) -> Iterator[Engine]:
    """The engine that SessionFactory is bound to."""
    engine = db.connect(database_url, pool_size=20)
    db.connect_loop(database_url, poolclass=NullPool)
    migrate.upgrade(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def engine(migrated_engine: Engine) -> Iterator[Engine]:
    """The engine, on a database that is empty before the test and emptied after it."""
    yield migrated_engine
    empty(migrated_engine)


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    """A session to arrange and inspect with; commit what other connections must see."""
    with db.SessionFactory() as session:
        yield session

"""What every command of the command line needs: the database, and errors in one sentence."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import typer
from sqlalchemy import Engine, make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app import db, embedded_postgres, migrate
from app.settings import Settings, get_settings

REFUSED = 1  # what was asked for cannot be done
USAGE = 2  # it was asked for in a way that cannot be understood, or the surroundings do not allow it


class CannotStart(Exception):
    """A process cannot start here; the message is one sentence with the next move."""

    code = "cannot_start"


def say(message: str) -> None:
    """One line for the person at the terminal."""
    typer.echo(message)


def refuse(message: str, *, exit_code: int = REFUSED) -> NoReturn:
    """Say on stderr why not."""
    sys.stderr.write(f"podium: {message}\n")
    raise SystemExit(exit_code)


def postgres_folder(settings: Settings) -> Path:
    """Where the embedded database lives."""
    return settings.home / "postgres"


def has_database(settings: Settings) -> bool:
    """Whether there is one to look at: an embedded one would else be made by looking."""
    return settings.database_url is not None or (postgres_folder(settings) / "data" / "PG_VERSION").exists()


def database_url(settings: Settings) -> str:
    """DATABASE_URL, or the URL of the embedded server, which is started if it does not run."""
    return settings.database_url or embedded_postgres.start(postgres_folder(settings))


def reach(url: str, settings: Settings, *, application: str = "podium", idle_s: int | None = None) -> Engine:
    """Connect this process to the database. Raises CannotStart with one sentence when there is none."""
    try:
        engine = db.connect(url, pool_size=settings.pool_size, application=application, idle_s=idle_s)
        with engine.connect():
            return engine
    except ValueError as error:
        raise CannotStart(str(error)) from error
    except OperationalError as error:
        where = make_url(db.driver_url(url)).set(drivername="postgresql").render_as_string(hide_password=True)
        reason = str(error.orig).strip().splitlines()[0]
        raise CannotStart(
            f"the database at {where} cannot be reached ({reason}): start it, or correct DATABASE_URL"
        ) from error


def given_url(settings: Settings) -> str:
    """DATABASE_URL, for a process that does not bring its own database. Raises CannotStart."""
    if settings.database_url is None:
        raise CannotStart("DATABASE_URL is not set: set it to your Postgres, or run `podium up`, which brings one")
    return settings.database_url


def reach_migrated(settings: Settings, *, application: str) -> Engine:
    """Connect a process that does not bring its own database: DATABASE_URL, at a schema that serves this version.

    Raises CannotStart.
    """
    engine = reach(given_url(settings), settings, application=application, idle_s=db.IDLE_S)
    if (trouble := migrate.trouble(engine)) is not None:
        raise CannotStart(trouble)
    return engine


@contextmanager
def open_session() -> Iterator[Session]:
    """A session for one command, on a database at this version's schema; committed at the end."""
    settings = get_settings()
    was_running = settings.database_url is not None or embedded_postgres.is_running(postgres_folder(settings))
    engine = reach(database_url(settings), settings, application="podium-command")
    try:
        if (trouble := migrate.trouble(engine)) is not None:
            if was_running and settings.database_url is not None:
                raise CannotStart(trouble)
            migrate.upgrade(engine)
        with db.SessionFactory.begin() as session:
            yield session
    finally:
        engine.dispose()
        if not was_running:
            embedded_postgres.stop(postgres_folder(settings))

"""`podium doctor`: one look at everything an installation stands on. Changes nothing.

What cannot be asked because something before it failed is left out: a database that is away is one fault, and not ten.
"""

import os
from collections.abc import Iterator

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from app import migrate
from app.db import clock
from app.embedded_postgres import PostgresDidNotStart
from app.settings import Settings
from app.terminal import CannotStart, database_url, has_database, reach
from app.upkeep.database_checks import check_database
from app.upkeep.file_checks import check_files
from app.upkeep.findings import Finding, fault
from app.upkeep.machine_checks import check_machine
from app.upkeep.settings_checks import check_settings
from app.upkeep.work_checks import check_work


def examine(settings: Settings, *, all_files: bool = False) -> Iterator[Finding]:
    """Every finding, the cheap ones first. all_files: compare every file of every result with its hash."""
    yield from check_settings(settings, os.environ)
    yield from check_machine(settings)
    if not has_database(settings):
        what = f"there is no database in {settings.home}, and DATABASE_URL is not set"
        yield fault("database", what, "start Podium once with `podium up`, or set PODIUM_HOME or DATABASE_URL")
        return
    try:
        engine = reach(database_url(settings), settings, application="podium-doctor")
    except CannotStart as error:
        what, _, advice = str(error).rpartition(": ")
        yield fault("database", what or str(error), advice)
        return
    except PostgresDidNotStart as error:
        yield fault("database", str(error), "mend what its last words say, or bring a backup back, and look again")
        return
    try:
        yield from _installation(engine, settings, all_files)
    finally:
        engine.dispose()


def _installation(engine: Engine, settings: Settings, all_files: bool) -> Iterator[Finding]:
    yield from check_database(engine, settings)
    if not migrate.serves(engine):
        return  # its tables are not the ones we know
    with Session(engine) as session:
        yield from check_work(session, now=clock(session))
        yield from check_files(session.connection(), settings, all_files=all_files)

"""Brings a database to this version's schema. Safe to call from every process at once."""

from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from app.tables import metadata

SCRIPTS = Path(__file__).resolve().parent.parent / "migrations"
LOCK = 7_305_821  # any number, the same in every process: one migrates, the others wait


def upgrade(engine: Engine) -> None:
    """Run the migrations that are missing, in one transaction."""
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        command.upgrade(_config(connection), "head")


def is_current(engine: Engine) -> bool:
    """Whether the database is at this version's schema."""
    with engine.connect() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    return found == ScriptDirectory(str(SCRIPTS)).get_current_head()


def differences(engine: Engine) -> list[object]:
    """What the models say and the migrated database does not: must be empty."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config

"""The schema that migrations make is the schema that the models describe."""

from sqlalchemy import Engine

from app import migrate


def test_migrations_make_what_the_models_say(engine: Engine) -> None:
    assert migrate.differences(engine) == []


def test_a_migrated_database_is_current_and_migrating_again_changes_nothing(engine: Engine) -> None:
    migrate.upgrade(engine)
    assert migrate.is_current(engine)

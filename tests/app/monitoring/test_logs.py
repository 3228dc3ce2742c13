"""Log lines: for people and for programs, with the ids of what they are about, and without secrets."""

import json
import logging
import logging.config
import sys

import pytest
from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.db import SessionFactory
from app.monitoring.logs import QUIET, JsonFormatter, TextFormatter, about, configuration, mask
from app.settings import Settings


def record(message: str, *arguments: object, error: BaseException | None = None) -> logging.LogRecord:
    info = None if error is None else (type(error), error, error.__traceback__)
    return logging.LogRecord("app.tests", logging.WARNING, __file__, 1, message, arguments, info)


def test_a_line_for_programs_is_one_object_with_the_ids_as_members():
    with about(stage=12, attempt=1), about(round=3):
        line = JsonFormatter("trainer").format(record("score=%s\nof two lines", 0.5))
    assert "\n" not in line
    found = json.loads(line)
    assert {name: found[name] for name in ("level", "process", "logger", "message", "stage", "attempt", "round")} == {
        "level": "warning",
        "process": "trainer",
        "logger": "app.tests",
        "message": "score=0.5\nof two lines",
        "stage": 12,
        "attempt": 1,
        "round": 3,
    }
    assert found["at"].endswith("+00:00")


def test_a_line_for_people_names_each_id_once():
    with about(stage=12, attempt=1):
        line = TextFormatter("trainer").format(record("stage=%s claimed", 12))
    assert line.endswith("WARNING app.tests stage=12 claimed attempt=1")


def test_outside_of_a_block_there_are_no_ids():
    with about(stage=12):
        pass
    assert "stage" not in json.loads(JsonFormatter("trainer").format(record("idle")))


def test_a_traceback_stays_with_its_line():
    try:
        raise ValueError("postgresql://podium:hunter2@db/podium")
    except ValueError as error:
        failed = record("failed", error=error)
    found = json.loads(JsonFormatter("web").format(failed))
    assert "ValueError" in found["exception"]
    assert "hunter2" not in found["exception"] + TextFormatter("web").format(failed)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("GET /invitations/abc-DEF_123 failed", "GET /invitations/*** failed"),
        ("GET /reset/abc123?x=1", "GET /reset/***?x=1"),
        ("/sign-in/sso/return?code=4%2F0A&state=xyz", "/sign-in/sso/return?code=***&state=***"),
        ("key podium_" + "aB3-_" * 8 + " was refused", "key podium_*** was refused"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("postgresql://podium:s3cret@db:5432/podium", "postgresql://podium:***@db:5432/podium"),
        ("POST https://hooks.example.com/services/T0/B0/x", "POST https://hooks.example.com/***"),
        ("podium_database_connections and round=12", "podium_database_connections and round=12"),
        ("https://example.org/reset-of-the-art", "https://example.org/reset-of-the-art"),
    ],
    ids=["invitation", "reset", "sign-on", "key", "bearer", "password", "hook", "metric", "word"],
)
def test_what_opens_a_door_is_masked_and_nothing_else(said, kept):
    assert mask(said) == kept


def test_an_error_of_the_database_does_not_repeat_what_people_wrote(engine):
    statement = text("SELECT 1 / CAST(:zero AS int), CAST(:given AS text)")
    with SessionFactory() as session, pytest.raises(DBAPIError) as failed:
        session.execute(statement, {"zero": 0, "given": "a secret"})
    assert "division by zero" in str(failed.value)
    assert "a secret" not in str(failed.value)


def lines_with(error: BaseException) -> list[str]:
    """The error in both formats: as a traceback, and named in a message."""
    formatters = TextFormatter("web"), JsonFormatter("web")
    records = record("failed", error=error), record("failed: %s", error), record(error)  # type: ignore[arg-type]
    return [formatter.format(each) for formatter in formatters for each in records]


def refused(session: Session, statement: str, **values: object) -> BaseException:
    """What a statement that the database refuses raises, as what another error came from."""
    try:
        try:
            session.execute(text(statement), values)
        except DBAPIError as error:
            raise RuntimeError("given up") from error
    except RuntimeError as error:
        session.rollback()
        return error
    raise AssertionError("it was not refused")


ACCOUNT = "INSERT INTO account (email, name, password_hash, is_site_admin) VALUES (:email, :name, 'x', false)"


def test_a_row_that_exists_already_is_not_told(session):
    session.execute(text(ACCOUNT), {"email": "ada@example.org", "name": "Ada"})
    error = refused(session, f"{ACCOUNT}, (:email, :name, 'x', false)", email="ada@example.org", name="Ada")
    assert "ada@example.org" in str(error.__cause__)  # Postgres says it
    for line in [*lines_with(error), *lines_with(error.__cause__)]:
        assert "ada@example.org" not in line
        assert "INSERT" not in line
    assert "duplicate key value violates unique constraint" in lines_with(error)[0]
    assert "23505" in lines_with(error)[0]
    assert "RuntimeError: given up" in lines_with(error)[0]


def test_a_row_that_is_refused_is_not_told_whatever_lines_it_has(session):
    error = refused(session, ACCOUNT.replace(":name", "NULL"), email="two\nlines@example.org")
    assert "lines@example.org" in str(error.__cause__)
    assert not [line for line in lines_with(error) if "lines@example.org" in line]


def test_a_value_that_is_none_of_its_type_is_not_told(session):
    error = refused(session, "SELECT CAST(CAST(:given AS text) AS int)", given="what I think")
    assert "what I think" in str(error.__cause__)
    assert not [line for line in lines_with(error) if "what I think" in line]
    assert "invalid input syntax for type integer (22P02)" in lines_with(error)[0]


def test_errors_of_a_group_are_told_without_rows_too(session):
    error = refused(session, ACCOUNT.replace(":name", "NULL"), email="ada@example.org")
    group = ExceptionGroup("two", [ValueError("one"), error])
    assert not [line for line in lines_with(group)[:1] if "ada@example.org" in line]
    assert "ValueError: one" in lines_with(group)[0]


def test_no_text_makes_a_line_of_its_own_for_people():
    forged = "x\n2026-11-21 10:00:00,000 INFO app.access path=/ status=200\r\x1b[2K\u2028"
    line = TextFormatter("web").format(record("path=%s", forged))
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line
    with_traceback = TextFormatter("web").format(record("failed", error=ValueError(forged)))
    assert all(each.startswith("  ") for each in with_traceback.splitlines()[1:])


@pytest.mark.parametrize("format", ["text", "json"])
def test_the_configuration_is_one_that_python_takes(format, capsys):
    before = logging.root.handlers[:], logging.root.level
    levels = {name: logging.getLogger(name).level for name in ("app", "trainer", *QUIET)}
    try:
        logging.config.dictConfig(configuration(Settings(log_format=format, log_level="debug"), "sampler"))
        logging.getLogger("trainer.sampler").debug("slate=1")
        logging.getLogger("sqlalchemy.engine").info("INSERT INTO prompt …")
        logging.getLogger("httpx").info("POST https://hooks.example.org/T0")
        sys.stderr.flush()
    finally:
        logging.root.handlers[:], logging.root.level = before
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
    said = capsys.readouterr().err
    assert "slate=1" in said
    assert "INSERT" not in said
    assert "hooks" not in said


@pytest.mark.parametrize(
    "wrong",
    [{"log_format": "xml"}, {"metrics_token": "short"}, {"drain_s": -1}, {"trainer_listen": "9100"}],
    ids=["log_format", "metrics_token", "drain_s", "trainer_listen"],
)
def test_a_setting_that_cannot_be_is_refused_at_the_start(wrong):
    with pytest.raises(ValidationError):
        Settings(**wrong)


def test_what_compose_passes_on_though_nobody_set_it_counts_as_unset():
    assert Settings(metrics_token="", sampler_listen="").model_dump(include={"metrics_token", "sampler_listen"}) == {
        "metrics_token": None,
        "sampler_listen": None,
    }

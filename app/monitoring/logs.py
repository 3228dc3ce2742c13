"""How every process logs: one line a record, as text or as JSON, with the ids of what it is about and no secret.

Knows no request and no stage: whoever begins one says its ids with `about`, and every line until its end carries them.
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from app.monitoring.failures import said, traceback_of
from app.settings import Settings

# What is at work just now, for every line it logs: {"request": "…"} or {"stage": 12, "attempt": 1}. Ids alone.
_about: ContextVar[Mapping[str, object]] = ContextVar("about", default=MappingProxyType({}))

# Libraries whose everyday lines are noise, or would show what is nobody's business: addresses with tokens, SQL.
QUIET = ("alembic", "aiobotocore", "asyncio", "botocore", "httpcore", "httpx", "sqlalchemy", "urllib3")

SECRETS = re.compile(
    r"(/(?:invitations|reset)/)[^/\s\"'?#]+"  # one-time links
    r"|(\bpodium_)[A-Za-z0-9_-]{24,}"  # API keys
    r"|(\bBearer\s+)\S+"
    r"|(://[^/\s:@]*:)[^\s@]+(?=@)"  # a password in an address
    r"|([?&](?:code|state|token|secret|password|api_key)=)[^&\s\"']+"
    r"|(https://hooks\.[^/\s]+/)\S+",  # a chat's webhook: whoever knows the address may post there
    re.IGNORECASE,
)
# What would begin a line, or turn the reading direction of one, wherever a text from outside stands in it.
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def mask(text: str) -> str:
    """The text without what opens a door: one-time tokens in addresses, API keys, passwords."""
    return SECRETS.sub(lambda found: "".join(filter(None, found.groups())) + "***", text)


@contextmanager
def about(**ids: object) -> Iterator[None]:
    """Every line logged in the block, by this thread or task, carries the ids too."""
    token = _about.set({**_about.get(), **ids})
    try:
        yield
    finally:
        _about.reset(token)


def say_about(**ids: object) -> None:
    """The same until this task ends: a request's last lines are logged outside of every block."""
    _about.set({**_about.get(), **ids})


def message_of(record: logging.LogRecord) -> str:
    """The record's message; an error of the database that it names is told without rows."""
    if not isinstance(record.args, tuple):
        return record.getMessage()
    return str(record.msg) % tuple(map(_arguments_word, record.args)) if record.args else said(record.msg)


def _arguments_word(argument: object) -> object:
    return said(argument) if isinstance(argument, BaseException) else argument


def without_controls(line: str) -> str:
    """The line with what would end it, or hide a part of it, written out: \\n, \\x1b."""
    return CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), line)


class TextFormatter(logging.Formatter):
    """For people: time, level, logger, message, and the ids behind it."""

    def __init__(self, process: str) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """One line; those of a traceback are set in, so that none can pass for a line of its own."""
        record.message, record.asctime = message_of(record).rstrip(), self.formatTime(record)
        line = self.formatMessage(record)
        known = " ".join(f"{name}={value}" for name, value in _about.get().items() if f"{name}=" not in line)
        lines = [f"{line} {known}".rstrip()]
        if record.exc_info and record.exc_info[1]:
            lines += [f"  {each}" for each in traceback_of(record.exc_info[1]).split("\n")]
        return mask("\n".join(map(without_controls, lines)))


class JsonFormatter(logging.Formatter):
    """For programs: one object a line. The ids are members beside at, level, process, logger, message, exception."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self.process = process

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self.process,
            "pid": record.process,
            "logger": record.name,
            "message": mask(message_of(record)),
            **_about.get(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info and record.exc_info[1]:
            line["exception"] = mask(traceback_of(record.exc_info[1]))
        return json.dumps(line, ensure_ascii=False, default=str)


FORMATTERS = {"text": TextFormatter, "json": JsonFormatter}


def configuration(settings: Settings, process: str) -> dict[str, Any]:
    """For logging.config.dictConfig, and for Uvicorn, which hands it to its worker processes. process: web, sampler…

    What libraries would say in detail is never logged: SQL and requests to other servers hold people's texts.
    """
    level = settings.log_level.upper()
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": FORMATTERS[settings.log_format], "process": process}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "stream": "ext://sys.stderr", "formatter": "line"}},
        "root": {"level": max(level, "INFO", key=logging.getLevelName), "handlers": ["stderr"]},
        "loggers": {
            **{name: {"level": level} for name in ("app", "trainer")},
            **{name: {"level": "WARNING"} for name in QUIET},
        },
    }

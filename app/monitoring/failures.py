"""Errors as the log tells them: where they happened and what the database said, without the rows that it quotes.

Postgres repeats in an error's DETAIL and CONTEXT the row that it refused: an e-mail address, a prompt. SQLAlchemy adds
the statement. Neither is anybody's business who reads a log.
"""

from traceback import TracebackException
from typing import Any

import psycopg
from sqlalchemy.exc import StatementError

LAST_LINES = 10


def said(error: object) -> str:
    """The error in one line: `duplicate key value violates unique constraint … (23505)`."""
    if isinstance(error, StatementError):
        return said(error.orig) if isinstance(error.orig, psycopg.Error) else _first_line(error.args[0])
    if not isinstance(error, psycopg.Error):
        return str(error)
    if error.sqlstate is None or error.diag.message_primary is None:
        return _first_line(error)  # the client's own words: the server cannot be reached, or went away
    primary = error.diag.message_primary
    if error.sqlstate.startswith("22"):  # a value that is none of its type, quoted: invalid input syntax for …: "…"
        primary = primary.partition('"')[0].rstrip(" :")
    return f"{_first_line(primary)} ({error.sqlstate})"


def traceback_of(error: BaseException) -> str:
    """Its traceback as Python prints it, with what `said` says in place of each error of the database."""
    story = TracebackException.from_exception(error, compact=True)
    _leave_out_rows(story, error)
    return "".join(story.format()).rstrip("\n")


def last_lines_of(error: BaseException) -> str:
    """The end of its traceback, for who reads about it in the product."""
    return "\n".join(traceback_of(error).splitlines()[-LAST_LINES:])


def _leave_out_rows(story: Any, error: BaseException) -> None:
    """Of the error and of all that it came from. story: whose `_str` is the text after the error's type."""
    if isinstance(error, psycopg.Error | StatementError):
        story._str = said(error)
    others = [(story.__cause__, error.__cause__), (story.__context__, error.__context__)]
    if isinstance(error, BaseExceptionGroup):
        others += zip(story.exceptions, error.exceptions, strict=True)
    for its_story, other in others:
        if its_story is not None and other is not None:
            _leave_out_rows(its_story, other)


def _first_line(text: object) -> str:
    return (str(text).strip().splitlines() or [""])[0]

"""Fields of a record, each as what it must be, or BadRecord with the reason. Pure."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from app.datasets.errors import BadRecord
from app.datasets.files import Record
from app.prompts.errors import BadPrompt
from app.prompts.messages import Messages, checked_prompt, user_message

MAX_COMPLETIONS = 100  # a slate of more is a file we misread
PROMPT_FIELDS = ("messages", "prompt", "question", "instruction", "text")


def prompt_of(record: Record) -> Messages:
    """What the record calls messages, prompt, question, instruction or text; a text or turns."""
    for name in PROMPT_FIELDS:
        value = record.get(name)
        if isinstance(value, str):
            return checked(value, user_message)
        if value is not None:
            return checked(value)
    raise BadRecord("there is no prompt: a record needs prompt, text or messages")


def checked(turns: Any, check: Callable[[Any], Messages] = checked_prompt) -> Messages:
    try:
        return check(turns)
    except BadPrompt as error:
        raise BadRecord(str(error)) from None


def list_of_objects(record: Record, name: str, *, at_least: int, at_most: int = MAX_COMPLETIONS) -> list[Record]:
    items = record.get(name)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise BadRecord(f"{name} is not a list of objects")
    if not at_least <= len(items) <= at_most:
        raise BadRecord(f"{name} holds {len(items)}, which is not {at_least} to {at_most}")
    return items


def text_of(record: Record, name: str, where: str = "") -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raise BadRecord(f"{where}{': ' if where else ''}{name} is missing or not a text")
    return value


def optional_text(record: Record, name: str) -> str | None:
    value = record.get(name)
    if value is not None and not isinstance(value, str | int):
        raise BadRecord(f"{name} is not a text")
    return None if value is None else str(value)


def number(record: Any, name: str, where: str) -> float:
    value: Any = record.get(name) if isinstance(record, dict) else None
    if isinstance(value, str):
        raise BadRecord(f"{where}: {name} is the text {value[:40]!r} and not a number")
    if not is_number(value):
        raise BadRecord(f"{where}: {name} is missing or not a number")
    return float(value)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def choice(record: Record, name: str, choices: Sequence[str]) -> str | None:
    value = record.get(name)
    if value is not None and value not in choices:
        raise BadRecord(f"{name} is {value!r}, which is none of {', '.join(choices)}")
    return value


def seconds(record: Record, name: str) -> float | None:
    value = record.get(name)
    if value is not None and not (is_number(value) and value >= 0):
        raise BadRecord(f"{name} is not a number of seconds")
    return value


def moment(record: Record, name: str) -> datetime | None:
    value = record.get(name)
    if value is None:
        return None
    try:
        at = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise BadRecord(f"{name} is not an ISO date") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def said(values: dict[str, Any]) -> dict[str, Any]:
    """Those that the file says: what is null is not a fact."""
    return {name: value for name, value in values.items() if value is not None}

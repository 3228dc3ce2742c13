"""What a prompt's messages are: checked, made storable, and compared. Knows nothing of the database."""

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from typing import Any, TypeAlias

from app.prompts.errors import BadPrompt

Messages: TypeAlias = list[dict[str, str]]  # [{"role": "system" | "user" | "assistant", "content": text}]

# What other people's files call the three roles.
ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}


def storable(text: str) -> str:
    """The text with NUL and unpaired surrogates, which Postgres cannot hold, as U+FFFD."""
    if text.isascii() and "\0" not in text:
        return text
    return "".join("\ufffd" if letter == "\0" or "\ud800" <= letter <= "\udfff" else letter for letter in text)


def user_message(text: str) -> Messages:
    """A prompt of one turn. Raises BadPrompt if the text is empty."""
    return checked_prompt([{"role": "user", "content": text}])


def checked_turns(turns: object) -> Messages:
    """Turns of a conversation under our names for roles and texts. Raises BadPrompt, saying which turn is wrong.

    turns: a list of objects with `role` (or `from`) and `content` (or `text`, `value`).
    """
    if not isinstance(turns, list) or not turns:
        raise BadPrompt("the messages are not a list of turns")
    return [checked_turn(number, turn) for number, turn in enumerate(turns, start=1)]


def checked_turn(number: int, turn: object) -> dict[str, str]:
    if not isinstance(turn, dict):
        raise BadPrompt(f"turn {number} is not an object with role and content")
    role = turn.get("role", turn.get("from"))
    content = next((turn[name] for name in ("content", "text", "value") if turn.get(name) is not None), None)
    if not isinstance(role, str) or role.lower() not in ROLES:
        raise BadPrompt(f"turn {number} has the role {role!r}, which is none of system, user, assistant")
    if not isinstance(content, str):
        raise BadPrompt(f"turn {number} has no text")
    return {"role": ROLES[role.lower()], "content": storable(content)}


def checked_prompt(turns: object) -> Messages:
    """Turns that a policy can answer: a system turn first if at all, the user's turn last, no empty question.

    Raises BadPrompt.
    """
    messages = checked_turns(turns)
    if any(message["role"] == "system" for message in messages[1:]):
        raise BadPrompt("a system turn stands after the first turn")
    if messages[-1]["role"] != "user":
        raise BadPrompt("the last turn is not the user's, so there is nothing to answer")
    if not messages[-1]["content"].strip():
        raise BadPrompt("the prompt is empty")
    return messages


def text_hash(messages: Sequence[dict[str, Any]]) -> bytes:
    """The same for the same messages, to the letter."""
    canonical = json.dumps(messages, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).digest()


def normal_text(messages: Sequence[dict[str, Any]]) -> str:
    """The same for near-duplicates: case, spacing, Unicode forms and punctuation at the edges of words apart."""
    return "\n".join(f"{message['role']}: {normalised(message['content'])}" for message in messages)


def normalised(text: str) -> str:
    words = unicodedata.normalize("NFKC", text).casefold().split()
    return " ".join(filter(None, (word.strip(".,;:!?…\"'“”‘’()[]") for word in words))) or " ".join(words)


def group_key(messages: Sequence[dict[str, Any]]) -> str:
    """What prompts that must stay on one side of the split share: how their conversation begins.

    Every prompt of a conversation begins with the same question, and near-duplicates ask it in almost the same words.
    """
    first = next((message for message in messages if message["role"] == "user"), messages[0])
    return hashlib.sha256(normalised(first["content"]).encode()).hexdigest()

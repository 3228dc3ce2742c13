"""The text that PPO-ptx mixes in, read from the operator's file in windows of tokens. Knows no database and no model.

A `.jsonl` file has one document a line, {"text": …}; any other is one document of UTF-8 text.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.errors import StageError

WINDOW_TOKENS = 512  # of a longer context: more would take the place of rollouts in memory
PIECE_CHARACTERS = 1_000_000  # tokenized at once
MOST_WINDOWS = 20_000  # ten million tokens, more than a stage mixes in before it begins again


class BadPretrainingText(StageError):
    """The file that PODIUM_PRETRAINING_TEXT names cannot be learned from."""

    code = "bad_pretraining_text"

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"the pretraining text {path} {reason}",
            advice="let PODIUM_PRETRAINING_TEXT name a UTF-8 text file, or a .jsonl file of lines like"
            ' {"text": "…"}, or unset it to use demonstrations; then resume the round',
        )


def windows_of(path: Path, tokenizer: Any, context_tokens: int | None) -> Iterator[list[int]]:
    """The text's tokens in order, in windows; no window reaches over the end of a document, which EOS marks.

    Raises BadPretrainingText for a file that is missing, empty, no text, or no JSONL where it says so.
    """
    size = min(WINDOW_TOKENS, context_tokens or WINDOW_TOKENS)
    num_windows = 0
    try:
        for document in documents_of(path):
            for window in cut(tokens_of(document, tokenizer), size):
                if num_windows == MOST_WINDOWS:
                    return
                num_windows += 1
                yield window
    except OSError as error:
        raise BadPretrainingText(path, f"cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise BadPretrainingText(path, "is not UTF-8 text") from error
    if num_windows == 0:
        raise BadPretrainingText(path, "is empty")


def documents_of(path: Path) -> Iterator[Iterator[str]]:
    """Each document as the lines it consists of."""
    with path.open(encoding="utf-8-sig") as file:
        if path.suffix != ".jsonl":
            yield (checked(path, number, line) for number, line in enumerate(file, start=1))
            return
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield iter([text_of(path, number, checked(path, number, line))])


def checked(path: Path, number: int, line: str) -> str:
    if "\x00" in line:
        raise BadPretrainingText(path, f"is not text: line {number} holds a NUL character")
    return line


def text_of(path: Path, number: int, line: str) -> str:
    try:
        text = json.loads(line)["text"]
    except (ValueError, KeyError, TypeError, IndexError):
        text = None
    if not isinstance(text, str):
        raise BadPretrainingText(path, f'has in line {number} no object with a "text"')
    return text


def tokens_of(lines: Iterator[str], tokenizer: Any) -> Iterator[int]:
    """The document's tokens and EOS; nothing for a blank document."""
    is_blank = True
    for piece in pieces_of(lines):
        is_blank = is_blank and not piece.strip()
        if not is_blank:
            yield from tokenizer.encode(piece, add_special_tokens=False)
    if not is_blank:
        yield tokenizer.eos_token_id


def pieces_of(lines: Iterator[str]) -> Iterator[str]:
    """Lines joined to long pieces: a tokenizer writes the start of a text, and what goes over lines, otherwise."""
    piece: list[str] = []
    num_characters = 0
    for line in lines:
        piece.append(line)
        num_characters += len(line)
        if num_characters >= PIECE_CHARACTERS:
            yield "".join(piece)
            piece, num_characters = [], 0
    yield "".join(piece)


def cut(tokens: Iterator[int], size: int) -> Iterator[list[int]]:
    """Windows of `size`; a last one of a single token is dropped: nothing stands before it."""
    window: list[int] = []
    for token in tokens:
        window.append(token)
        if len(window) == size:
            yield window
            window = []
    if len(window) > 1:
        yield window

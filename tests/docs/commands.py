"""The commands that stand on the pages, told apart by the program that they call.

Each kind of command has one function that says what is wrong with it, by a look at the code that would answer: the
tree of `podium`, the targets of the Makefile, the options of a benchmark, the routes of the API. Programs that are not
ours are looked at as far as we know them.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from tests.docs.pages import Block, blocks, inlines

SHELL = ("sh", "bash", "console")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD")
JOINTS, REDIRECTIONS = ("&&", "||", "|", ";", "&"), (">", ">>", "<", "2>")
ASSIGNMENT = re.compile(r"^[A-Z][A-Z0-9_]*=")
# In blocks without a language a line is a command if it begins with one of these; diagrams and listings do not.
PROGRAMS = ("podium", "make", "python", "curl", "docker", "torchrun", "pip", "vllm", "transformers", "export", "git")
PLACEHOLDER = re.compile(r"<([a-z ]+)>")


@dataclass(frozen=True)
class Command:
    """One command of a page. assignments: what stands before the program, NAME -> value."""

    page: str
    line: int
    text: str
    program: str
    words: tuple[str, ...]
    assignments: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def commands() -> list[Command]:
    """Every command on every page."""
    return [command for block in blocks() for command in commands_of(block)]


def mentioned() -> list[Command]:
    """Commands within sentences, which may leave out what every reader knows to fill in."""
    found = [command for block in inlines() for command in commands_of(block) if " " in block.text]
    return [command for command in found if command.program in ("podium", "make", "python")]


def commands_of(block: Block) -> Iterator[Command]:
    """The commands of a block: all of its lines where it is shell, else those that begin with a program."""
    if block.language not in (*SHELL, "http", ""):
        return
    is_surely_a_command = block.language in SHELL or block.language == "http"
    for number, line in joined(block):
        for command in read(block, number, line):
            if is_surely_a_command or command.program in (*PROGRAMS, *METHODS):
                yield command


def joined(block: Block) -> Iterator[tuple[int, str]]:
    """The block's lines with their numbers, those that end in a backslash put together."""
    text, start = "", block.line
    for number, line in enumerate(block.text.splitlines(), start=block.line):
        start = start if text else number
        text += line.removesuffix("\\")
        if not line.endswith("\\"):
            yield start, text.strip()
            text = ""


def read(block: Block, number: int, line: str) -> Iterator[Command]:
    """The commands of a line, several where it joins them; none of an empty line, a comment, a drawing."""
    # A placeholder is one word, whatever stands in it, and no redirection.
    text = PLACEHOLDER.sub(lambda found: f"<{found[1].replace(' ', '_')}>", line)
    try:
        is_request = text.split(" ", 1)[0] in METHODS
        words = text.split() if is_request else shlex.split(re.sub(r"(^|\s)#.*$", "", text))
    except ValueError:
        if block.language in SHELL:
            raise
        return
    for part in [words] if is_request else parts_of(words):
        split = next((place for place, word in enumerate(part) if not ASSIGNMENT.match(word)), len(part))
        if part[split:]:
            assignments = tuple((name, value) for name, _, value in (word.partition("=") for word in part[:split]))
            program = part[split].removeprefix(".venv/bin/")
            yield Command(block.page, number, line, program, tuple(part[split + 1 :]), assignments)


def parts_of(words: list[str]) -> Iterator[list[str]]:
    """The commands that a line joins, without where their output goes."""
    part: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        if word in JOINTS:
            yield part
            part = []
        elif word not in REDIRECTIONS and before not in REDIRECTIONS:
            part.append(word)
    yield part

"""Every command of the docs is one that works: it is read by the program that would answer, and run where it can be."""

from collections.abc import Callable

import pytest

from tests.docs.checks import CHECKS, check_assignments, check_make, check_mentioned_podium, check_mentioned_python
from tests.docs.commands import SHELL, Command, commands, mentioned
from tests.docs.pages import blocks

COMMANDS = commands()
LANGUAGES = {*SHELL, "http", "python", "json", "html", "ini", "yaml", "toml", "sql", "text", "promql", "nginx", ""}


def test_a_block_of_code_says_a_language_that_these_tests_know() -> None:
    strange = {f"{block.page}:{block.line}: {block.language}" for block in blocks() if block.language not in LANGUAGES}
    assert not strange


def test_a_block_without_a_language_holds_no_command() -> None:
    """Whoever copies it should see colours; a drawing has none."""
    drawings = [block for block in blocks() if block.is_fenced and not block.language]
    places = {(block.page, block.line + number) for block in drawings for number in range(block.text.count("\n"))}
    assert not [str(command) for command in COMMANDS if (command.page, command.line) in places]


def test_the_program_of_every_command_is_known() -> None:
    """A program that is new to the docs gets a check in tests/docs/checks.py, or is named there as not ours."""
    assert not [str(command) for command in COMMANDS if command.program not in CHECKS]


@pytest.mark.parametrize("program", sorted({command.program for command in COMMANDS} & set(CHECKS)))
def test_every_command_is_understood_by_its_program(program: str) -> None:
    assert not wrong_of([command for command in COMMANDS if command.program == program], CHECKS[program])


def test_a_command_in_a_sentence_is_there() -> None:
    found = mentioned()
    checks = {"podium": check_mentioned_podium, "python": check_mentioned_python, "make": check_make}
    for program, check in checks.items():
        assert not wrong_of([command for command in found if command.program == program], check)


def wrong_of(found: list[Command], check: Callable[[Command], None]) -> str:
    """What is wrong with them, a line for each that is."""
    wrong = []
    for command in found:
        try:
            check_assignments(command)
            check(command)
        except AssertionError as error:
            wrong.append(f"{command}: {error}")
    return "\n".join(wrong)

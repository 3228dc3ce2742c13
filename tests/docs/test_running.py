"""The `podium` commands of the docs are run, as they stand, in an installation with something in it."""

import os

import pytest

from tests.docs.checks import parsed
from tests.docs.commands import Command, commands
from tests.docs.world import on_server, tell

# Why a command is read (tests/docs/test_commands.py) and not run. Each has tests of its own.
NOT_RUN = {
    "up": "it serves until it is stopped",
    "serve": "it serves until it is stopped",
    "sampler": "it samples until it is stopped",
    "trainer": "it trains until it is stopped",
    "simulate": "it needs a web process that serves",
    "story": "it made what the others are run in",
    "demo": "it takes ten minutes",
    "artifacts bring": "the weights must have gone before",
    "doctor": "it finds fault with a server for tests, which does not sync, and says so by its exit code",
    "policy benchmark": "its tasks come from a hub",
    "reproduce": "it gives this process to a trainer",
}
COMMANDS = [command for command in commands() if command.program == "podium"]


def is_run(command: Command) -> bool:
    """Whether it is. There is no server at the address that an example downloads from."""
    return parsed(command.words)[0] not in NOT_RUN and "--server" not in command.words


def leaves_the_folder(words: list[str]) -> bool:
    """Whether a command reads or writes at a place of the reader's machine, which is not to be touched here."""
    return any(word.startswith("/") for word in words)


def test_every_command_does_what_it_is_there_for(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """One test, since the story is told once: each command is run on a copy of it, and all that fail are named."""
    name = f"podium_docs_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}_{os.getpid()}"
    wrong = []
    try:
        world = tell(database_url, name, tmp_path_factory.mktemp("podium home"))
        once = {command.words: command for command in COMMANDS if is_run(command)}
        for command in once.values():
            if leaves_the_folder(world.filled(command.words)):
                continue
            result = world.run(command.words, tmp_path_factory.mktemp("reader"))
            if result.exit_code != 0:
                wrong.append(f"{command}: {result.output}{result.exception!r}")
    finally:
        on_server(database_url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    assert not wrong, "\n".join(wrong)

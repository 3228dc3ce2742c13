"""An installation in which the commands of the docs can be run: the project of `podium story`, told once.

Each command gets a copy of its database, so no command meets what another one did, and they may run in any order.
"""

import gzip
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool
from typer.testing import CliRunner, Result

from app import db
from app.cli import cli
from app.settings import get_settings
from tests.docs.checks import parsed
from tests.docs.pages import ROOT

PROJECT = "story"
IMPORTS = (ROOT / "docs" / "imports.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class World:
    """The told story. url: its database, which is copied and never used itself."""

    server: str
    name: str
    home: Path
    values: Mapping[str, Any]  # what stands in it for a placeholder: "snapshot" -> its number

    @contextmanager
    def copy(self) -> Iterator[str]:
        """A database of its own with all that the story left, for as long as it is needed."""
        copy = f"{self.name}_copy"
        on_server(self.server, f'CREATE DATABASE "{copy}" TEMPLATE "{self.name}"')
        try:
            yield url_of(self.server, copy)
        finally:
            on_server(self.server, f'DROP DATABASE "{copy}" WITH (FORCE)')

    def run(self, words: tuple[str, ...], folder: Path) -> Result:
        """Run a command of the docs here, its placeholders filled, in a folder with the files that it reads."""
        write_files(folder)
        with self.copy() as url, pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            return podium(self.filled(words), url, self.home, patch)

    def filled(self, words: tuple[str, ...]) -> list[str]:
        """The words, with what this world has in the place of what only the reader's has."""
        path, given = parsed(words)
        values = self.values | self.values.get(path, {})
        places = {word: str(value) for name, value in values.items() for word in words_of(given.get(name))}
        return [places.get(word, word) for word in words if word != "--wait"]  # there is no trainer to wait for


def words_of(given: Any) -> list[str]:
    """What a parameter was given, as it stands on the command line."""
    return [] if given is None else [str(one) for one in (given if isinstance(given, list) else [given])]


def podium(words: list[str], url: str, home: Path, patch: pytest.MonkeyPatch) -> Result:
    """`podium` in this process, on that database; what this process was connected to stays."""
    patch.setenv("DATABASE_URL", url)
    patch.setenv("PODIUM_HOME", str(home))
    bound = db.SessionFactory.kw.get("bind")
    get_settings.cache_clear()
    try:
        return CliRunner().invoke(cli, words)
    finally:
        get_settings.cache_clear()
        db.SessionFactory.configure(bind=bound)


def tell(server: str, name: str, home: Path) -> World:
    """Make the database, and let `podium` itself fill it: a story, a rule for rounds, an evaluation that waits."""
    on_server(server, f'CREATE DATABASE "{name}"')
    url = url_of(server, name)

    def run(*words: object) -> None:
        with pytest.MonkeyPatch.context() as patch:
            result = podium([str(word) for word in words], url, home, patch)
            assert result.exit_code == 0, result.output

    run("migrate", "--starter")
    run("story", "--slug", PROJECT)
    run("round", "rule", PROJECT, "--rankings", 500)
    values = values_of(url)
    run("reward-model", "evaluate", values["model"], values["snapshot"])
    return World(server, name, home, values)


def values_of(url: str) -> dict[str, Any]:
    """By the name of a parameter; where it means something else for one command, by that command."""
    with create_engine(db.driver_url(url), poolclass=NullPool).connect() as connection:

        def one(statement: str) -> Any:
            return connection.execute(text(statement)).scalar_one()

        return {
            "project": PROJECT,
            "policy": "starter",  # a policy of a hub is not to be had here
            "email": one("SELECT email FROM account ORDER BY id LIMIT 1"),
            "snapshot": one("SELECT max(id) FROM snapshot WHERE num_rankings > 0"),
            "model": one("SELECT max(number) FROM reward_model_version"),
            "evaluation": 1,  # the one that waits
            "version": one("SELECT max(number) FROM policy_version WHERE state = 'retired'"),
            "round resume": {"number": one("SELECT max(number) FROM round WHERE state = 'failed'")},
            "reward-model evaluate": {"split": "validation"},  # no ranking of the story's snapshot is on the test side
        }


def write_files(folder: Path) -> None:
    """The files that commands of the docs are given; their content is that of docs/imports.md."""
    trl = re.search(r"### `trl`\n.*?```json\n(.*?)\n```", IMPORTS, flags=re.DOTALL)
    assert trl is not None
    (folder / "rankings.jsonl").write_text(trl[1] + "\n", encoding="utf-8")
    (folder / "pairs.jsonl.gz").write_bytes(gzip.compress(trl[1].encode() + b"\n"))
    (folder / "prompts.jsonl").write_text(json.dumps({"prompt": "What grows in the shade?"}) + "\n", encoding="utf-8")
    written = {"prompt": "What grows in the shade?", "completion": "Ferns do."}
    (folder / "demonstrations.jsonl").write_text(json.dumps(written) + "\n", encoding="utf-8")
    (folder / "guidelines.md").write_text("# What we look for\n\nHelp that is true.\n", encoding="utf-8")


def url_of(server: str, name: str) -> str:
    made = make_url(server).set(drivername="postgresql", database=name)
    return made.render_as_string(hide_password=False)


def on_server(server: str, statement: str) -> None:
    """A statement outside any transaction, on the server's own database."""
    url = make_url(server).set(database="postgres")
    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text(statement))

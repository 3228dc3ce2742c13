"""`podium backup` and `podium restore`: the installation as one file, and back."""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn
from sqlalchemy import Engine

from app import embedded_postgres, terminal
from app.settings import Settings, get_settings
from app.terminal import CannotStart, say
from app.upkeep.archive import Archive, Watch
from app.upkeep.backup import back_up, file_name
from app.upkeep.errors import NothingToBackUp
from app.upkeep.restore import restore

AsJson = Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")]


def register(cli: typer.Typer) -> None:
    """Add the commands."""
    cli.command("backup")(backup_command)
    cli.command("restore")(restore_command)


def backup_command(
    to: Annotated[
        Path | None, typer.Option("--to", help="The file to write, or a folder that gets one named by the time.")
    ] = None,
    verify: Annotated[
        Path | None, typer.Option("--verify", help="Read a backup and compare every file with its SHA-256 instead.")
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Also where files that the database names are gone.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write database and artifacts into one file, while everything runs; whole or not at all."""
    if (to is None) == (verify is None):
        raise CannotStart("say either --to FILE or --verify FILE")
    if verify is not None:
        _verify(verify, as_json)
        return
    assert to is not None
    if not to.is_dir() and to.suffix != ".tar":
        raise CannotStart(f"{to} is no folder: make it first, or name a file that ends in .tar")
    path = to / file_name(datetime.now(UTC)) if to.is_dir() else to
    if not terminal.has_database(get_settings()):
        raise NothingToBackUp()
    with _installation("podium-backup") as (settings, engine, url), _progress("Backup") as watch:
        made = back_up(settings, engine, url, path.absolute(), allow_missing=allow_missing, watch=watch)
    if as_json:
        say(json.dumps(dataclasses.asdict(made), indent=1))
        return
    say(f"{made.path}: {made.num_rows:,} rows and {made.num_files:,} files, {made.num_bytes:,} bytes")
    _tell_what_is_not_in_it(made.outside, made.missing)


def restore_command(
    source: Annotated[Path, typer.Option("--from", help="A file that `podium backup` wrote.")],
    as_json: AsJson = False,
) -> None:
    """Bring a backup back into an empty installation, at this version's schema."""
    with (
        Archive(source) as backup,
        _installation("podium-restore") as (settings, engine, url),
        _progress("Restore") as watch,
    ):
        restored = restore(settings, engine, url, backup, watch=watch)
    if as_json:
        say(json.dumps(dataclasses.asdict(restored), indent=1))
        return
    say(f"Restored {restored.num_rows:,} rows and {restored.num_files:,} files, as they were at {restored.made_at}.")
    _tell_what_is_not_in_it(restored.outside, restored.missing)


def _verify(path: Path, as_json: bool) -> None:
    with Archive(path) as backup, _progress("Verify") as watch:
        backup.verify(watch)
        about, num_files = backup.about, backup.num_artifacts
    if as_json:
        say(json.dumps({name: value for name, value in about.items() if name != "files"}, indent=1))
        return
    made = f"as they were at {about['made_at']} (Podium {about['podium']})"
    say(f"{path} is whole: the database and {num_files:,} files, {made}.")
    _tell_what_is_not_in_it(about["outside"], about["missing"])


def _tell_what_is_not_in_it(outside: list[str], missing: list[str]) -> None:
    for policy in outside:
        say(f"Not in it, keep it yourself: {policy}")
    for problem in missing:
        say(f"Not in it, it was missing: {problem}")


@contextmanager
def _installation(application: str) -> Iterator[tuple[Settings, Engine, str]]:
    """The database as it stands, at whatever schema: the embedded server is stopped again if it did not run."""
    settings = get_settings()
    folder = terminal.postgres_folder(settings)
    was_running = settings.database_url is not None or embedded_postgres.is_running(folder)
    url = terminal.database_url(settings)
    engine = terminal.reach(url, settings, application=application)
    try:
        yield settings, engine, url
    finally:
        engine.dispose()
        if not was_running:
            embedded_postgres.stop(folder)


@contextmanager
def _progress(what: str) -> Iterator[Watch]:
    """The bytes done and the pace, on a terminal that shows them."""
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)

        def watch(name: str, num_bytes: int) -> None:
            progress.update(task, advance=num_bytes, description=f"{what}: {name.rpartition('/')[2]}")

        yield watch

"""`podium import`: prompts, rankings and demonstrations from files, without the browser."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from app.datasets import line_log, reports
from app.datasets.errors import ImportRefused
from app.datasets.importing import Watch
from app.datasets.imports import FORMATS, Imported, import_file
from app.datasets.line_log import Line, LineLog
from app.datasets.readers.given import REMARKS
from app.db import clock
from app.people.service import audit
from app.projects.service import get_project
from app.terminal import CannotStart, open_session, say

imports = typer.Typer(help="Import prompts, rankings or demonstrations from a file.", no_args_is_help=True)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The file; gzipped or not.")]
ProjectOption = Annotated[str, typer.Option("--project", "-p", help="The project's short name.")]
TrialOption = Annotated[bool, typer.Option("--dry-run", help="Say what each line would become; store nothing.")]
LinesOption = Annotated[
    Path | None, typer.Option("--lines", help="Write what each line became to this file: .csv, else JSON lines.")
]
JSONOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def register(cli: typer.Typer) -> None:
    """Add these commands."""
    cli.add_typer(imports, name="import")


def command(what: str, formats: Sequence[str], about: str) -> None:
    """`podium import <what>`: the three differ in what they read and in which formats."""

    @imports.command(what, help=about)
    def _(
        file: FileArgument,
        project: ProjectOption,
        format: Annotated[str | None, typer.Option(help=f"{', '.join(formats)}; found out if left out.")] = None,
        is_trial: TrialOption = False,
        lines: LinesOption = None,
        as_json: JSONOption = False,
    ) -> None:
        run_import(what, file, project, format, is_trial, lines, as_json)


command("prompts", FORMATS["prompts"], "Plain lines, or records with prompt, text or messages.")
command(
    "rankings",
    FORMATS["rankings"],
    "K-way rankings, pairs, ratings, votes and trees: ours, TRL's, HH-RLHF's and others'.",
)
command(
    "demonstrations",
    FORMATS["demonstrations"],
    "Records with prompt and completion, or messages whose last turn is the assistant's.",
)


def run_import(
    what: str, path: Path, slug: str, format: str | None, is_trial: bool, lines: Path | None, as_json: bool
) -> None:
    with readable(path) as file, open_session() as session, every_problem_said(), watched(file, path) as watch:
        project, now = get_project(session, slug), clock(session)
        imported = import_file(
            session, project, what, file, path.name, format=format, now=now, is_trial=is_trial, watch=watch
        )
        if imported.lines is not None and lines is not None:
            write_lines(lines, imported.lines)  # before the commit: where it cannot be written, nothing is imported
        if imported.record is not None and imported.is_new:
            audit(session, None, "dataset.import", f"import:{imported.record.id}", project_id=project.id, what=what)
    if as_json:
        say(json.dumps({"what": what, "format": imported.format, "is_new": imported.is_new, **imported.report}))
    else:
        tell(imported, path, is_trial)


def tell(imported: Imported, path: Path, is_trial: bool) -> None:
    if not imported.is_new:
        say(f"{path.name} was imported before: nothing has changed.")
        return
    if is_trial and imported.lines is not None:
        show_lines(imported.lines.shown, imported.report["counts"]["lines"])
    would = "would be " if is_trial else ""
    say(f"{path.name} ({imported.format}): {reports.summary(imported.report)} {would}added.")
    for remark in reports.remarks(imported.report):
        say(f"  {remark}")


def show_lines(lines: Sequence[Line], total: int) -> None:
    table = Table("line", "became", "prompt", "rankings", "comparisons", "remark", box=None)
    words = REMARKS | reports.SKIPPED
    for line in lines:
        remark = "; ".join(words[code] for code in line.remark.split())
        table.add_row(str(line.line), line.became, line.prompt, str(line.rankings), str(line.comparisons), remark)
    Console().print(table)
    if total > len(lines):
        say(f"… the first {len(lines)} of {total:,} lines; --lines FILE writes all of them.")


@contextmanager
def every_problem_said() -> Iterator[None]:
    """The error's one sentence names the first line alone; the others stand above it."""
    try:
        yield
    except ImportRefused as error:
        for problem in error.problems[1:]:
            typer.echo(str(problem), err=True)
        raise


def write_lines(path: Path, log: LineLog) -> None:
    """Raises CannotStart, with nothing imported, where the file cannot be written."""
    try:
        with path.open("wb") as file:
            file.writelines(line_log.WRITERS["csv" if path.suffix == ".csv" else "jsonl"](log.all()))
    except OSError as error:
        raise CannotStart(
            f"{path} cannot be written ({error.strerror}): nothing was imported; choose another place"
        ) from error


@contextmanager
def watched(file: BinaryIO, path: Path) -> Iterator[Watch]:
    """A bar of the bytes read, the pace and the time left, on a terminal that shows one."""
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(path.name, total=path.stat().st_size)

        def watch(num_lines_read: int) -> None:
            progress.update(task, completed=file.tell(), description=f"{num_lines_read:,} records")

        yield watch


@contextmanager
def readable(path: Path) -> Iterator[BinaryIO]:
    """The file, open. Raises CannotStart with one sentence if it cannot be read."""
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        if error.filename != str(path):
            raise
        raise CannotStart(f"{path} cannot be read ({error.strerror}): check the path") from error

"""`podium import` and `podium snapshot`: datasets without the browser."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
from sqlalchemy import select

from app.datasets import reports
from app.datasets.imports import import_file
from app.datasets.models import Snapshot
from app.datasets.snapshots import create_snapshot, filter_of
from app.db import clock
from app.people.service import audit
from app.projects.service import get_project
from app.terminal import CannotStart, open_session, say

imports = typer.Typer(help="Import prompts, rankings or demonstrations from a file.", no_args_is_help=True)
snapshots = typer.Typer(help="Freeze rankings and demonstrations, and list what is frozen.", no_args_is_help=True)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The file; gzipped or not.")]
ProjectOption = Annotated[str, typer.Option("--project", "-p", help="The project's short name.")]
TrialOption = Annotated[bool, typer.Option("--dry-run", help="Say what each line would become; store nothing.")]
JSONOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def register(cli: typer.Typer) -> None:
    """Add this area's commands."""
    cli.add_typer(imports, name="import")
    cli.add_typer(snapshots, name="snapshot")


@imports.command("prompts")
def import_prompts(
    file: FileArgument,
    project: ProjectOption,
    format: Annotated[str | None, typer.Option(help="lines, jsonl, csv or parquet; found out if left out.")] = None,
    is_trial: TrialOption = False,
    as_json: JSONOption = False,
) -> None:
    """Plain lines, or records with prompt, text or messages."""
    run_import("prompts", file, project, format, is_trial, as_json)


@imports.command("rankings")
def import_rankings(
    file: FileArgument,
    project: ProjectOption,
    format: Annotated[
        str | None, typer.Option(help="kwise, squality, pairwise, hh or trl; found out if left out.")
    ] = None,
    is_trial: TrialOption = False,
    as_json: JSONOption = False,
) -> None:
    """K-way rankings (our kwise, Open-Assistant's, SQuALITY's), pairwise judgements, HH-RLHF or TRL pairs."""
    run_import("rankings", file, project, format, is_trial, as_json)


@imports.command("demonstrations")
def import_demonstrations(
    file: FileArgument,
    project: ProjectOption,
    format: Annotated[str | None, typer.Option(help="jsonl, csv or parquet; found out if left out.")] = None,
    is_trial: TrialOption = False,
    as_json: JSONOption = False,
) -> None:
    """Records with prompt and completion, or messages whose last turn is the assistant's."""
    run_import("demonstrations", file, project, format, is_trial, as_json)


def run_import(what: str, path: Path, slug: str, format: str | None, is_trial: bool, as_json: bool) -> None:
    with readable(path) as file, open_session() as session:
        project = get_project(session, slug)
        imported = import_file(
            session, project, what, file, path.name, format=format, now=clock(session), is_trial=is_trial
        )
        if imported.record is not None and imported.is_new:
            audit(session, None, "dataset.import", f"import:{imported.record.id}", project_id=project.id, what=what)
    if as_json:
        say(json.dumps({"what": what, "format": imported.format, "is_new": imported.is_new, **imported.report}))
    elif not imported.is_new:
        say(f"{path.name} was imported before: nothing has changed.")
    else:
        would = "would be " if is_trial else ""
        say(f"{path.name} ({imported.format}): {reports.summary(imported.report)} {would}added.")
        for remark in reports.remarks(imported.report):
            say(f"  {remark}")


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


@snapshots.command("create")
def create(
    project: Annotated[str, typer.Argument(help="The project's short name.")],
    name: Annotated[str | None, typer.Option(help="What to call it; the time if left out.")] = None,
    content: Annotated[list[str] | None, typer.Option(help="rankings or demonstrations; both if left out.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Kind of slate; may be repeated.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="train, validation or test; may be repeated.")] = None,
    policy: Annotated[list[int] | None, typer.Option(help="Number of a policy version; may be repeated.")] = None,
    labeler: Annotated[list[str] | None, typer.Option(help="Pseudonym of a labeler; may be repeated.")] = None,
    since: Annotated[str | None, typer.Option(help="First moment, ISO; UTC unless it says otherwise.")] = None,
    until: Annotated[str | None, typer.Option(help="First moment that is left out, ISO.")] = None,
    as_json: JSONOption = False,
) -> None:
    """Freeze the rankings and demonstrations that all the options allow."""
    with open_session() as session:
        found, now = get_project(session, project), clock(session)
        filter = filter_of(
            contents=content,
            kinds=kind,
            splits=split,
            policy_versions=policy,
            labelers=labeler,
            since=since,
            until=until,
        )
        name = name or f"{now:%Y-%m-%d %H:%M:%S} UTC"
        snapshot = create_snapshot(session, found, name=name, filter=filter, account=None, now=now)
        audit(session, None, "snapshot.create", f"snapshot:{snapshot.id}", project_id=found.id, name=snapshot.name)
        say(json.dumps(facts(snapshot)) if as_json else line(snapshot))


@snapshots.command("list")
def list_(
    project: Annotated[str, typer.Argument(help="The project's short name.")], as_json: JSONOption = False
) -> None:
    """The project's snapshots, the oldest first."""
    with open_session() as session:
        found = get_project(session, project)
        for snapshot in session.scalars(select(Snapshot).filter_by(project_id=found.id).order_by(Snapshot.id)):
            say(json.dumps(facts(snapshot)) if as_json else line(snapshot))


def line(snapshot: Snapshot) -> str:
    return (
        f"{snapshot.id}  {snapshot.name}: {snapshot.num_rankings:,} rankings, {snapshot.num_comparisons:,} comparisons,"
        f" {snapshot.num_demonstrations:,} demonstrations, sha256 {snapshot.sha256}"
    )


def facts(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "id": snapshot.id,
        "name": snapshot.name,
        "num_rankings": snapshot.num_rankings,
        "num_comparisons": snapshot.num_comparisons,
        "num_demonstrations": snapshot.num_demonstrations,
        "counts": snapshot.counts,
        "sha256": snapshot.sha256,
        "sft_sha256": snapshot.sft_sha256,
    }

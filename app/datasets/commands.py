"""`podium import` and `podium snapshot`: datasets without the browser."""

import json
from typing import Annotated, Any

import typer
from sqlalchemy import select

from app.datasets import import_commands
from app.datasets.filters import SnapshotFilter, filter_of
from app.datasets.labeler_groups import LabelerGroup
from app.datasets.licences import licence_of
from app.datasets.models import Snapshot
from app.datasets.snapshots import create_snapshot
from app.db import clock
from app.people.service import audit
from app.projects.service import get_project
from app.terminal import open_session, say

snapshots = typer.Typer(help="Freeze rankings and demonstrations, and list what is frozen.", no_args_is_help=True)

GROUPS = ", ".join(LabelerGroup)
JSONOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def register(cli: typer.Typer) -> None:
    """Add this area's commands."""
    import_commands.register(cli)
    cli.add_typer(snapshots, name="snapshot")


@snapshots.command("create")
def create(
    project: Annotated[str, typer.Argument(help="The project's short name.")],
    name: Annotated[str | None, typer.Option(help="What to call it; the time if left out.")] = None,
    content: Annotated[list[str] | None, typer.Option(help="rankings or demonstrations; both if left out.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Kind of slate; may be repeated.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="train, validation or test; may be repeated.")] = None,
    prompt_kind: Annotated[list[str] | None, typer.Option(help="Kind of prompt; may be repeated.")] = None,
    policy: Annotated[list[int] | None, typer.Option(help="Number of a policy version; may be repeated.")] = None,
    labeler: Annotated[list[str] | None, typer.Option(help="Pseudonym of a labeler; may be repeated.")] = None,
    group: Annotated[list[str] | None, typer.Option(help=f"Labelers who are {GROUPS}; may be repeated.")] = None,
    without_group: Annotated[list[str] | None, typer.Option(help="Labelers who are not; may be repeated.")] = None,
    since: Annotated[str | None, typer.Option(help="First moment, ISO; UTC unless it says otherwise.")] = None,
    until: Annotated[str | None, typer.Option(help="First moment that is left out, ISO.")] = None,
    min_k: Annotated[int | None, typer.Option(help="Fewest completions on a slate.")] = None,
    max_k: Annotated[int | None, typer.Option(help="Most completions on a slate.")] = None,
    min_agreement: Annotated[float | None, typer.Option(help="Least agreement of a slate, 0 to 1.")] = None,
    max_agreement: Annotated[float | None, typer.Option(help="Most agreement of a slate, 0 to 1.")] = None,
    flag: Annotated[list[str] | None, typer.Option(help="A completion has one of these flags.")] = None,
    without_flag: Annotated[list[str] | None, typer.Option(help="No completion has any of these.")] = None,
    ties: Annotated[str | None, typer.Option(help="with or without; both if left out.")] = None,
    strength: Annotated[list[str] | None, typer.Option(help="How much better the better one is.")] = None,
    asked_by: Annotated[list[str] | None, typer.Option(help="disagreement or random.")] = None,
    origin: Annotated[list[str] | None, typer.Option(help="here or imported; both if left out.")] = None,
    shared: Annotated[
        bool | None, typer.Option("--shared/--not-shared", help="Slates that several people ranked, or one.")
    ] = None,
    adjudicated: Annotated[
        bool | None, typer.Option("--adjudicated/--not-adjudicated", help="Slates that a researcher decided, or not.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="As Hugging Face names it; the project's if left out.")] = None,
    as_json: JSONOption = False,
) -> None:
    """Freeze the rankings and demonstrations that all the options allow."""
    filter = filter_of(
        contents=content,
        kinds=kind,
        splits=split,
        prompt_kinds=prompt_kind,
        policy_versions=policy,
        labelers=labeler,
        labeler_groups=group,
        without_labeler_groups=without_group,
        since=since,
        until=until,
        min_k=min_k,
        max_k=max_k,
        min_agreement=min_agreement,
        max_agreement=max_agreement,
        flags=flag,
        without_flags=without_flag,
        ties=ties,
        strengths=strength,
        asked_by=asked_by,
        origins=origin,
        is_shared=shared,
        is_adjudicated=adjudicated,
    )
    freeze(project, name, filter, licence, as_json)


def freeze(slug: str, name: str | None, filter: SnapshotFilter, licence: str | None, as_json: bool) -> None:
    """Freeze what the filter selects, and say what that is."""
    with open_session() as session:
        project, now = get_project(session, slug), clock(session)
        name = name or f"{now:%Y-%m-%d %H:%M:%S} UTC"
        chosen = licence_of(licence) if licence else project.licence
        snapshot = create_snapshot(session, project, name=name, filter=filter, licence=chosen, account=None, now=now)
        audit(session, None, "snapshot.create", f"snapshot:{snapshot.id}", project_id=project.id, name=snapshot.name)
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

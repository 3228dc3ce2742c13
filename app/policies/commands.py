"""`podium policy`: which version labelers see."""

import json
from typing import Annotated

import typer

from app import db, terminal
from app.policies import benchmark_commands, promotion, service
from app.policies.models import PolicyVersion
from app.projects.service import get_project

policy = typer.Typer(help="Policy versions of a project.", no_args_is_help=True, rich_markup_mode=None)

ProjectSlug = Annotated[str, typer.Argument(help="The project's slug.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(cli: typer.Typer) -> None:
    """Add this area's commands."""
    cli.add_typer(policy, name="policy")
    benchmark_commands.register(policy)


@policy.command("list")
def list_versions(project: ProjectSlug, as_json: AsJson = False) -> None:
    """Every version, the first one first."""
    with terminal.open_session() as session:
        versions = service.versions_of(session, get_project(session, project))
        lines = [describe(version) for version in versions]
    if as_json:
        terminal.say(json.dumps(lines))
        return
    for line in lines:
        terminal.say(f"version {line['number']}  {line['state']}  {line['recipe']}")


@policy.command("promote")
def promote(
    project: ProjectSlug,
    version: Annotated[int, typer.Argument(help="The version's number.")],
    as_json: AsJson = False,
) -> None:
    """Make a version the one that labelers see."""
    with terminal.open_session() as session:
        found = get_project(session, project)
        chosen = service.get_version(session, found, version)
        promotion.promote(session, found, chosen, account=None, now=db.clock(session), on_command_line=True)
        line = describe(chosen)
    say(line, as_json)


@policy.command("rollback")
def rollback(project: ProjectSlug, as_json: AsJson = False) -> None:
    """Return to the version that was current before."""
    with terminal.open_session() as session:
        found = get_project(session, project)
        line = describe(promotion.roll_back(session, found, account=None, now=db.clock(session)))
    say(line, as_json)


def describe(version: PolicyVersion) -> dict[str, str | int]:
    return {"number": version.number, "state": version.state.value, "recipe": version.recipe}


def say(line: dict[str, str | int], as_json: bool) -> None:
    terminal.say(json.dumps(line) if as_json else f"Version {line['number']} is current: it writes the next slates.")

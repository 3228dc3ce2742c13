"""`podium artifacts`: what lies where, what the installation's rule lets go, and what is kept by hand."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from app.db import SessionFactory, clock
from app.policies.models import PolicyVersion, RewardModelVersion
from app.policies.service import get_version
from app.projects.service import get_project
from app.reward_models.service import find_fitted
from app.settings import get_settings
from app.terminal import open_session, say
from app.upkeep.bringing import bring_back
from app.upkeep.pruning import Pruned, plan, prune
from app.upkeep.retention import keep, name_of_version, rule_of, rule_words
from app.upkeep.storage import name_of, places_of, used_by_projects

artifacts = typer.Typer(
    help="Files of rounds: how large they are, and which may go.", no_args_is_help=True, rich_markup_mode=None
)

AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]


def register(cli: typer.Typer) -> None:
    """Add this area's commands."""
    cli.add_typer(artifacts, name="artifacts")


@artifacts.command("list")
def list_command(as_json: AsJson = False) -> None:
    """How much room each project's files take."""
    listed = [(name_of(place), used_by_projects(place.files("projects"))) for place in places_of(get_settings())]
    if as_json:
        say(
            json.dumps(
                [{"place": name, "projects": [dataclasses.asdict(use) for use in uses]} for name, uses in listed]
            )
        )
        return
    for name, uses in listed:
        say(f"{name}: {decimal(sum(use.total for use in uses))}")
        for use in uses:
            kinds = f"weights {decimal(use.weights)}, checkpoints {decimal(use.checkpoints)}, rest {decimal(use.rest)}"
            say(f"  {use.project}: {decimal(use.total)} ({kinds})")


@artifacts.command("prune")
def prune_command(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go, and what that costs.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what the rule of PODIUM_KEEP_VERSIONS and PODIUM_KEEP_CHECKPOINTS_DAYS lets go."""
    settings = get_settings()
    rule = rule_of(settings)
    with open_session() as session:
        if dry_run:
            found = list(plan(session, settings, rule))
        else:
            session.commit()  # nothing of ours is open while others are locked
            found = [_told(each, as_json) for each in prune(SessionFactory.kw["bind"], settings, rule)]
    if as_json:
        say(json.dumps([dataclasses.asdict(each) for each in found], indent=1))
        return
    if dry_run:
        for each in found:
            _told(each, as_json)
    total = decimal(sum(each.num_bytes for each in found))
    say(f"{total} {'would go' if dry_run else 'went'}. The rule: {rule_words(rule)}.")


@artifacts.command("keep")
def keep_command(
    project: Annotated[str, typer.Argument(help="The project's short name.")],
    number: Annotated[int, typer.Argument(help="The policy version's.")],
    undo: Annotated[bool, typer.Option("--undo", help="Leave it to the rule again.")] = False,
) -> None:
    """Keep the weights of a policy version, and of what it was made from, whatever the rule says."""
    with open_session() as session:
        found = get_project(session, project)
        version = get_version(session, found, number)
        keep(session, version, account=None, now=None if undo else clock(session))
    say(f"Policy version {number} of {project} is {'left to the rule' if undo else 'kept'}.")


@artifacts.command("bring")
def bring_command(
    project: Annotated[str, typer.Argument(help="The project's short name.")],
    number: Annotated[int, typer.Argument(help="The policy version's, or the reward model's.")],
    source: Annotated[
        Path, typer.Option("--from", help="The result's folder, of an unpacked backup or of `podium reproduce`.")
    ],
    reward_model: Annotated[bool, typer.Option("--reward-model", help="A reward model, not a policy version.")] = False,
) -> None:
    """Bring back weights that the rule removed: they must be the registered ones, to the bit."""
    with open_session() as session:
        found = get_project(session, project)
        version: PolicyVersion | RewardModelVersion
        version = find_fitted(session, found, number).version if reward_model else get_version(session, found, number)
        num_bytes = bring_back(session, get_settings(), version, source, now=clock(session))
        what = f"{name_of_version(version)} of {project}"
    say(f"{decimal(num_bytes)} came back: {what} can be used again.")


def _told(each: Pruned, as_json: bool) -> Pruned:
    if not as_json:
        costs = f" ({each.costs})" if each.costs else ""
        say(f"{decimal(each.num_bytes):>10}  {each.what}{costs}")
    return each

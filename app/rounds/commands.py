"""`podium round`: the loop from the command line."""

import json
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer

from app import db, terminal
from app.people.models import Account
from app.policies.evaluation import win_rate
from app.policies.models import PolicyVersion
from app.projects.service import get_project
from app.rounds import service
from app.rounds.models import ACTIVE_ROUND_STATES, Recipe, Round, RoundState, StageState
from app.rounds.resuming import resume_round
from app.rounds.rule_commands import rule
from app.rounds.service import DEFAULT_STAGES
from trainer.settings import parse_assignments

round_commands = typer.Typer(help="Rounds of a project.", no_args_is_help=True, rich_markup_mode=None)

round_commands.command("rule")(rule)

POLL_S = 1.0
ProjectSlug = Annotated[str, typer.Argument(help="The project's slug.")]
RoundNumber = Annotated[int | None, typer.Argument(help="The round's number; the newest when left out.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(cli: typer.Typer) -> None:
    """Add this area's commands."""
    cli.add_typer(round_commands, name="round")


@round_commands.command("start")
def start(
    project: ProjectSlug,
    stages: Annotated[str, typer.Option(help="Recipes, parted by commas.")] = ",".join(DEFAULT_STAGES),
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting: ppo.kl_coef=0.02. May be given many times.")
    ] = None,
    comparisons: Annotated[
        int | None, typer.Option(help="Blind comparisons at the end; the project's number when left out.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the stages; one of the project's when left out.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Watch until the stages have ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start a round: freeze the rankings, fit a reward model, improve the policy, judge it."""
    overrides = parse_assignments(settings or [])
    with terminal.open_session() as session:
        round = service.start_round(
            session,
            get_project(session, project),
            stages=[stage.strip() for stage in stages.split(",") if stage.strip()],
            overrides=overrides,
            account=None,
            now=db.clock(session),
            seed=seed,
            evaluation_comparisons=comparisons,
        )
        number = round.number
        found = describe(round)
    if wait:
        follow(project, number, as_json)
    else:
        terminal.say(
            json.dumps(found) if as_json else f"Round {number} is queued; podium round watch {project} shows it."
        )


@round_commands.command("watch")
def watch(project: ProjectSlug, number: RoundNumber = None, as_json: AsJson = False) -> None:
    """Say what happens until the stages have ended; exit code 1 if the round failed."""
    follow(project, number, as_json)


@round_commands.command("cancel")
def cancel(project: ProjectSlug, number: RoundNumber = None) -> None:
    """Call a round off; what it has computed stays."""
    change(project, number, service.cancel_round)
    terminal.say("Cancelled, or about to be: a running stage first saves a checkpoint.")


@round_commands.command("resume")
def resume(
    project: ProjectSlug,
    number: RoundNumber = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Another value of a setting: ppo.micro_batch_tokens=2048. May be given many times."),
    ] = None,
    anew: Annotated[list[Recipe] | None, typer.Option(help="A stage to begin anew, without its checkpoint.")] = None,
) -> None:
    """Go on with a failed or cancelled round: from its last checkpoint, or anew where settings ask for it."""
    overrides = parse_assignments(settings or [])
    change(project, number, resume_round, overrides=overrides, begin_anew=anew or [])
    terminal.say("Queued again; podium round watch shows it.")


def change(project: str, number: int | None, act: Callable[..., None], **how: Any) -> None:
    with terminal.open_session() as session:
        account: Account | None = None  # whoever has this machine
        act(session, chosen_round(session, project, number), account=account, now=db.clock(session), **how)


def chosen_round(session: Any, project: str, number: int | None) -> Round:
    found = get_project(session, project)
    if number is not None:
        return service.get_round(session, found, number)
    rounds = service.rounds_of(session, found)
    if not rounds:
        terminal.refuse(f"the project {project} has no round yet: start one with podium round start {project}")
    return rounds[0]


def follow(project: str, number: int | None, as_json: bool) -> None:
    """Print each change of state. A round that waits for people's comparisons is done for a terminal."""
    said: dict[str, str] = {}
    with terminal.open_session():
        while True:
            with db.SessionFactory() as session:  # one for each look: between two, nothing is held
                round = chosen_round(session, project, number)
                number = round.number
                if not as_json:
                    tell_changes(round, said)
                if round.state not in ACTIVE_ROUND_STATES or round.state == RoundState.AWAITING_LABELS:
                    verdict, candidate = verdict_of(session, round), candidate_of(session, round)
                    found = describe(round) | {"win_rate": verdict, "candidate": candidate}
                    break
            time.sleep(POLL_S)
    if as_json:
        terminal.say(json.dumps(found))
    if found["state"] == RoundState.FAILED:
        terminal.refuse(f"round {number} failed: {found['error']}")


def tell_changes(round: Round, said: dict[str, str]) -> None:
    states = {stage.recipe.value: stage.state.value for stage in round.stages} | {
        f"round {round.number}": round.state.value
    }
    for name, state in states.items():
        if said.get(name) != state:
            terminal.say(f"{name}: {state.replace('_', ' ')}")
    said.update(states)


def describe(round: Round) -> dict[str, Any]:
    failed = next((stage.error for stage in round.stages if stage.state == StageState.FAILED), None)
    return {
        "number": round.number,
        "state": round.state.value,
        "stages": {stage.recipe.value: stage.state.value for stage in round.stages},
        "figures": {stage.recipe.value: stage.result for stage in round.stages if stage.result},
        "error": failed["message"] if failed else None,
    }


def verdict_of(session: Any, round: Round) -> dict[str, float] | None:
    verdict = win_rate(session, round)
    return None if verdict is None else vars(verdict)


def candidate_of(session: Any, round: Round) -> int | None:
    return session.get_one(PolicyVersion, round.candidate_id).number if round.candidate_id else None

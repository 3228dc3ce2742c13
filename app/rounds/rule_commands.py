"""`podium round rule`: the rule for rounds that start by themselves, from the command line."""

from typing import Annotated

import typer

from app import db, terminal
from app.projects.service import get_project
from app.rounds import rules
from app.rounds.rule_api import rule_now, write
from app.rounds.schemas import RuleIn, RuleOut
from trainer.settings import parse_assignments


def rule(
    project: Annotated[str, typer.Argument(help="The project's slug.")],
    rankings: Annotated[int | None, typer.Option(help="New rankings that start a round.")] = None,
    hours: Annotated[float | None, typer.Option(help="Least hours from one start to the next.")] = None,
    stages: Annotated[str | None, typer.Option(help="Recipes, parted by commas.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting: ppo.kl_coef=0.02. May be given many times.")
    ] = None,
    comparisons: Annotated[int | None, typer.Option(help="Blind comparisons at each round's end.")] = None,
    switch: Annotated[
        bool | None, typer.Option("--on/--off", help="Let the rule go on, or start nothing by it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the rule, or change what is given of it: "when 500 new rankings are in, start a round"."""
    given = {
        "num_rankings": rankings,
        "least_hours": hours,
        "stages": None if stages is None else [stage.strip() for stage in stages.split(",") if stage.strip()],
        "overrides": parse_assignments(settings) if settings else None,
        "evaluation_comparisons": comparisons,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    with terminal.open_session() as session:
        found = get_project(session, project)
        if changes:
            before = rules.rule_of(session, found)
            form = RuleIn(**{**(rules.described(before) if before else {}), **changes, "is_paused": switch is False})
            now = write(session, found, form, account=None)
        else:
            if switch is True:
                rules.unpause_rule(session, found, account=None)
            elif switch is False:
                rules.pause_rule(session, found, account=None, now=db.clock(session))
            now = rule_now(session, found)
    terminal.say(now.model_dump_json() if as_json else told(now))


def told(rule: RuleOut) -> str:
    """The rule in a sentence or two."""
    what = f"When {rule.num_rankings} new rankings are in, a round of {', '.join(rule.stages)} is started"
    if rule.least_hours:
        what += f", {rule.least_hours:g} hours after the last one at the earliest"
    if rule.is_paused:
        return f"{what}. The rule is off: {rule.paused_because or 'somebody paused it'}."
    if rule.problem and not rule.waits_for:
        return f"{what}. One is due and could not start: {rule.problem['message']}"
    waits = f"it waits for {', '.join(rule.waits_for)}" if rule.waits_for else "a trainer starts one at its next look"
    return f"{what}. {rule.num_new_rankings} are in; {waits}."

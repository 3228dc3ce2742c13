"""`podium simulate` and `podium demo`: the loop without people."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from app import db, terminal
from app.projects.service import get_project
from app.settings import get_settings
from app.simulation.crowd import Crowd
from app.simulation.demo import DemoPlan, run_demo
from app.simulation.labelers import NOISE
from app.simulation.people import hire
from app.simulation.story.acts import tell_story
from trainer.settings import parse_assignments


def register(cli: typer.Typer) -> None:
    """Add this area's commands."""
    cli.command()(simulate)
    cli.command()(demo)
    cli.command()(story)


def simulate(
    project: Annotated[str, typer.Argument(help="The project's slug.")],
    labelers: Annotated[int, typer.Option(min=1, max=64, help="Simulated labelers who work at the same time.")] = 4,
    rankings: Annotated[int, typer.Option(min=1, help="Rankings they give, all together.")] = 200,
    noise: Annotated[float, typer.Option(min=0, max=0.5, help="Share of pairs on which they err.")] = NOISE,
    seed: Annotated[int, typer.Option(help="The same seed judges the same slate alike.")] = 0,
    url: Annotated[str | None, typer.Option(help="Address of the web process; this installation's if unset.")] = None,
) -> None:
    """Let simulated labelers rank slates of a project over the HTTP API of a running installation."""
    with terminal.open_session() as session:
        keys = hire(session, get_project(session, project), labelers, now=db.clock(session))
    crowd = Crowd(url or get_settings().address, project, keys, noise=noise, seed=seed)
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("Rankings", total=rankings)
        num_rankings = crowd.rank(rankings, lambda: progress.advance(task))
    terminal.say(f"{labelers} simulated labelers gave {num_rankings} rankings.")


def demo(
    cycles: Annotated[int, typer.Option(min=1, max=20, help="Times round the loop.")] = 2,
    rankings: Annotated[int, typer.Option(min=20, help="Rankings before each round.")] = 600,
    labelers: Annotated[int, typer.Option(min=1, max=64, help="Simulated labelers who work at the same time.")] = 4,
    noise: Annotated[float, typer.Option(min=0, max=0.5, help="Share of pairs on which they err.")] = NOISE,
    seed: Annotated[int, typer.Option(help="Seed of everything that is drawn.")] = 0,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A recipe's setting, e.g. ppo.kl_coef=0.02.")] = None,
    home: Annotated[
        Path | None, typer.Option(help="Folder for the demo's own installation, kept; unset: temporary.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report into this file.")] = None,
) -> None:
    """Run the whole loop hands-free in an installation of its own, and report what the policy gained."""
    plan = DemoPlan(
        cycles=cycles,
        num_rankings=rankings,
        num_labelers=labelers,
        noise=noise,
        seed=seed,
        overrides=parse_assignments(set_ or []),
    )
    report = run_demo(plan, home, terminal.say)
    if json_file is not None:
        json_file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    low, high = report["win_rate_interval"]
    terminal.say(
        f"The last policy wins {report['win_rate']:.1%} of the comparisons with the first "
        f"(95 %: {low:.1%} to {high:.1%}), after {report['seconds']:.0f} seconds."
    )


def story(
    slug: Annotated[str, typer.Option(help="Short name of the project to make.")] = "story",
    seed: Annotated[int, typer.Option(help="The same seed tells the same story.")] = 0,
) -> None:
    """Make a project of six rounds to look at, in which everything has happened; nothing is trained for it."""
    with terminal.open_session() as session:
        told = tell_story(session, get_settings(), slug=slug, now=db.clock(session), seed=seed)
    terminal.say(
        f"Made the project {slug}: {len(told.states)} rounds, {told.num_rankings} rankings, "
        f"policy version {told.current} is current. Open /projects/{slug}."
    )

"""`podium reproduce`: hands over to the model side, which this side does not import."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer


def register(cli: typer.Typer) -> None:
    """Add this area's command."""
    cli.command("reproduce")(reproduce)


def reproduce(
    project: Annotated[str, typer.Argument(help="The project's slug.")],
    version: Annotated[int, typer.Argument(help="The policy version's number.")],
    to: Annotated[Path, typer.Option("--to", help="A new or empty folder: it becomes the round folder.")],
    is_reward_model: Annotated[
        bool, typer.Option("--reward-model", help="The number is a reward model's, not a policy version's.")
    ] = False,
    run: Annotated[bool, typer.Option("--run", help="Train at once, and compare the weights.")] = False,
    chain: Annotated[
        bool,
        typer.Option("--chain", help="Train all that led to it too, from the base model on, each in a folder below."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Write a model's round folder again, from the frozen labels and its parents, and train it once more."""
    options = {"--reward-model": is_reward_model, "--run": run, "--chain": chain, "--json": as_json}
    given = [project, str(version), str(to), *(name for name, is_set in options.items() if is_set)]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "trainer.reproduce", *given])  # noqa: S606 - our own program

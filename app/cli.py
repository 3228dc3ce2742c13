"""The command line. Each area adds its own commands; here are the processes, and how errors are said.

An area's `commands.py` has `register(cli)`, which adds its commands or groups to the root. An error is one sentence
on stderr: exit code 2 when the command or its surroundings are wrong, 1 when what it asks for is refused.
"""

import os
import sys
from importlib.metadata import version
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from sqlalchemy.exc import OperationalError

from app import db, embedded_postgres, migrate, serving, terminal
from app.datasets import commands as datasets
from app.datasets import export_commands as exports
from app.errors import PodiumError
from app.people import commands as people
from app.people.invitations import first_admin_link
from app.policies import commands as policies
from app.projects import commands as projects
from app.projects.starter import ensure_starter_project
from app.reward_models import commands as reward_models
from app.rounds import commands as rounds
from app.rounds import reproduce_commands as reproducing
from app.settings import Settings, get_settings
from app.simulation import commands as simulation
from app.supervision import end_with_parent
from app.terminal import CannotStart, say
from app.up import up
from app.upkeep import artifact_commands as artifacts
from app.upkeep import commands as upkeep
from app.upkeep import doctor_commands as doctor
from trainer.settings import ConfigError

cli = typer.Typer(
    name="podium",
    help="RLHF from ranking to PPO: one installation, two commands.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)


def _say_version(is_asked: bool) -> None:
    if is_asked:
        say(f"podium {version('podium')}")
        raise typer.Exit


@cli.callback()
def root(
    is_asked: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Say which version this is, and end."),
    ] = False,
) -> None:
    """Nothing: what is asked of all commands together is answered before."""


Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Port to answer on; 0 takes a free one.")]
Host = Annotated[str | None, typer.Option(help="Address to listen on.")]


@cli.command("up")
def up_command(port: Port = None, host: Host = None) -> None:
    """Run everything on this machine: database, web, sampler and trainer."""
    end_with_parent()
    up(_settings(host=host, port=port))


@cli.command()
def serve(
    port: Port = None,
    host: Host = None,
    listener: Annotated[int | None, typer.Option(hidden=True, help="A listening socket that is already open.")] = None,
) -> None:
    """Run the web process."""
    end_with_parent()
    settings = _settings(host=host, port=port)
    if listener is not None:
        serving.serve(settings, serving.inherited(listener))
        return
    with serving.listen(settings) as opened:
        engine = terminal.reach_migrated(settings, application="podium-web")
        address = serving.address(settings, opened)
        with db.SessionFactory.begin() as session:
            link = first_admin_link(session, address, now=db.clock(session))
        engine.dispose()
        db.SessionFactory.configure(bind=None)  # each web process connects for itself
        say(f"Podium is at {address}")
        if link is not None:
            say(f"Open this link once to become its administrator: {link}")
        serving.serve(settings, opened)


@cli.command()
def sampler() -> None:
    """Run a sampler: it keeps the projects' queues of slates filled."""
    _become("trainer.sampler")


@cli.command()
def trainer() -> None:
    """Run a trainer: it runs the stages of rounds."""
    _become("trainer.worker")


@cli.command("migrate")
def migrate_command(
    starter: Annotated[bool, typer.Option("--starter", help="Make the starter project too, if it is missing.")] = False,
) -> None:
    """Bring the database to this version's schema."""
    settings = get_settings()
    engine = terminal.reach(terminal.database_url(settings), settings, application="podium-migrate")
    migrate.upgrade(engine)
    if starter:
        with db.SessionFactory.begin() as session:
            ensure_starter_project(session)
    engine.dispose()
    say("The database is at this version's schema.")


for area in (projects, people, datasets, exports, rounds, reproducing, policies, reward_models, simulation):
    area.register(cli)
for area in (upkeep, doctor, artifacts):
    area.register(cli)


def main() -> None:
    """The entry point: every error that has a name is one sentence."""
    try:
        cli()
    except (CannotStart, ConfigError, embedded_postgres.PostgresDidNotStart) as error:
        terminal.refuse(str(error), exit_code=terminal.USAGE)
    except ValidationError as error:
        if error.title != Settings.__name__:
            raise
        terminal.refuse(_wrong_environment(error), exit_code=terminal.USAGE)
    except PodiumError as error:
        terminal.refuse(str(error))
    except OperationalError as error:
        terminal.refuse(f"the database did not answer ({str(error.orig).strip().splitlines()[0]}): try again")


def _wrong_environment(error: ValidationError) -> str:
    """What is wrong with which variable, and never what stands in it: that may be a secret."""
    problems = []
    for problem in error.errors(include_input=False):
        name = "".join(f"PODIUM_{part}".upper() if str(part).islower() else str(part) for part in problem["loc"])
        problems.append(": ".join(filter(None, (name, problem["msg"].removeprefix("Value error, ")))))
    return "; ".join(problems)


def _settings(**given: Any) -> Settings:
    """The installation's settings, with what the command line says otherwise."""
    return get_settings().model_copy(update={name: value for name, value in given.items() if value is not None})


def _become(module: str) -> None:
    """Give this process to a module of the model side, which the app does not import."""
    terminal.given_url(get_settings())  # asked now: loading the models' libraries takes seconds
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module])  # noqa: S606 - our own program


if __name__ == "__main__":
    main()

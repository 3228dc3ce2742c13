"""`podium user` and `podium key`: people and programs without the browser."""

import json
from typing import Annotated

import typer

from app import db, serving, terminal
from app.people import service
from app.people.models import Role
from app.projects.service import get_project
from app.settings import get_settings

user = typer.Typer(help="People of a project.", no_args_is_help=True, rich_markup_mode=None)
key = typer.Typer(help="API keys for programs.", no_args_is_help=True, rich_markup_mode=None)


def register(cli: typer.Typer) -> None:
    """Add this area's commands."""
    cli.add_typer(user, name="user")
    cli.add_typer(key, name="key")


@user.command("invite")
def invite(
    project: Annotated[str, typer.Argument(help="The project's slug.")],
    role: Annotated[Role, typer.Option(help="What the person may do.")] = Role.LABELER,
    email: Annotated[str | None, typer.Option(help="Only this address may accept the link.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a link that lets one person join a project."""
    with terminal.open_session() as session:
        token = service.invite(
            session,
            project=get_project(session, project),
            role=role,
            email=email,
            created_by=None,
            now=db.clock(session),
        )
    link = f"{serving.public_address(get_settings())}/invitations/{token}"
    terminal.say(json.dumps({"link": link, "role": role.value}) if as_json else link)


@key.command("create")
def create(
    email: Annotated[str, typer.Argument(help="The account that the program acts for.")],
    name: Annotated[str, typer.Option(help="What the key is for.")] = "command line",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make an API key; it is shown this once."""
    with terminal.open_session() as session:
        account = service.find_by_email(session, email)
        if account is None:
            terminal.refuse(f"no account has the address {email}: see the people page for those there are")
        secret = service.create_key(session, account, name)
    terminal.say(json.dumps({"key": secret, "name": name}) if as_json else secret)

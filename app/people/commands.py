"""`podium user` and `podium key`: setting people up without the browser."""

from datetime import timedelta
from typing import Annotated

import typer
from sqlalchemy import select

from app.db import clock
from app.people import invitations, reset_links, service
from app.people.access import access_to
from app.people.errors import PersonNotFound, ProjectNotFound
from app.people.models import KeyScope, Role
from app.projects.models import Project
from app.settings import get_settings
from app.terminal import open_session, say

users = typer.Typer(help="Invite people, and let them back in.", no_args_is_help=True)
keys = typer.Typer(help="Make API keys.", no_args_is_help=True)


def register(cli: typer.Typer) -> None:
    """Add this area's commands."""
    cli.add_typer(users, name="user")
    cli.add_typer(keys, name="key")


@users.callback()
def _users() -> None:
    pass


@keys.callback()
def _keys() -> None:
    pass


@users.command("invite")
def invite(
    project: Annotated[str, typer.Option("--project", "-p", help="The project's short name.")],
    email: Annotated[
        str | None, typer.Argument(help="Only this address may accept; anyone with the link if left out.")
    ] = None,
    role: Annotated[Role, typer.Option(help="What they may do.")] = Role.LABELER,
) -> None:
    """Print a one-time invitation link."""
    with open_session() as session:
        found = session.scalar(select(Project).where(Project.slug == project))
        if found is None:
            raise ProjectNotFound(project)
        token = invitations.invite(session, project=found, role=role, email=email, created_by=None, now=clock(session))
    say(f"{get_settings().address}/invitations/{token}")


@users.command("reset")
def reset(email: Annotated[str, typer.Argument(help="Whose password it sets.")]) -> None:
    """Print a one-time link for a new password: the way back in when the last admin is locked out."""
    with open_session() as session:
        account = service.find_by_email(session, email)
        if account is None:
            raise PersonNotFound(f"There is no account for {email}.")
        token = reset_links.make_reset_link(session, account, by=None, now=clock(session))
    say(f"{get_settings().address}/reset/{token}")


@keys.command("create")
def create(
    email: Annotated[str, typer.Argument(help="The account that the key belongs to.")],
    name: Annotated[str, typer.Option(help="What the key is for.")] = "command line",
    scope: Annotated[
        KeyScope, typer.Option(help="read: change nothing; label: do what a labeler may; all: what the account may.")
    ] = KeyScope.READ,
    project: Annotated[
        str | None, typer.Option("--project", "-p", help="Short name of the only project that it reaches.")
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, help="It expires after so many; never if left out.")] = None,
) -> None:
    """Print a new API key; it cannot be shown again."""
    with open_session() as session:
        account = service.find_by_email(session, email)
        if account is None:
            raise PersonNotFound(f"There is no account for {email}: invite them first with `podium user invite`.")
        expires_at = clock(session) + timedelta(days=days) if days else None
        only = access_to(session, account, project).project if project else None
        secret = service.create_key(session, account, name, scope=scope, project=only, expires_at=expires_at)
    say(secret)

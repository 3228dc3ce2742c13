"""`podium project`: set-up without the browser."""

import json
from pathlib import Path
from typing import Annotated

import typer

from app import db, terminal
from app.people.service import find_by_email
from app.policies.service import STARTER_SOURCE
from app.projects import service
from app.projects.errors import BadProjectSetting
from app.projects.inspection import inspect

project = typer.Typer(help="Projects.", no_args_is_help=True, rich_markup_mode=None)


def register(cli: typer.Typer) -> None:
    """Add this area's commands."""
    cli.add_typer(project, name="project")


@project.command("create")
def create(
    slug: Annotated[str, typer.Argument(help="Short name: lower-case letters, digits, hyphens.")],
    guidelines: Annotated[Path, typer.Option(help="File with what labelers look for, in Markdown.")],
    name: Annotated[str | None, typer.Option(help="Name for people; the short one when left out.")] = None,
    policy: Annotated[
        str, typer.Option(help="Policy to start from: a folder, a Hugging Face name, or `starter`.")
    ] = STARTER_SOURCE,
    admin: Annotated[str | None, typer.Option(help="E-mail address of the account that is to be its admin.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a project. A policy other than the starter is looked at first, by a sampler that must be running."""
    try:
        text = guidelines.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadProjectSetting("guidelines", f"{guidelines} cannot be read as text ({error})") from error
    with terminal.open_session() as session:
        service.check_new(session, slug=slug, name=name or slug, guidelines=text)
        account = None
        if admin is not None and (account := find_by_email(session, admin)) is None:
            terminal.refuse(f"no account has the address {admin}: invite the person first, or leave --admin out")
        if policy != STARTER_SOURCE and Path(policy).exists():
            policy = str(Path(policy).resolve())  # a sampler may run elsewhere than here
        made = service.create_project(
            session,
            slug=slug,
            name=name or slug,
            policy=inspect(policy),
            guidelines=text,
            created_by=account,
            now=db.clock(session),
        )
        found = {"slug": made.slug, "name": made.name}
    terminal.say(json.dumps(found) if as_json else f"Made the project {found['slug']}.")

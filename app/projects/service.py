"""Projects: made with their first policy version, found by their slug, changed by their admins."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.db import EVENTS_CHANNEL, SAMPLER_CHANNEL, notify
from app.people.errors import ProjectNotFound
from app.people.models import Account, Membership, Role
from app.people.service import audit
from app.policies.service import InspectedPolicy, import_first_version
from app.projects.errors import BadProjectSetting, SlugTaken
from app.projects.models import DEFAULT_FLAGS, Guidelines, Project
from app.projects.settings import SLUG, crossed_limits

LONGEST_NAME = 100  # characters
RESERVED_SLUGS = {"new"}  # /projects/new is a page


def create_project(
    session: Session,
    *,
    slug: str,
    name: str,
    policy: InspectedPolicy,
    guidelines: str,
    created_by: Account | None,
    now: datetime,
    **settings: Any,
) -> Project:
    """Make a project whose policy version 1 is `policy`; whoever makes it is its admin.

    created_by: None when the installation makes it by itself.  settings: columns of Project.
    Raises SlugTaken, BadProjectSetting.
    """
    check_new(session, slug=slug, name=name, guidelines=guidelines)
    settings = {"flags": list(DEFAULT_FLAGS), **settings}
    project = Project(slug=slug, name=name.strip(), created_at=now, **settings)
    session.add(project)
    try:
        session.flush()
    except IntegrityError as error:  # two people chose it at the same moment
        raise SlugTaken(slug) from error
    import_first_version(session, project, policy, now=now)
    session.add(
        Guidelines(
            project_id=project.id,
            version=1,
            markdown=guidelines,
            created_by=created_by.id if created_by else None,
            created_at=now,
        )
    )
    if created_by is not None:
        session.add(Membership(account_id=created_by.id, project_id=project.id, role=Role.ADMIN, created_at=now))
    session.flush()
    audit(session, created_by.id if created_by else None, "project.create", f"project:{slug}", project_id=project.id)
    notify(session, SAMPLER_CHANNEL)
    return project


def check_new(session: Session, *, slug: str, name: str, guidelines: str) -> None:
    """Raises BadProjectSetting, SlugTaken for what can be known to be wrong before a policy is looked at."""
    check_name(session, name)
    if not guidelines.strip():
        raise BadProjectSetting("guidelines", "must say what labelers look for")
    check_slug(session, slug)


def check_name(session: Session, name: str) -> None:
    """Raises BadProjectSetting. Two projects may have the same name."""
    if not 0 < len(name.strip()) <= LONGEST_NAME:
        raise BadProjectSetting("name", f"takes 1 to {LONGEST_NAME} characters")


def check_slug(session: Session, slug: str) -> None:
    """Raises BadProjectSetting, SlugTaken."""
    if not SLUG.fullmatch(slug) or slug in RESERVED_SLUGS:
        raise BadProjectSetting("slug", "takes lower-case letters, digits and hyphens, 63 at most, and not `new`")
    if session.scalar(select(Project.id).where(Project.slug == slug)) is not None:
        raise SlugTaken(slug)


def get_project(session: Session, slug: str) -> Project:
    """Raises ProjectNotFound."""
    project = session.scalar(select(Project).where(Project.slug == slug))
    if project is None:
        raise ProjectNotFound(slug)
    return project


def update_settings(
    session: Session,
    project: Project,
    values: Mapping[str, Any],
    *,
    account: Account,
    goes_back_before: int | None = None,
) -> None:
    """Change columns of the project; what changed goes on record.

    goes_back_before: the change that these values undo, and all after it.  Raises BadProjectSetting.
    """
    changed = {
        name: [getattr(project, name), value] for name, value in values.items() if getattr(project, name) != value
    }
    for name, value in values.items():
        setattr(project, name, value)
    for name, rule in crossed_limits(project).items():
        session.expire(project)
        raise BadProjectSetting(name, rule)
    session.flush()
    if changed:
        went_back = {} if goes_back_before is None else {"goes_back_before": goes_back_before}
        audit(
            session,
            account.id,
            "project.settings",
            f"project:{project.slug}",
            project_id=project.id,
            changed=changed,
            **went_back,
        )
        notify(session, SAMPLER_CHANNEL)
        notify(session, EVENTS_CHANNEL, f"project:{project.id}")


def pause(session: Session, project: Project, *, account: Account, now: datetime) -> None:
    """Sample and lease no slates until the project goes on. What is being ranked may still be submitted."""
    if project.paused_at is None:
        project.paused_at = now
        record_state(session, project, account, "project.pause")


def go_on(session: Session, project: Project, *, account: Account) -> None:
    """End the pause."""
    if project.paused_at is not None:
        project.paused_at = None
        record_state(session, project, account, "project.go_on")


def record_state(session: Session, project: Project, account: Account, action: str) -> None:
    session.flush()
    audit(session, account.id, action, f"project:{project.slug}", project_id=project.id)
    notify(session, SAMPLER_CHANNEL)
    notify(session, EVENTS_CHANNEL, f"project:{project.id}")


def current_guidelines(session: Session, project: Project) -> Guidelines:
    """The newest version of what labelers are asked to look for."""
    return session.scalars(
        select(Guidelines).where(Guidelines.project_id == project.id).order_by(Guidelines.version.desc()).limit(1)
    ).one()


def revise_guidelines(
    session: Session, project: Project, markdown: str, *, account: Account, now: datetime, needs_acceptance: bool = True
) -> Guidelines:
    """A new version, unless the text is as it was. Two people at once make two versions.

    needs_acceptance: nobody is given a slate before they accepted it.  Raises BadProjectSetting.
    """
    session.get_one(Project, project.id, with_for_update={"key_share": True})
    latest = current_guidelines(session, project)
    text = markdown.replace("\r\n", "\n").strip()  # browsers send CRLF
    if not text:
        raise BadProjectSetting("guidelines", "must say what labelers look for")
    if text == latest.markdown.strip():
        return latest
    revised = Guidelines(
        project_id=project.id,
        version=latest.version + 1,
        markdown=text,
        created_by=account.id,
        created_at=now,
        needs_acceptance=needs_acceptance,
    )
    session.add(revised)
    session.flush()
    audit(session, account.id, "guidelines.revise", f"guidelines:{revised.version}", project_id=project.id)
    return revised


def all_projects(session: Session) -> Iterable[Project]:
    """Every project, by name."""
    return session.scalars(select(Project).order_by(Project.name))

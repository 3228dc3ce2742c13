"""Accounts for simulated labelers: plainly named, with a key and no password, so that nobody signs in as one."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.people.models import Account, Membership, Role
from app.people.service import create_account, create_key, find_by_email
from app.projects.models import Project


def hire(session: Session, project: Project, num_labelers: int, *, now: datetime) -> list[str]:
    """Make (or find) the project's simulated labelers; returns a new key for each."""
    keys = []
    for number in range(1, num_labelers + 1):
        account = simulated(session, project.slug, f"simulated-{number}", f"Simulated labeler {number}")
        join(session, project, account, now=now)
        keys.append(create_key(session, account, "simulation"))
    session.flush()
    return keys


def simulated(session: Session, slug: str, who: str, name: str) -> Account:
    """Make (or find) an account at an address that no mail reaches."""
    email = f"{who}.{slug}@simulated.invalid"
    return find_by_email(session, email) or create_account(session, email=email, name=name, password=None)


def join(session: Session, project: Project, account: Account, *, now: datetime) -> None:
    """Make the account a labeler of the project, unless it is a member."""
    is_member = select(Membership).where(Membership.account_id == account.id, Membership.project_id == project.id)
    if session.scalar(is_member) is None:
        session.add(Membership(account_id=account.id, project_id=project.id, role=Role.LABELER, created_at=now))
    session.flush()

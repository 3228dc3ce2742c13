"""The members of a project: who they are, what they did, and what an admin may change. Never deletes anyone."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.labeling.models import Ranking
from app.people.errors import LastAdmin, NotAResearcher, PersonNotFound
from app.people.models import Account, Invitation, Labeler, Membership, Role
from app.people.service import audit
from app.projects.models import Project

A_WEEK = timedelta(days=7)


@dataclass(frozen=True)
class Member:
    """A member with what they did in the project. Retracted rankings do not count."""

    account_id: int
    name: str
    email: str
    role: Role
    paused_at: datetime | None
    joined_at: datetime
    num_rankings: int
    num_last_week: int
    last_ranking_at: datetime | None
    sees_names: bool


def members_of(session: Session, project: Project, *, now: datetime) -> list[Member]:
    """Every member of the project, by name."""
    stands = Ranking.retracted_at.is_(None)
    work = (
        select(
            Labeler.account_id,
            func.count().filter(stands).label("num_rankings"),
            func.count().filter(stands & (Ranking.submitted_at > now - A_WEEK)).label("num_last_week"),
            func.max(Ranking.submitted_at).filter(stands).label("last_ranking_at"),
        )
        .join(Ranking, Ranking.labeler_id == Labeler.id)
        .where(Labeler.project_id == project.id)
        .group_by(Labeler.account_id)
        .subquery()
    )
    rows = session.execute(
        select(
            Account.id,
            Account.name,
            Account.email,
            Membership.role,
            Membership.paused_at,
            Membership.created_at,
            func.coalesce(work.c.num_rankings, 0),
            func.coalesce(work.c.num_last_week, 0),
            work.c.last_ranking_at,
            Membership.sees_names,
        )
        .join(Membership, Membership.account_id == Account.id)
        .outerjoin(work, work.c.account_id == Account.id)
        .where(Membership.project_id == project.id)
        .order_by(Account.name, Account.id)
    )
    return [Member(*row) for row in rows]


def open_invitations(session: Session, project: Project, *, now: datetime) -> list[Invitation]:
    """The project's links that can still be used, newest first."""
    return list(
        session.scalars(
            select(Invitation)
            .where(Invitation.project_id == project.id, Invitation.expires_at > now)
            .where(Invitation.accepted_at.is_(None), Invitation.revoked_at.is_(None))
            .order_by(Invitation.created_at.desc())
        )
    )


def change_role(session: Session, project: Project, account_id: int, role: Role, *, by: Account) -> None:
    """Give a member another role.  Raises PersonNotFound, LastAdmin."""
    membership = _membership(session, project, account_id)
    if membership.role is role:
        return
    if role is not Role.ADMIN:
        _keep_an_admin(session, project, membership)
    audit(
        session,
        by.id,
        "member.role",
        f"account:{account_id}",
        project.id,
        **{"from": membership.role.value, "to": role.value},
    )
    membership.role, membership.sees_names = role, False  # the right goes with the role it was given to


def let_see_names(session: Session, project: Project, account_id: int, *, by: Account) -> None:
    """Let a researcher see who the labelers are.  Raises PersonNotFound, NotAResearcher."""
    membership = _membership(session, project, account_id)
    if membership.role is not Role.RESEARCHER:
        raise NotAResearcher
    if not membership.sees_names:
        membership.sees_names = True
        audit(session, by.id, "member.names", f"account:{account_id}", project.id, to=True)


def hide_names(session: Session, project: Project, account_id: int, *, by: Account) -> None:
    """The opposite.  Raises PersonNotFound."""
    membership = _membership(session, project, account_id)
    if membership.sees_names:
        membership.sees_names = False
        audit(session, by.id, "member.names", f"account:{account_id}", project.id, to=False)


def pause(session: Session, project: Project, account_id: int, *, by: Account, now: datetime) -> None:
    """Keep a member from new work; what they hold can still be handed in.  Raises PersonNotFound, LastAdmin."""
    membership = _membership(session, project, account_id)
    if membership.paused_at is not None:
        return
    _keep_an_admin(session, project, membership)
    membership.paused_at = now
    audit(session, by.id, "member.pause", f"account:{account_id}", project.id)


def resume(session: Session, project: Project, account_id: int, *, by: Account) -> None:
    """Let a paused member work again.  Raises PersonNotFound."""
    membership = _membership(session, project, account_id)
    if membership.paused_at is None:
        return
    membership.paused_at = None
    audit(session, by.id, "member.resume", f"account:{account_id}", project.id)


def _membership(session: Session, project: Project, account_id: int) -> Membership:
    found = next((each for each in _locked(session, project) if each.account_id == account_id), None)
    if found is None:
        raise PersonNotFound("This person is no member of the project: reload the page to see who is.")
    return found


def _locked(session: Session, project: Project) -> Sequence[Membership]:
    # All memberships of the project are locked, in one order: two admins who demote each other must not both succeed.
    return session.scalars(
        select(Membership)
        .where(Membership.project_id == project.id)
        .order_by(Membership.account_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).all()


def keep_an_admin(session: Session, project: Project, leaving_id: int) -> None:
    """Raises LastAdmin if nobody but the account that leaves could run the project."""
    _locked(session, project)
    others = (
        select(func.count())
        .select_from(Membership)
        .join(Account)
        .where(
            Membership.project_id == project.id,
            Membership.role == Role.ADMIN,
            Membership.paused_at.is_(None),
            Membership.account_id != leaving_id,
            Account.disabled_at.is_(None),
        )
    )
    if session.scalar(others) == 0:
        raise LastAdmin(project.name)


def _keep_an_admin(session: Session, project: Project, leaving: Membership) -> None:
    if leaving.role is Role.ADMIN and leaving.paused_at is None:
        keep_an_admin(session, project, leaving.account_id)

"""What waits for a person in each of their projects: slates to rank, rounds and policies that need a decision."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from app.labeling.models import Ranking, Slate, SlateState
from app.people.access import projects_of
from app.people.models import Account, Labeler, Membership, Role
from app.policies.models import PolicyState, PolicyVersion
from app.projects.models import Project
from app.rounds.models import Heartbeat, Round, RoundState

A_DAY = timedelta(days=1)
SILENT_AFTER = timedelta(minutes=2)  # without a heartbeat


@dataclass(frozen=True)
class Need:
    """Something that only a person can do now."""

    text: str
    href: str


@dataclass
class Glance:
    """One project as its member sees it on the home page."""

    project: Project
    role: Role
    is_paused: bool
    num_ready: int = 0
    num_mine_today: int = 0
    num_today: int = 0
    policy_number: int | None = None
    round: Round | None = None
    candidate_ids: set[int] = field(default_factory=set)
    needs: list[Need] = field(default_factory=list)


def projects_at_a_glance(session: Session, account: Account, *, now: datetime) -> list[Glance]:
    """The account's projects, those that need a person first."""
    roles = {
        membership.project_id: membership
        for membership in session.scalars(select(Membership).where(Membership.account_id == account.id))
    }
    glances = {}
    for project in projects_of(session, account):
        membership = roles.get(project.id)
        role = Role.ADMIN if account.is_site_admin or membership is None else membership.role
        is_paused = membership is not None and membership.paused_at is not None and not account.is_site_admin
        glances[project.id] = Glance(project, role, is_paused)
    if glances:
        _count_slates(session, glances)
        _count_rankings(session, account, glances, now)
        _find_rounds(session, glances)
        _find_policies(session, glances)
        sampler_is_silent = _sampler_is_silent(session, now)
        for glance in glances.values():
            if glance.role is Role.ADMIN:
                glance.needs = list(_needs(glance, sampler_is_silent))
    return sorted(glances.values(), key=lambda glance: not glance.needs)


def _count_slates(session: Session, glances: dict[int, Glance]) -> None:
    counts = (
        select(Slate.project_id, func.count())
        .where(Slate.state == SlateState.READY, Slate.project_id.in_(glances))
        .group_by(Slate.project_id)
    )
    for project_id, num_ready in session.execute(counts):
        glances[project_id].num_ready = num_ready


def _count_rankings(session: Session, account: Account, glances: dict[int, Glance], now: datetime) -> None:
    counts = (
        select(Ranking.project_id, func.count(), func.count().filter(Labeler.account_id == account.id))
        .join(Labeler, Labeler.id == Ranking.labeler_id)
        .where(Ranking.project_id.in_(glances), Ranking.submitted_at > now - A_DAY, Ranking.retracted_at.is_(None))
        .group_by(Ranking.project_id)
    )
    for project_id, num_today, num_mine in session.execute(counts):
        glances[project_id].num_today, glances[project_id].num_mine_today = num_today, num_mine


def _find_rounds(session: Session, glances: dict[int, Glance]) -> None:
    last = select(Round.project_id, func.max(Round.number)).group_by(Round.project_id)
    query = select(Round).where(Round.project_id.in_(glances), tuple_(Round.project_id, Round.number).in_(last))
    for found in session.scalars(query):
        glances[found.project_id].round = found


def _find_policies(session: Session, glances: dict[int, Glance]) -> None:
    versions = select(PolicyVersion).where(
        PolicyVersion.project_id.in_(glances), PolicyVersion.state.in_((PolicyState.CURRENT, PolicyState.CANDIDATE))
    )
    for version in session.scalars(versions):
        if version.state is PolicyState.CURRENT:
            glances[version.project_id].policy_number = version.number
        else:
            glances[version.project_id].candidate_ids.add(version.id)


def _sampler_is_silent(session: Session, now: datetime) -> bool:
    last = session.scalar(select(func.max(Heartbeat.beat_at)).where(Heartbeat.process == "sampler"))
    return last is None or last < now - SILENT_AFTER


def _needs(glance: Glance, sampler_is_silent: bool) -> Iterable[Need]:
    root, last = f"/projects/{glance.project.slug}", glance.round
    if last is not None and last.state is RoundState.FAILED:
        yield Need(f"Round {last.number} failed: see why, and resume it", f"{root}/rounds/{last.number}")
    if last is not None and last.state is RoundState.AWAITING_LABELS:
        yield Need(f"Round {last.number} waits for blind comparisons", f"{root}/rank")
    if last is not None and last.state is RoundState.SUCCEEDED and last.candidate_id in glance.candidate_ids:
        yield Need(f"Round {last.number} made a candidate: promote it or reject it", f"{root}/policies")
    if glance.num_ready == 0 and glance.project.paused_at is None and sampler_is_silent:
        yield Need("No slate is ready and no sampler has been heard of: start one with “podium sampler”", root)

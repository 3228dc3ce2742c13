"""What waits for a person in each of their projects: slates to rank, rounds and policies that need a decision."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import exists, func, select, tuple_
from sqlalchemy.orm import Session

from app.labeling.models import DECLINED, Lease, Ranking, Slate, SlateKind, SlateState
from app.people.access import Reach, projects_of
from app.people.models import Account, Labeler, Membership, Role
from app.policies.models import PolicyState, PolicyVersion
from app.projects.models import Guidelines, Project
from app.quality import onboarding
from app.quality.entry_models import GuidelinesAcceptance
from app.quality.guidelines import must_accept
from app.rounds.models import Heartbeat, Round, RoundState

A_DAY = timedelta(days=1)
WAITING_KINDS = (SlateKind.TRAINING, SlateKind.PAIR, SlateKind.EVALUATION)  # gold and repeats come unannounced
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
    num_ready: int = 0  # slates that wait for this account
    num_mine_today: int = 0
    active_s_today: float = 0.0  # of the account's own rankings
    num_today: int = 0
    accepted_version: int | None = None  # of the guidelines
    accepted_at: datetime | None = None
    must_accept: bool = False
    is_newcomer: bool = False
    is_waiting: bool = False  # as a newcomer, for an admin
    num_waiting: int = 0  # newcomers who wait for an admin
    policy_number: int | None = None
    round: Round | None = None
    candidate_ids: set[int] = field(default_factory=set)
    needs: list[Need] = field(default_factory=list)

    @property
    def seconds_per_ranking(self) -> float | None:
        """The account's pace today: time at work, pauses left out; None where none was measured."""
        return self.active_s_today / self.num_mine_today if self.active_s_today else None


def projects_at_a_glance(session: Session, account: Account, reach: Reach, *, now: datetime) -> list[Glance]:
    """The account's projects, those that need a person first."""
    roles = {
        membership.project_id: membership
        for membership in session.scalars(select(Membership).where(Membership.account_id == account.id))
    }
    glances = {}
    for project in projects_of(session, account, reach):
        membership = roles.get(project.id)
        role = Role.ADMIN if account.is_site_admin or membership is None else membership.role
        is_paused = membership is not None and membership.paused_at is not None and not account.is_site_admin
        glances[project.id] = Glance(project, role, is_paused)
    if glances:
        _count_slates(session, account, glances)
        _count_rankings(session, account, glances, now)
        _find_standing(session, account, glances)
        _find_rounds(session, glances)
        _find_policies(session, glances)
        sampler_is_silent = _sampler_is_silent(session, now)
        for glance in glances.values():
            glance.needs = list(_own_needs(glance))
            if glance.role is Role.ADMIN:
                glance.needs += _needs(glance, sampler_is_silent)
    return sorted(glances.values(), key=lambda glance: not glance.needs)


def _count_slates(session: Session, account: Account, glances: dict[int, Glance]) -> None:
    """Of the slates that everybody may get, those that this account has neither ranked nor declined."""
    mine = select(Labeler.id).where(Labeler.account_id == account.id)
    declined = exists().where(Lease.slate_id == Slate.id, Lease.labeler_id.in_(mine), Lease.end.in_(DECLINED))
    ranked = exists().where(Ranking.slate_id == Slate.id, Ranking.labeler_id.in_(mine), Ranking.retracted_at.is_(None))
    counts = (
        select(Slate.project_id, func.count())
        .where(Slate.state == SlateState.READY, Slate.project_id.in_(glances), Slate.kind.in_(WAITING_KINDS))
        .where(~declined, ~ranked)
        .group_by(Slate.project_id)
    )
    for project_id, num_ready in session.execute(counts):
        glances[project_id].num_ready = num_ready


def _count_rankings(session: Session, account: Account, glances: dict[int, Glance], now: datetime) -> None:
    is_mine = Labeler.account_id == account.id
    counts = (
        select(
            Ranking.project_id,
            func.count(),
            func.count().filter(is_mine),
            func.sum(Ranking.active_s).filter(is_mine),
        )
        .join(Labeler, Labeler.id == Ranking.labeler_id)
        .where(Ranking.project_id.in_(glances), Ranking.submitted_at > now - A_DAY, Ranking.retracted_at.is_(None))
        .group_by(Ranking.project_id)
    )
    for project_id, num_today, num_mine, active_s in session.execute(counts):
        glance = glances[project_id]
        glance.num_today, glance.num_mine_today, glance.active_s_today = num_today, num_mine, active_s or 0.0


def _find_standing(session: Session, account: Account, glances: dict[int, Glance]) -> None:
    accepted = (
        select(Guidelines.project_id, Guidelines.version, GuidelinesAcceptance.accepted_at)
        .join(GuidelinesAcceptance, GuidelinesAcceptance.guidelines_id == Guidelines.id)
        .where(GuidelinesAcceptance.account_id == account.id, Guidelines.project_id.in_(glances))
        .order_by(Guidelines.version)
    )
    for project_id, version, accepted_at in session.execute(accepted):
        glances[project_id].accepted_version, glances[project_id].accepted_at = version, accepted_at
    asked = select(Project.id, must_accept(account.id, Project.id), onboarding.num_waiting())
    for project_id, has_to_accept, num_waiting in session.execute(asked.where(Project.id.in_(glances))):
        glances[project_id].must_accept, glances[project_id].num_waiting = has_to_accept, num_waiting
    entering = select(Labeler.project_id, onboarding.is_newcomer(), onboarding.is_waiting())
    for project_id, is_newcomer, is_waiting in session.execute(entering.where(Labeler.account_id == account.id)):
        if project_id in glances:
            glances[project_id].is_newcomer, glances[project_id].is_waiting = is_newcomer, is_waiting


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


def _own_needs(glance: Glance) -> Iterable[Need]:
    """What stands between the account and its next slate."""
    root = f"/projects/{glance.project.slug}"
    if glance.must_accept and glance.accepted_version is not None:
        yield Need("The guidelines have changed: read and accept them before your next slate", f"{root}/guidelines")
    if glance.is_newcomer and glance.is_waiting:
        yield Need("Your onboarding rankings wait for an admin of the project", f"{root}/onboarding")


def _needs(glance: Glance, sampler_is_silent: bool) -> Iterable[Need]:
    root, last = f"/projects/{glance.project.slug}", glance.round
    if last is not None and last.state is RoundState.FAILED:
        yield Need(f"Round {last.number} failed: see why, and resume it", f"{root}/rounds/{last.number}")
    if last is not None and last.state is RoundState.AWAITING_LABELS:
        yield Need(f"Round {last.number} waits for blind comparisons", f"{root}/rank")
    if last is not None and last.state is RoundState.SUCCEEDED and last.candidate_id in glance.candidate_ids:
        yield Need(f"Round {last.number} made a candidate: promote it or reject it", f"{root}/policies")
    if glance.num_waiting:
        people = "1 newcomer waits" if glance.num_waiting == 1 else f"{glance.num_waiting} newcomers wait"
        yield Need(f"{people} for you: let them in, or allow another try", f"{root}/quality/newcomers")
    if glance.num_ready == 0 and glance.project.paused_at is None and sampler_is_silent:
        yield Need("No slate is ready and no sampler has been heard of: start one with “podium sampler”", root)

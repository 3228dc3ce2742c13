"""The project's rule: rounds that start by themselves once enough new rankings are in.

Trainers look at the rules while they wait and while they work. A rule is locked while it is looked at, and a round is
started under the project's lock as a person's is, so there is one however many trainers look. What keeps a round from
starting is told once, and tried again after a while; a round that failed pauses the rule until an admin has looked.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from app.db import EVENTS_CHANNEL, notify
from app.errors import PodiumError
from app.people.models import Account, AuditEvent
from app.people.service import audit
from app.policies.service import current_version, sft_policy_of
from app.projects.models import Project
from app.rounds.configuration import Overrides, configure, preset_of
from app.rounds.errors import BadRule, NoRule, RoundIsActive
from app.rounds.models import ACTIVE_ROUND_STATES, Round, RoundState
from app.rounds.needs import num_new_rankings
from app.rounds.rule_models import RoundRule
from app.rounds.service import check_stages, start_round, wanted_comparisons

TRIED_AGAIN_AFTER = timedelta(hours=1)
DEFAULT_RANKINGS, DEFAULT_HOURS = 500, 24
MOST_RANKINGS, MOST_HOURS = 1_000_000, 24 * 365
SUBJECT = "round_rule"


@dataclass(frozen=True)
class Standing:
    """How far the rule is from its next round. waits_for: in words, empty when it is due."""

    num_new: int
    last: Round | None
    waits_for: list[str]


def rule_of(session: Session, project: Project) -> RoundRule | None:
    return session.get(RoundRule, project.id)


def write_rule(
    session: Session,
    project: Project,
    *,
    num_rankings: int,
    least_hours: float,
    stages: list[str],
    overrides: Overrides,
    evaluation_comparisons: int | None,
    account: Account | None,
    now: datetime,
) -> RoundRule:
    """Make the rule, or make it another one; it is on from now. account: None on the command line.

    Raises BadRule, BadStages, BadRoundSetting for what could never start a round. Missing labels may still come.
    """
    problems = {}
    if not 1 <= num_rankings <= MOST_RANKINGS:
        problems["num_rankings"] = f"must be from 1 to {MOST_RANKINGS}"
    if not 0 <= least_hours <= MOST_HOURS:
        problems["least_hours"] = f"must be from 0 to {MOST_HOURS}"
    if problems:
        raise BadRule(problems)
    recipes = check_stages(stages)
    configure(project, recipes, preset_of(sft_policy_of(session, current_version(session, project))), overrides)
    wanted_comparisons(project, recipes, evaluation_comparisons)
    rule = session.get(RoundRule, project.id, with_for_update=True) or RoundRule(project_id=project.id)
    rule.num_rankings, rule.least_hours = num_rankings, least_hours
    rule.stages, rule.overrides = [recipe.value for recipe in recipes], {k: dict(v) for k, v in overrides.items()}
    rule.evaluation_comparisons = evaluation_comparisons
    rule.updated_at, rule.updated_by = now, account.id if account else None
    session.add(rule)
    let_go_on(session, project, rule)
    note(session, project, account, "write", **described(rule))
    return rule


def pause_rule(session: Session, project: Project, *, account: Account | None, now: datetime) -> None:
    """Start no round by the rule until somebody lets it go on. Raises NoRule."""
    rule = locked_rule(session, project)
    if rule.paused_at is None:
        rule.paused_at, rule.paused_because = now, None
        note(session, project, account, "pause")


def unpause_rule(session: Session, project: Project, *, account: Account | None) -> None:
    """Let the rule go on: whoever does has looked at what failed. What kept it is tried again. Raises NoRule."""
    rule = locked_rule(session, project)
    let_go_on(session, project, rule)
    note(session, project, account, "go_on")


def locked_rule(session: Session, project: Project) -> RoundRule:
    rule = session.get(RoundRule, project.id, with_for_update=True, populate_existing=True)
    if rule is None:
        raise NoRule
    return rule


def let_go_on(session: Session, project: Project, rule: RoundRule) -> None:
    last = last_round(session, project.id)
    rule.seen_failure_at = last.finished_at if last and last.state == RoundState.FAILED else None
    rule.paused_at = rule.paused_because = rule.problem = rule.problem_at = rule.tried_at = None
    session.flush()


def start_due_round(session: Session, *, now: datetime) -> bool:
    """Look at the rules until one has something to do: start its round, pause, or say what keeps it. Whether one had.

    The caller commits at once.
    """
    rules = session.scalars(
        select(RoundRule)
        .join(Project)
        .where(
            RoundRule.paused_at.is_(None),
            Project.paused_at.is_(None),
            or_(RoundRule.problem.is_(None), RoundRule.tried_at < now - TRIED_AGAIN_AFTER),
        )
        .order_by(RoundRule.project_id)
        .with_for_update(of=RoundRule, skip_locked=True)
        .execution_options(populate_existing=True)
    ).all()
    return any(look_at(session, rule, now) for rule in rules)


def look_at(session: Session, rule: RoundRule, now: datetime) -> bool:
    """Whether the rule had something to do; it is locked."""
    project = session.get_one(Project, rule.project_id)
    last = last_round(session, project.id)
    if last is not None and last.state == RoundState.FAILED and last.finished_at != rule.seen_failure_at:
        rule.paused_at, rule.paused_because = now, f"round {last.number} failed"
        tell(session, project, "pause", because=rule.paused_because)
        return True
    if standing(session, project, rule, now).waits_for:
        rule.problem = rule.problem_at = None  # of a round that is not due any more: somebody started one
        return False
    try:
        with session.begin_nested():
            start_round(
                session,
                project,
                stages=rule.stages,
                overrides=rule.overrides,
                account=None,
                now=now,
                evaluation_comparisons=rule.evaluation_comparisons,
                by_rule=True,
            )
    except RoundIsActive:
        return False  # somebody started one at this moment
    except PodiumError as error:
        keep_problem(session, project, rule, error, now)
        return True
    rule.problem = rule.problem_at = None
    rule.tried_at = now
    return True


def keep_problem(session: Session, project: Project, rule: RoundRule, error: PodiumError, now: datetime) -> None:
    """Remember why no round could start; it is told when it is news."""
    rule.tried_at = now
    if rule.problem is None or rule.problem["code"] != error.code:
        rule.problem, rule.problem_at = {"code": error.code, "message": str(error)}, now
        tell(session, project, "problem", code=error.code, message=str(error))


def standing(session: Session, project: Project, rule: RoundRule, now: datetime) -> Standing:
    """What the rule waits for."""
    last = last_round(session, project.id)
    num_new = num_new_rankings(session, project)
    waits_for = []
    if last is not None and last.state in ACTIVE_ROUND_STATES:
        waits_for.append(f"the end of round {last.number}")
    if num_new < rule.num_rankings:
        waits_for.append(f"{rule.num_rankings - num_new} more rankings")
    if last is not None and (left := last.created_at + timedelta(hours=rule.least_hours) - now) > timedelta(0):
        waits_for.append(f"{left.total_seconds() / 3600:.1f} more hours since round {last.number} was started")
    return Standing(num_new, last, waits_for)


def last_round(session: Session, project_id: int) -> Round | None:
    return session.scalar(
        select(Round)
        .where(Round.project_id == project_id)
        .order_by(Round.number.desc())
        .limit(1)
        .execution_options(populate_existing=True)
    )


def history(session: Session, project: Project, limit: int = 50) -> list[tuple[AuditEvent, str | None]]:
    """What became of the rule, the newest first, with who did it; None: the rule itself, or the command line."""
    rows = session.execute(
        select(AuditEvent, Account.name)
        .outerjoin(Account, Account.id == AuditEvent.account_id)
        .where(AuditEvent.project_id == project.id, AuditEvent.subject == SUBJECT)
        .order_by(AuditEvent.id.desc())
        .limit(limit)
    )
    return [(event, name) for event, name in rows]


def needs(session: Session, project: Project, now: datetime) -> list[tuple[str, str, str]]:
    """What only a person can do for the rule: (what, where below the project, the act)."""
    rule = rule_of(session, project)
    if rule is not None and rule.paused_because:
        return [(f"The rule for rounds is paused: {rule.paused_because}.", "/rounds/rule", "Look, and let it go on")]
    if rule is not None and rule.problem is not None and not standing(session, project, rule, now).waits_for:
        return [(f"The rule could start no round: {rule.problem['message']}", "/rounds/rule", "See the rule")]
    return []


def described(rule: RoundRule) -> dict[str, Any]:
    return {
        name: getattr(rule, name)
        for name in ("num_rankings", "least_hours", "stages", "overrides", "evaluation_comparisons")
    }


def tell(session: Session, project: Project, action: str, **detail: Any) -> None:
    """The rule itself did something: written down, and shown on the project's open pages."""
    note(session, project, None, action, **detail)
    notify(session, EVENTS_CHANNEL, f"project:{project.id}")


def note(session: Session, project: Project, account: Account | None, action: str, **detail: Any) -> None:
    audit(session, account.id if account else None, f"round_rule.{action}", SUBJECT, project_id=project.id, **detail)
    session.flush()

"""Why the current policy is the current one: every time that changed, with who, when, and on what evidence.

Read from the audit log, which is written in the transaction of each change. The evidence is a sentence that was written
down at that moment: figures may move on afterwards, what a decision rested on does not.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.people.models import Account, AuditEvent
from app.policies.evaluation import win_rate
from app.policies.models import PolicyVersion
from app.projects.models import Project
from app.rounds.models import Recipe, Round, Stage

PROMOTED, ROLLED_BACK, REJECTED = "policy.promote", "policy.roll_back", "policy.reject"
LONGEST_REASON = 500


@dataclass(frozen=True)
class Change:
    """One decision on a version. until: when the next one took its place; None: it is current, or was never.

    how: "began with", "promoted", "rolled back to" or "rejected".  by: who, or by which rule; None for the first.
    """

    version: int
    how: str
    at: datetime
    until: datetime | None
    by: str | None
    replaced: int | None
    evidence: str | None
    reason: str | None


def history(session: Session, project: Project) -> list[Change]:
    """Every decision, the newest first; the last line is the version that the project began with."""
    first = session.scalars(
        select(PolicyVersion).where(PolicyVersion.project_id == project.id).order_by(PolicyVersion.number).limit(1)
    ).one()
    changes: list[Change] = []
    until: datetime | None = None
    for event, name in events(session, project):
        takes_over = event.action != REJECTED
        changes.append(change_of(event, name, until if takes_over else None))
        until = event.at if takes_over else until
    began = Change(first.number, "began with", first.created_at, until, None, None, None, None)
    return [*changes, began]


def events(session: Session, project: Project) -> list[tuple[AuditEvent, str | None]]:
    """The decisions in the audit log, the newest first, with the names of those who took them."""
    rows = session.execute(
        select(AuditEvent, Account.name)
        .outerjoin(Account, Account.id == AuditEvent.account_id)
        .where(AuditEvent.project_id == project.id, AuditEvent.action.in_((PROMOTED, ROLLED_BACK, REJECTED)))
        .order_by(AuditEvent.id.desc())
    )
    return [(event, name) for event, name in rows]


def change_of(event: AuditEvent, name: str | None, until: datetime | None) -> Change:
    return Change(
        version=int(event.subject.removeprefix("policy_version:")),
        how={PROMOTED: "promoted", ROLLED_BACK: "rolled back to", REJECTED: "rejected"}[event.action],
        at=event.at,
        until=until,
        by=name or who_of(event),
        replaced=event.detail.get("replaced"),
        evidence=event.detail.get("evidence"),
        reason=event.detail.get("reason"),
    )


def who_of(event: AuditEvent) -> str:
    """Who decided where no account did."""
    if (bound := event.detail.get("rule")) is not None:
        return f"the project's rule: the interval's lower end above {percent(bound)}"
    if event.action != PROMOTED or event.detail.get("on_command_line"):  # the rule does nothing but promote
        return "somebody on the command line"
    return "the project's rule, or somebody on the command line"  # before either was written down


def evidence_for(session: Session, version: PolicyVersion) -> str | None:
    """What is known of the version now, in a sentence; None where nobody and nothing has judged it."""
    round = round_of(session, version)
    if round is None:
        return None
    said = []
    if (verdict := win_rate(session, round)) is not None:
        baseline = session.get_one(PolicyVersion, round.baseline_id)
        said.append(
            f"{percent(verdict.rate)} ({percent(verdict.low)} to {percent(verdict.high)}) of"
            f" {verdict.num_comparisons} blind comparisons preferred it over version {baseline.number}"
        )
    judged = next((stage.result for stage in round.stages if stage.recipe == Recipe.EVALUATE and stage.result), None)
    if judged is not None and isinstance(score := judged.get("candidate_score"), int | float):
        before = judged.get("current_score")
        said.append(f"score {score:.2f}" + (f", was {before:.2f}" if isinstance(before, int | float) else ""))
        if isinstance(kl := judged.get("candidate_kl"), int | float):
            said.append(f"KL {kl:.1f} nats")
    return "; ".join(said) or None


def percent(share: float) -> str:
    return f"{100 * share:.0f}\u00a0%"


def round_of(session: Session, version: PolicyVersion) -> Round | None:
    """The round that judged the version as its candidate."""
    if version.stage_id is None:
        return None
    round = session.get_one(Stage, version.stage_id).round
    return round if round.candidate_id == version.id else None

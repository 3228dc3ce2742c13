"""Whether work goes on: somebody to administer, processes alive, nothing claimed by the dead."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.orm import Session

from app.labeling.models import Lease
from app.people.models import Account
from app.privacy.models import DoomedFolder
from app.projects.models import Project
from app.reward_models.models import RewardEvaluation
from app.rounds.heart import SILENT_AFTER
from app.rounds.models import DeviceClaim, Heartbeat, Stage, StageState
from app.upkeep.findings import Finding, fault, good, note, warning

STUCK_AFTER = timedelta(minutes=10)  # a claim that ran out is taken over within seconds where a process lives


def check_work(session: Session, *, now: datetime) -> Iterator[Finding]:
    """All of it. The database has this version's schema."""
    yield from _admin(session)
    yield from _processes(session, now)
    yield from _claims(session, now)
    yield from _leases(session, now)
    yield from _doomed(session)


def _admin(session: Session) -> Iterator[Finding]:
    can_sign_in = Account.is_site_admin & Account.disabled_at.is_(None)
    if session.scalar(select(exists().where(can_sign_in))):
        yield good("admin", "there is an administrator")
    else:
        advice = "open the one-time link that `podium up` and `podium serve` print when they start"
        yield fault("admin", "there is no administrator yet", advice)


def _processes(session: Session, now: datetime) -> Iterator[Finding]:
    has_projects = session.scalar(select(exists().where(Project.id.is_not(None))))
    work = {
        "sampler": "labelers get no new slates, and conversations no replies",
        "trainer": "rounds that are started wait",
    }
    for process, otherwise in work.items():
        last = session.scalar(select(func.max(Heartbeat.beat_at)).where(Heartbeat.process == process))
        alive = session.scalar(
            select(func.count()).where(Heartbeat.process == process, Heartbeat.beat_at > now - SILENT_AFTER)
        )
        if alive:
            yield good(process, f"{alive} {process}{'s' if alive > 1 else ''} alive")
        elif has_projects:
            since = "none was ever heard of" if last is None else f"the last was heard of {_ago(now - last)} ago"
            advice = f"start `podium {process}` (or `podium up`), and read its log"
            yield warning(process, f"no {process} is alive ({since}): {otherwise}", advice)


def _claims(session: Session, now: datetime) -> Iterator[Finding]:
    overdue = now - STUCK_AFTER
    stuck = {
        "stage": _count(session, Stage.id, (Stage.state == StageState.RUNNING) & (Stage.deadline < overdue)),
        "evaluation of a reward model": _count(
            session,
            RewardEvaluation.id,
            (RewardEvaluation.state == StageState.RUNNING) & (RewardEvaluation.deadline < overdue),
        ),
        "device": _count(session, DeviceClaim.device, DeviceClaim.claimed_until < overdue),
    }
    found = {what: num for what, num in stuck.items() if num}
    for what, num in found.items():
        said = f"{num} {what}{'s are' if num > 1 else ' is'} claimed by a process that is gone"
        if what == "device":
            yield note("stuck_claims", said, "nothing to do: whoever wants it next takes it over")
        else:
            yield warning("stuck_claims", said, "start `podium trainer`: it takes them over at their last checkpoint")
    if not found:
        yield good("stuck_claims", "no work is claimed by a process that is gone")


def _leases(session: Session, now: datetime) -> Iterator[Finding]:
    """One that ran out returns by itself when somebody asks for a slate: no fault."""
    open_ones = Lease.closed_at.is_(None)
    held = _count(session, Lease.id, open_ones & (Lease.expires_at > now))
    expired = _count(session, Lease.id, open_ones & (Lease.expires_at <= now))
    what = f"{held} slates are held by labelers"
    if expired:
        what += f"; {expired} leases ran out, and go to whoever asks next"
    yield good("leases", what)


def _doomed(session: Session) -> Iterator[Finding]:
    stuck = DoomedFolder.removed_at.is_(None) & DoomedFolder.problem.is_not(None)
    problem = session.scalar(select(DoomedFolder.problem).where(stuck).limit(1))
    if problem is not None:
        num = _count(session, DoomedFolder.id, stuck)
        what = f"{num} folders with copies of what was erased are not gone yet ({problem})"
        yield fault("erasures", what, "mend the disk or the store: they are tried every half minute")


def _count(session: Session, column: object, condition: ColumnElement[bool]) -> int:
    return session.scalar(select(func.count(column)).where(condition)) or 0  # type: ignore[arg-type]


def _ago(gone: timedelta) -> str:
    minutes = int(gone.total_seconds() // 60)
    if minutes < 120:
        return f"{minutes} minutes"
    return f"{minutes // 60} hours" if minutes < 48 * 60 else f"{minutes // 1440} days"

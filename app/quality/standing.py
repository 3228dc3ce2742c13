"""Warn, pause, review: what an admin does about a labeler's work, in this order. Nothing is ever deleted."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.people import members
from app.people.errors import PersonNotFound
from app.people.models import Account, Labeler, Membership, Role
from app.people.service import audit
from app.projects.models import Project
from app.quality.errors import ReasonMissing, StepNotPossible
from app.quality.models import QualityAction, Step

LONGEST_REASON = 2_000


@dataclass(frozen=True)
class Person:
    """A labeler as the quality pages show them. name, role: None for annotators of an imported file."""

    labeler_id: int
    pseudonym: str
    name: str | None
    role: Role | None
    is_paused: bool
    last_step: Step | None

    def called(self, *, by_name: bool) -> str:
        """The name for those who may read it, the pseudonym for everybody else."""
        return self.name if by_name and self.name is not None else self.pseudonym


@dataclass(frozen=True)
class TakenStep:
    """A step, and who took it."""

    action: QualityAction
    by: str


def people_of(session: Session, project: Project) -> dict[int, Person]:
    """labeler id -> everyone who ever judged in the project."""
    last = (
        select(QualityAction.step)
        .where(QualityAction.labeler_id == Labeler.id)
        .order_by(QualityAction.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    rows = session.execute(
        select(Labeler.id, Labeler.pseudonym, Account.name, Membership.role, Membership.paused_at, last)
        .outerjoin(Account, Account.id == Labeler.account_id)
        .outerjoin(Membership, (Membership.account_id == Account.id) & (Membership.project_id == Labeler.project_id))
        .where(Labeler.project_id == project.id)
    )
    return {
        labeler_id: Person(labeler_id, pseudonym, name, role, paused_at is not None, step)
        for labeler_id, pseudonym, name, role, paused_at, step in rows
    }


def find_person(session: Session, project: Project, labeler_id: int) -> Person:
    """One of them.  Raises PersonNotFound."""
    found = people_of(session, project).get(labeler_id)
    if found is None:
        raise PersonNotFound("Nobody of this number ranks in the project: reload the quality page to see who does.")
    return found


def history(session: Session, labeler_id: int) -> list[TakenStep]:
    """Every step about the labeler, the newest first."""
    rows = session.execute(
        select(QualityAction, Account.name)
        .join(Account, Account.id == QualityAction.account_id)
        .where(QualityAction.labeler_id == labeler_id)
        .order_by(QualityAction.id.desc())
    )
    return [TakenStep(action, name) for action, name in rows]


def possible_steps(taken: Sequence[TakenStep], *, is_member: bool, is_paused: bool) -> list[Step]:
    """What may come next. A pause follows a warning, and a review ends what went before."""
    if not is_member:
        return []
    if is_paused:
        return [Step.REVIEW]
    was_warned = bool(taken) and taken[0].action.step is not Step.REVIEW
    return [Step.WARN, Step.PAUSE] if was_warned else [Step.WARN]


def take_step(
    session: Session,
    project: Project,
    labeler_id: int,
    step: Step,
    reason: str,
    *,
    lets_work: bool | None = None,
    by: Account,
    now: datetime,
) -> QualityAction:
    """Write the step down and carry it out; the labeler reads the reason on their own page.

    lets_work: a review's outcome; without it the pause goes on.
    Raises PersonNotFound, StepNotPossible, ReasonMissing, LastAdmin.
    """
    reason = reason.strip()
    if not 0 < len(reason) <= LONGEST_REASON:
        raise ReasonMissing
    labeler = session.get(Labeler, labeler_id, with_for_update=True)  # two admins: one step after the other
    person = find_person(session, project, labeler_id)
    steps = possible_steps(history(session, labeler_id), is_member=person.role is not None, is_paused=person.is_paused)
    if labeler is None or labeler.account_id is None or step not in steps:
        raise StepNotPossible(_why_not(step, person))
    decides = bool(lets_work) if step is Step.REVIEW else None
    action = QualityAction(
        labeler_id=labeler_id, step=step, reason=reason, lets_work=decides, account_id=by.id, created_at=now
    )
    session.add(action)
    audit(session, by.id, f"quality.{step.value}", f"labeler:{labeler_id}", project.id, reason=reason)
    if step is Step.PAUSE:
        members.pause(session, project, labeler.account_id, by=by, now=now)
    if decides:
        members.resume(session, project, labeler.account_id, by=by)
    session.flush()
    return action


def _why_not(step: Step, person: Person) -> str:
    if person.role is None:
        return "Only members of the project can be warned, paused or reviewed: these rankings came from elsewhere."
    if person.is_paused:
        return "This labeler is paused already: what comes next is a review."
    if step is Step.REVIEW:
        return "A review follows a pause, and this labeler is not paused."
    return "A pause follows a warning: warn the labeler first, and say what should change."

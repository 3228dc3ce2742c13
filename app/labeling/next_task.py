"""Which task comes next for one labeler, by the project's weights and what they have done today.

The n-th task of a labeler's day is known before the day begins, so a page is told ahead when it will end, and asking
twice changes nothing.
"""

from dataclasses import dataclass
from datetime import datetime
from random import Random

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.labeling.leases import take_leases
from app.labeling.models import Ranking, Slate, SlateKind
from app.labeling.task_models import Writing, WritingEnd
from app.labeling.tasks import SLATES, Task, at, on_offer, place_of
from app.labeling.writings import has_prompt_to_answer
from app.people.models import Labeler
from app.projects.models import Project
from app.quality import onboarding

HORIZON = 50  # rankings; the page asks again long before


@dataclass(frozen=True)
class Progress:
    """How far a labeler is."""

    seed: str  # of this labeler's day
    num_done: int  # tasks, on this day
    is_newcomer: bool  # who ranks onboarding slates before anything else

    def place(self, ahead: int = 0) -> float:
        """Of the next task on the line of weights, or of one further ahead."""
        return place_of(self.seed, self.num_done + ahead)


def next_task(session: Session, labeler: Labeler, project: Project, *, now: datetime, rng: Random) -> Task:
    """The task to do now, of those that have something to do; the next slate is leased where it is one of slates.

    Raises GuidelinesNotAccepted, OnboardingWaits.
    """
    weights, others = project.task_weights, other_tasks(project)
    progress = progress_of(session, labeler, now) if others else None
    if progress is None or progress.is_newcomer:
        return Task.RANK
    without = set()
    if Task.ANSWER in others and not has_prompt_to_answer(session, labeler, project, now):
        without.add(Task.ANSWER)
    task = at(weights, progress.place(), without=without)
    if task in SLATES and not take_leases(session, labeler, project, wanted=1, now=now, rng=rng):
        task = at(weights, progress.place(), without=without | SLATES) or task
    return task or at(weights, progress.place()) or Task.RANK


def rankings_until_another(session: Session, labeler: Labeler, project: Project, now: datetime) -> int | None:
    """After how many more rankings another task is due; None where none ever is.

    None too where a project asks for no slates: whoever ranks there has chosen to.
    """
    others = set(other_tasks(project))
    if not others or len(others) == len(on_offer(project.task_weights)):
        return None
    progress = progress_of(session, labeler, now)
    if progress.is_newcomer:
        return None
    without: set[Task] = set()
    for num_rankings in range(1, HORIZON):
        task = at(project.task_weights, progress.place(num_rankings), without=without)
        if task is Task.ANSWER and not has_prompt_to_answer(session, labeler, project, now):
            without.add(task)
            task = at(project.task_weights, progress.place(num_rankings), without=without)
        if task not in SLATES:
            return num_rankings
    return None if others == without else HORIZON


def other_tasks(project: Project) -> list[Task]:
    """What the project asks for beside slates."""
    return [task for task in on_offer(project.task_weights) if task not in SLATES]


def progress_of(session: Session, labeler: Labeler, now: datetime) -> Progress:
    """How far the labeler is in their day, by UTC."""
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    rankings = (
        select(func.count())
        .select_from(Ranking)
        .join(Slate, Slate.id == Ranking.slate_id)
        .where(Ranking.labeler_id == labeler.id, Ranking.submitted_at >= today, Ranking.retracted_at.is_(None))
        .where(Slate.kind != SlateKind.CONVERSATION)  # a whole conversation is one task
        .scalar_subquery()
    )
    writings = (
        select(func.count())
        .select_from(Writing)
        .where(Writing.labeler_id == labeler.id, Writing.closed_at >= today, Writing.end == WritingEnd.SUBMITTED)
        .scalar_subquery()
    )
    asked = select(rankings + writings, onboarding.is_newcomer()).where(Labeler.id == labeler.id)
    num_done, is_newcomer = session.execute(asked).one()
    return Progress(f"{labeler.id} {today:%Y-%m-%d}", num_done, is_newcomer)

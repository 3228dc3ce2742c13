"""Pieces of writing: opened, kept as drafts, given back. What becomes of them lies in the modules that submit them."""

from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, exists, select
from sqlalchemy.orm import Session

from app.labeling.models import Demonstration
from app.labeling.task_errors import OnboardingFirst, StaleWriting, WritingEnded, WritingNotFound
from app.labeling.task_models import Writing, WritingEnd, WritingTask
from app.people.models import Labeler
from app.people.owners import Owner
from app.projects.models import Project
from app.prompts.models import Prompt, Use
from app.prompts.service import serves
from app.prompts.turns import is_learned_from, one_at_random
from app.quality import guidelines, onboarding
from app.quality.entry_errors import GuidelinesNotAccepted


def open_writing(
    session: Session, labeler: Labeler, project: Project, task: WritingTask, *, now: datetime, rng: Random
) -> Writing | None:
    """The labeler's open piece of this task, or a new one; None when there is no prompt left to answer.

    rng: draws the prompt.

    Raises GuidelinesNotAccepted, OnboardingFirst.
    """
    _lock_entered(session, labeler.id, project)  # two tabs of one person find the same piece
    mine = select(Writing).where(Writing.labeler_id == labeler.id, Writing.task == task, Writing.closed_at.is_(None))
    writing = session.scalar(mine)
    if writing is not None:
        writing.touched_at = now
        return writing
    prompt_id = None
    if task is WritingTask.ANSWER:
        prompt_id = _next_prompt(session, labeler, project, now, rng)
        if prompt_id is None:
            return None
    writing = Writing(
        project_id=project.id, labeler_id=labeler.id, task=task, prompt_id=prompt_id, opened_at=now, touched_at=now
    )
    session.add(writing)
    session.flush()
    return writing


def has_prompt_to_answer(session: Session, labeler: Labeler, project: Project, now: datetime) -> bool:
    """Whether the labeler has begun an answer, or could be given a prompt."""
    begun = exists().where(
        Writing.labeler_id == labeler.id, Writing.task == WritingTask.ANSWER, Writing.closed_at.is_(None)
    )
    left = exists().where(*_is_left_for(labeler, project, now))
    return bool(session.scalar(select(begun | left)))


def find_writing(session: Session, owner: Owner, writing_id: UUID, *, locked: bool = False) -> Writing:
    """The owner's piece of writing.  Raises WritingNotFound."""
    query = (
        select(Writing)
        .join(Labeler, Labeler.id == Writing.labeler_id)
        .where(Writing.id == writing_id, owner.is_labeler())
        .execution_options(populate_existing=True)
    )
    writing = session.scalar(query.with_for_update(of=Writing) if locked else query)
    if writing is None:
        raise WritingNotFound(writing_id)
    return writing


def save_draft(
    session: Session, owner: Owner, writing_id: UUID, *, builds_on: int, content: dict[str, Any], now: datetime
) -> int:
    """Store what was written so far; returns its new revision.

    builds_on: the revision the work began from, 0 for none. A retry whose reply was lost finds its own content.
    Raises WritingNotFound, WritingEnded, StaleWriting.
    """
    writing = find_writing(session, owner, writing_id, locked=True)
    if writing.end is not None:
        raise WritingEnded(writing.end)
    if writing.revision == builds_on + 1 and writing.content == content:
        return writing.revision
    if writing.revision != builds_on:
        raise StaleWriting(writing.revision, writing.content)
    writing.revision, writing.content, writing.touched_at = builds_on + 1, content, now
    session.flush()
    return writing.revision


def skip(session: Session, owner: Owner, writing_id: UUID, reason: str, now: datetime) -> None:
    """Give a prompt back, or start over; the labeler does not get the prompt again. A second call changes nothing."""
    writing = find_writing(session, owner, writing_id, locked=True)
    if writing.end is WritingEnd.SKIPPED:
        return
    if writing.end is not None:
        raise WritingEnded(writing.end)
    writing.closed_at, writing.end, writing.reason = now, WritingEnd.SKIPPED, reason
    session.flush()


def _lock_entered(session: Session, labeler_id: int, project: Project) -> None:
    """Lock the labeler's row.  Raises GuidelinesNotAccepted, OnboardingFirst."""
    must_accept, is_newcomer = session.execute(
        select(guidelines.must_accept(Labeler.account_id, Labeler.project_id), onboarding.is_newcomer())
        .where(Labeler.id == labeler_id)
        .with_for_update(of=Labeler, key_share=True)
    ).one()
    if must_accept:
        raise GuidelinesNotAccepted(project.slug)
    if is_newcomer:
        raise OnboardingFirst(project.slug)


def _next_prompt(session: Session, labeler: Labeler, project: Project, now: datetime, rng: Random) -> int | None:
    """A prompt for the labeler to answer."""
    left = select(Prompt.id).where(*_is_left_for(labeler, project, now))
    # Two people at once get two prompts.
    return one_at_random(session, project, left.with_for_update(of=Prompt, key_share=True, skip_locked=True), rng)


def _is_left_for(labeler: Labeler, project: Project, now: datetime) -> tuple[ColumnElement[bool], ...]:
    """Whether nobody has answered a prompt or answers it now, and this labeler has not given it back."""
    answered = exists().where(Demonstration.prompt_id == Prompt.id, Demonstration.retracted_at.is_(None))
    in_work = exists().where(
        Writing.prompt_id == Prompt.id,
        Writing.closed_at.is_(None),
        Writing.touched_at > now - timedelta(seconds=project.lease_duration_s),
    )
    given_back = exists().where(
        Writing.prompt_id == Prompt.id, Writing.labeler_id == labeler.id, Writing.end == WritingEnd.SKIPPED
    )
    return (
        *is_learned_from(project),  # an answer to another would be wasted
        serves(project, Use.DEMONSTRATE),
        ~answered,
        ~in_work,
        ~given_back,
    )

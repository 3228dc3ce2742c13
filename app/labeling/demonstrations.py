"""Submitted writing becomes prompts and demonstrations.

A submission is final like a ranking: taking it back marks it, and is refused once something was made from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid5

from sqlalchemy import exists, select, update
from sqlalchemy.orm import Session

from app.datasets.models import SnapshotDemonstration
from app.labeling import suggestions
from app.labeling.demonstration_content import KINDS, WritingContent, Written, answer_of, demonstrations_of
from app.labeling.models import Completion, Demonstration
from app.labeling.task_errors import (
    DemonstrationInUse,
    SubmissionIdTaken,
    SubmissionNotFound,
    WritingEnded,
    WritingTooLong,
)
from app.labeling.task_models import ConversationTurn, Writing, WritingEnd, WritingTask
from app.labeling.token_counts import CountTokens
from app.labeling.writings import find_writing
from app.people.models import Labeler
from app.people.owners import Owner
from app.policies.service import current_version
from app.projects.models import Project
from app.prompts.models import Prompt
from app.prompts.service import place_prompts


@dataclass(frozen=True)
class Receipt:
    """What became of a submit. `is_retry`: it was stored before, and this call changed nothing."""

    submission_id: UUID
    submitted_at: datetime
    is_retry: bool


def submit(
    session: Session,
    owner: Owner,
    writing_id: UUID,
    submission_id: UUID,
    content: WritingContent,
    *,
    count_tokens: CountTokens | None,
    now: datetime,
) -> Receipt:
    """Store what was written as demonstrations, and its prompts where they are new.

    submission_id: made by the client, so that a retry finds the first receipt; the last demonstration's id.
    Raises WritingNotFound, WritingEnded, IncompleteWriting, WritingTooLong, SubmissionIdTaken, SuggestionNotFound.
    """
    writing = find_writing(session, owner, writing_id, locked=True)
    if writing.submission_id == submission_id and writing.closed_at is not None:
        return Receipt(submission_id, writing.closed_at, is_retry=True)
    if writing.end is not None:
        raise WritingEnded(writing.end)
    if _is_taken(session, submission_id):
        raise SubmissionIdTaken(submission_id)
    project = session.get_one(Project, writing.project_id)
    placed = _place(session, project, writing, content, count_tokens)
    used = suggestions.used(session, writing, content.suggestion_id)
    for number, (prompt_id, text) in enumerate(placed, start=1):
        is_last = number == len(placed)
        session.add(
            Demonstration(
                id=submission_id if is_last else uuid5(submission_id, str(number)),
                prompt_id=prompt_id,
                labeler_id=writing.labeler_id,
                text=text,
                created_at=now,
                writing_id=writing.id,
                use_case=content.use_case.strip() or None if writing.task is WritingTask.USER_BASED else None,
                suggestion=used.text if used is not None and is_last else None,
                suggestion_policy_id=used.policy_version_id if used is not None and is_last else None,
                active_s=content.active_s if is_last else None,
            )
        )
    writing.closed_at, writing.end, writing.submission_id = now, WritingEnd.SUBMITTED, submission_id
    writing.content = content.model_dump(mode="json", exclude_defaults=True)
    session.flush()
    return Receipt(submission_id, now, is_retry=False)


def retract(session: Session, owner: Owner, submission_id: UUID, now: datetime) -> Writing:
    """Take a submission back: it stays on record, and nobody learns from it. Its text is the draft again, if the
    labeler has not begun another piece of the same task.

    A second call finds the first and changes nothing.  Raises SubmissionNotFound, DemonstrationInUse.
    """
    writing = session.scalar(
        select(Writing)
        .join(Labeler, Labeler.id == Writing.labeler_id)
        .where(Writing.submission_id == submission_id, owner.is_labeler())
        .with_for_update(of=Writing)
    )
    if writing is None:
        raise SubmissionNotFound(submission_id)
    # Whoever makes something of a demonstration refers to its row, a snapshot too; the lock lets us see them or them
    # wait for us. In the order in which a snapshot locks them.
    written = session.scalars(
        select(Demonstration)
        .where(Demonstration.writing_id == writing.id)
        .order_by(Demonstration.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).all()
    if all(demonstration.retracted_at is not None for demonstration in written):
        return writing
    _refuse_when_used(session, written)
    for demonstration in written:
        demonstration.retracted_at = now
    _reopen(session, writing, now)
    session.flush()
    return writing


def recent_submissions(session: Session, labeler_id: int, limit: int = 5) -> list[tuple[Writing, Demonstration]]:
    """What the labeler submitted last and has not taken back, the newest first."""
    rows = session.execute(
        select(Writing, Demonstration)
        .join(Demonstration, Demonstration.id == Writing.submission_id)
        .where(Writing.labeler_id == labeler_id, Demonstration.retracted_at.is_(None))
        .order_by(Writing.closed_at.desc())
        .limit(limit)
    )
    return [(writing, demonstration) for writing, demonstration in rows]


def check_lengths(
    session: Session, project: Project, written: Sequence[Written], count_tokens: CountTokens | None
) -> None:
    """Raises WritingTooLong for a prompt that would be set aside, or an answer that nothing could learn from."""
    if count_tokens is None:
        return  # the sampler knows, and says so of the prompt
    context = current_version(session, project).context_tokens
    for step in written:
        num_prompt = sum(count_tokens(message["content"]) for message in step.messages)
        if num_prompt > project.max_prompt_tokens:
            raise WritingTooLong("The prompt is", num_prompt, project.max_prompt_tokens)
        num_tokens = num_prompt + count_tokens(step.text)
        if context is not None and num_tokens >= context:
            raise WritingTooLong("Prompt and answer together are", num_tokens, context - 1)


def _place(
    session: Session, project: Project, writing: Writing, content: WritingContent, count_tokens: CountTokens | None
) -> list[tuple[int, str]]:
    """(prompt, text) of every demonstration; prompts that are new are added."""
    if writing.prompt_id is not None:
        prompt = session.get_one(Prompt, writing.prompt_id)
        text = answer_of(content)
        answered = Written([{k: str(v) for k, v in message.items()} for message in prompt.messages], text)
        check_lengths(session, project, [answered], count_tokens)
        return [(prompt.id, text)]
    written = demonstrations_of(writing.task, content)
    check_lengths(session, project, written, count_tokens)
    placed = place_prompts(session, project, [step.messages for step in written], kind=KINDS[writing.task]).placed
    return [(prompt.prompt_id, step.text) for prompt, step in zip(placed, written, strict=True)]


def _is_taken(session: Session, submission_id: UUID) -> bool:
    by_writing = exists().where(Writing.submission_id == submission_id)
    by_demonstration = exists().where(Demonstration.id == submission_id)
    return bool(session.scalar(select(by_writing | by_demonstration)))


def _refuse_when_used(session: Session, written: Sequence[Demonstration]) -> None:
    ids = [demonstration.id for demonstration in written]
    if session.scalar(select(exists().where(SnapshotDemonstration.demonstration_id.in_(ids)))):
        raise DemonstrationInUse("a snapshot")
    if session.scalar(select(exists().where(Completion.demonstration_id.in_(ids)))):
        raise DemonstrationInUse("a slate")
    if session.scalar(select(exists().where(ConversationTurn.demonstration_id.in_(ids)))):
        raise DemonstrationInUse("a conversation")


def _reopen(session: Session, writing: Writing, now: datetime) -> None:
    """A new piece with the submitted text as its draft, in the place of one that nobody has written on."""
    session.execute(
        update(Writing)
        .where(
            Writing.labeler_id == writing.labeler_id,
            Writing.task == writing.task,
            Writing.closed_at.is_(None),
            Writing.revision == 0,
        )
        .values(closed_at=now, end=WritingEnd.SKIPPED, reason="not begun: an earlier one was taken back")
    )
    begun = exists().where(
        Writing.labeler_id == writing.labeler_id, Writing.task == writing.task, Writing.closed_at.is_(None)
    )
    if session.scalar(select(begun)):
        return
    session.add(
        Writing(
            project_id=writing.project_id,
            labeler_id=writing.labeler_id,
            task=writing.task,
            prompt_id=writing.prompt_id,
            opened_at=now,
            touched_at=now,
            revision=1,
            content=writing.content,
        )
    )

"""What people write: pieces of writing with their drafts, and the turns of conversations with the policy."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import CheckConstraint, Float, ForeignKey, Index, SmallInteger, UniqueConstraint, Uuid, func
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, one_of


class WritingTask(StrEnum):
    """What a labeler writes: an answer to a prompt, a prompt with its answer, or turns with the policy."""

    ANSWER = "answer"
    PLAIN = "plain"
    FEW_SHOT = "few_shot"
    USER_BASED = "user_based"
    BOTH_SIDES = "both_sides"  # a whole conversation, the labeler writing the assistant's turns too
    CONVERSE = "converse"


class WritingEnd(StrEnum):
    """How a piece of writing ended."""

    SUBMITTED = "submitted"
    SKIPPED = "skipped"


class Writing(Base):
    """One piece of writing of one labeler, with its draft. One of each task is open at a time."""

    __tablename__ = "writing"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    labeler_id: Mapped[int] = mapped_column(ForeignKey("labeler.id"))
    task: Mapped[WritingTask] = mapped_column(one_of(WritingTask, "task"))
    prompt_id: Mapped[int | None] = mapped_column(ForeignKey("prompt.id"))  # of an answer: what is answered
    opened_at: Mapped[datetime]
    touched_at: Mapped[datetime]  # opened or saved: a prompt that nobody works on goes to others
    closed_at: Mapped[datetime | None]
    end: Mapped[WritingEnd | None] = mapped_column(one_of(WritingEnd, "end"))
    reason: Mapped[str | None]  # a skip's
    submission_id: Mapped[UUID | None] = mapped_column(Uuid, unique=True)  # made by the client: a retry finds the first
    revision: Mapped[int] = mapped_column(server_default=sql("0"))  # of the draft; 0 is none
    content: Mapped[dict[str, Any]] = mapped_column(server_default=sql("'{}'"))

    __table_args__ = (
        Index("uq_writing_open", "labeler_id", "task", unique=True, postgresql_where=sql("closed_at IS NULL")),
        Index(
            "ix_writing_labeler_closed",
            "labeler_id",
            "closed_at",
            postgresql_where=sql("closed_at IS NOT NULL"),
        ),  # what a labeler has written today decides what is next
        Index("ix_writing_prompt", "prompt_id", postgresql_where=sql("prompt_id IS NOT NULL")),
        CheckConstraint("(task = 'answer') = (prompt_id IS NOT NULL)", name="answers_have_a_prompt"),
        CheckConstraint('(closed_at IS NULL) = ("end" IS NULL)', name="closed_says_how"),
        CheckConstraint("(submission_id IS NULL) OR (\"end\" = 'submitted')", name="submitted_has_an_id"),
    )


class ConversationTurn(Base):
    """One turn of a labeler with the policy: what they wrote, the slate of replies, and how it went on."""

    __tablename__ = "conversation_turn"

    id: Mapped[UUID] = mapped_column(primary_key=True)  # made by the client, so that a retry finds the first one
    writing_id: Mapped[UUID] = mapped_column(ForeignKey("writing.id"))
    number: Mapped[int] = mapped_column(SmallInteger)  # 1, 2, … within the conversation
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompt.id"))  # the whole conversation so far
    slate_id: Mapped[UUID] = mapped_column(ForeignKey("slate.id"), unique=True)
    asked_at: Mapped[datetime] = mapped_column(server_default=func.now())
    # What has been sampled so far, while the slate is: [{"place", "text"}]; the slate's completions are the truth.
    arrived: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, server_default=sql("'[]'"))
    order_shown: Mapped[list[UUID] | None] = mapped_column(ARRAY(Uuid))  # once the slate is ready
    ranking_id: Mapped[UUID | None] = mapped_column(ForeignKey("ranking.id"), unique=True)
    chosen_id: Mapped[UUID | None] = mapped_column(ForeignKey("completion.id"))  # what the conversation goes on with
    demonstration_id: Mapped[UUID | None] = mapped_column(ForeignKey("demonstration.id"))  # the chosen one, edited
    active_s: Mapped[float | None] = mapped_column(Float)
    withdrawn_at: Mapped[datetime | None]  # could not be answered, or was taken back before it was

    __table_args__ = (
        UniqueConstraint("writing_id", "number"),
        CheckConstraint("(ranking_id IS NULL) = (chosen_id IS NULL)", name="judged_chooses"),
        CheckConstraint("demonstration_id IS NULL OR chosen_id IS NOT NULL", name="edits_what_was_chosen"),
        CheckConstraint("withdrawn_at IS NULL OR ranking_id IS NULL", name="judged_stays"),
    )

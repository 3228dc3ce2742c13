"""What the API of writing takes and gives."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field

from app.labeling.demonstration_content import MOST_PARTS, WritingContent, WritingDraft
from app.labeling.demonstrations import Receipt
from app.labeling.schemas import Form, MessageOut, Reason
from app.labeling.task_models import Writing, WritingTask
from app.prompts.models import Prompt


class WritingRequest(Form):
    """Which task the client would like to go on with."""

    task: WritingTask


class WritingDraftForm(Form):
    """A draft and the revision it was made from (0: none)."""

    revision: Annotated[int, Field(ge=0)]
    content: WritingDraft


class ContentForm(Form):
    """What is written so far."""

    content: WritingDraft


class SubmissionForm(Form):
    """What was written, under an id that the client made: sent twice, it is stored once."""

    submission_id: UUID
    content: WritingContent


class WritingSkipForm(Form):
    """Why a prompt is given back, or a beginning thrown away."""

    reason: Reason


class WritingOut(BaseModel):
    """An open piece of writing with its draft. prompt: of an answer, what is to be answered."""

    id: UUID
    task: WritingTask
    prompt: list[MessageOut] | None
    revision: int
    content: dict[str, Any]

    @classmethod
    def of(cls, writing: Writing, prompt: Prompt | None) -> "WritingOut":
        """The wire form."""
        messages = prompt.messages if prompt else []
        return cls(
            id=writing.id,
            task=writing.task,
            prompt=[MessageOut(role=m["role"], content=m["content"]) for m in messages] if prompt else None,
            revision=writing.revision,
            content=writing.content,
        )


class WritingsOut(BaseModel):
    """The open piece; null when there is no prompt left to answer."""

    writing: WritingOut | None


class SubmissionOut(BaseModel):
    """The receipt."""

    id: UUID
    submitted_at: datetime

    @classmethod
    def of(cls, receipt: Receipt) -> "SubmissionOut":
        """The receipt's wire form."""
        return cls(id=receipt.submission_id, submitted_at=receipt.submitted_at)


class SuggestionRequestOut(BaseModel):
    id: UUID


class SuggestionOut(BaseModel):
    """A suggestion's text once it is there, or what stands in its way; both null: it is being written."""

    text: str | None
    problem: str | None


def content_of_fields(fields: Iterable[tuple[str, Any]]) -> WritingContent:
    """What the page's own form holds, sent before any script has run: one field a part, `query` again and again.

    Raises ValueError for fields that make no content.
    """
    one: dict[str, Any] = {}
    many: dict[str, list[str]] = {"query": [], "response": [], "turn": []}
    for name, value in fields:
        text = str(value).replace("\r\n", "\n")  # browsers send CRLF
        if name in many:
            many[name].append(text)
        elif name in WritingContent.model_fields and text:
            one[name] = text
    pairs = [{"query": q, "response": r} for q, r in zip(many["query"], many["response"], strict=True)]
    return WritingContent.model_validate({**one, "pairs": pairs[:MOST_PARTS], "turns": many["turn"]})

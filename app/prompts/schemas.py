"""Prompts as JSON."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.prompts.listing import PromptFilter
from app.prompts.models import PromptKind, Split, Use


class PromptQuery(PromptFilter):
    """A page of the prompts that the filter allows. before: `next` of the page that came before it."""

    before: int | None = None
    limit: int = Field(default=100, ge=1, le=1000)


class PromptIn(BaseModel):
    """A prompt to add: one text, or turns of which the user's is the last."""

    text: str | None = None
    messages: list[dict[str, Any]] | None = None


class PromptOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    messages: list[dict[str, Any]]
    split: Split
    use: Use
    kind: PromptKind
    created_at: datetime
    set_aside_at: datetime | None
    set_aside_reason: str | None


class AddedPromptOut(BaseModel):
    """outcome: added, duplicate or near_duplicate; prompt_id: the new prompt's, or that of the one there was."""

    prompt_id: int
    outcome: str


class PromptPage(BaseModel):
    """next: what to pass as `before` for the page that follows; null on the last one."""

    prompts: list[PromptOut]
    next: int | None

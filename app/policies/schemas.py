"""What the API of policies reads and answers."""

from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from app.datasets.breakdowns import Content, Counts
from app.labeling.models import SlateKind, SlateState
from app.policies.labels import Source
from app.policies.models import PolicyState
from app.policies.slate_queue import SlateLine
from app.prompts.models import Split


class PolicyVersionOut(BaseModel):
    """A policy version. number: within the project."""

    model_config = ConfigDict(from_attributes=True)

    number: int
    state: PolicyState
    recipe: str
    is_sft: bool
    num_parameters: int | None
    context_tokens: int | None
    tokenizer_sha256: str | None
    manifest_sha256: str | None
    facts: dict[str, Any]
    created_at: datetime
    promoted_at: datetime | None


class Replacing(BaseModel):
    """Which version the caller saw as current; the change is refused when it is not current any more."""

    model_config = ConfigDict(extra="forbid")

    replacing: int | None = None


class SourceOut(BaseModel):
    """Labels that a version learned from. counts: by labeler, week, split, authors."""

    content: Content
    snapshot_id: int
    snapshot: str
    sha256: str | None
    round: int
    version: int
    reward_model: int | None
    only_new: bool
    num_labels: int
    counts: dict[str, dict[str, int]]

    @classmethod
    def of(cls, source: Source, counts: Counts) -> Self:
        is_rankings = source.content == "rankings"
        return cls(
            content=source.content,
            snapshot_id=source.snapshot.id,
            snapshot=source.snapshot.name,
            sha256=source.snapshot.sha256 if is_rankings else source.snapshot.sft_sha256,
            round=source.round.number,
            version=source.version.number,
            reward_model=None if source.reward_model is None else source.reward_model.number,
            only_new=source.only_new,
            num_labels=source.num_labels,
            counts={name: dict(own) for name, own in counts.items()},
        )


class LabelOut(BaseModel):
    """A ranking or a demonstration of a snapshot; position: its place there, counted from 1."""

    model_config = ConfigDict(from_attributes=True)

    position: int
    id: UUID
    slate_id: UUID | None
    labeler: str | None
    split: Split
    given_at: datetime


class ReachedOut(BaseModel):
    """A policy version that a ranking reached: through a reward model, or handed down from another version."""

    version: int
    reward_model: int | None
    from_version: int | None


class SlateLineOut(BaseModel):
    """A slate in the list. versions: the numbers of those that wrote it; null while people judge it blind."""

    id: UUID
    kind: SlateKind
    state: SlateState
    k: int
    overlap: int
    num_rankings: int
    versions: list[int] | None
    created_at: datetime

    @classmethod
    def of(cls, line: SlateLine) -> Self:
        slate = line.slate
        return cls(
            id=slate.id,
            kind=slate.kind,
            state=slate.state,
            k=slate.k,
            overlap=slate.overlap,
            num_rankings=line.num_rankings,
            versions=None if line.versions is None else list(line.versions),
            created_at=slate.created_at,
        )


class SlatesOut(BaseModel):
    """A page of slates, the newest first. next: what `before` is for the page after it; null on the last one."""

    slates: list[SlateLineOut]
    next: UUID | None

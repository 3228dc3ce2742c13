"""What a labeler is shown: texts in their own random order, and nothing that tells who wrote them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.labeling.models import Completion, Draft, Lease, Ranking, Slate
from app.projects.models import Guidelines
from app.prompts.models import Prompt

LETTERS = "ABCDEFGHI"


@dataclass(frozen=True)
class ShownCompletion:
    """One text; the letter is its place on this labeler's screen."""

    id: UUID
    letter: str
    text: str


@dataclass(frozen=True)
class ShownSlate:
    """A leased slate as its labeler sees it."""

    lease_id: UUID
    expires_at: datetime
    messages: list[dict[str, Any]]  # the prompt
    completions: list[ShownCompletion]  # in the order stored with the lease
    asks_full_form: bool
    draft_revision: int  # 0: none yet
    draft: dict[str, Any] | None


def shown_slates(session: Session, lease_ids: list[UUID]) -> list[ShownSlate]:
    """The leases' slates: the one last worked on first, then in the order they were granted."""
    texts = (
        select(func.jsonb_object_agg(Completion.id, Completion.text))
        .where(Completion.slate_id == Lease.slate_id)
        .scalar_subquery()
    )
    rows = session.execute(
        select(
            Lease.id,
            Lease.expires_at,
            Lease.order_shown,
            Slate.asks_full_form,
            Prompt.messages,
            Draft.revision,
            Draft.content,
            texts.label("texts"),
        )
        .join(Slate, Slate.id == Lease.slate_id)
        .join(Prompt, Prompt.id == Slate.prompt_id)
        .outerjoin(Draft, (Draft.slate_id == Lease.slate_id) & (Draft.labeler_id == Lease.labeler_id))
        .where(Lease.id.in_(lease_ids))
        .order_by(Draft.updated_at.desc().nulls_last(), Lease.granted_at)
    )
    return [
        ShownSlate(
            lease_id=row.id,
            expires_at=row.expires_at,
            messages=row.messages,
            completions=[
                ShownCompletion(completion_id, LETTERS[place], row.texts[str(completion_id)])
                for place, completion_id in enumerate(row.order_shown)
            ],
            asks_full_form=row.asks_full_form,
            draft_revision=row.revision or 0,
            draft=row.content,
        )
        for row in rows
    ]


def num_submitted_since(session: Session, labeler_id: int, since: datetime) -> int:
    """The labeler's rankings since a moment, those taken back left out."""
    mine = select(func.count()).select_from(Ranking).where(Ranking.labeler_id == labeler_id)
    return session.scalar(mine.where(Ranking.submitted_at >= since, Ranking.retracted_at.is_(None))) or 0


def newest_guidelines(session: Session, project_id: int) -> Guidelines | None:
    """What labelers of the project are asked to look for, in its newest version."""
    mine = select(Guidelines).where(Guidelines.project_id == project_id)
    return session.scalar(mine.order_by(Guidelines.version.desc()).limit(1))

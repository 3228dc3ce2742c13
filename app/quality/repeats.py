"""Drift anchors: a labeler is silently given a slate again that they ranked long ago, as a copy that only they get."""

from datetime import datetime, timedelta

from sqlalchemy import exists, select
from sqlalchemy.orm import Session, aliased

from app.db import constant
from app.labeling.models import Ranking, Slate, SlateKind, SlateState
from app.people.models import Labeler
from app.projects.models import Project
from app.quality.copies import copy_slate

REPEATED_KINDS = (SlateKind.TRAINING, SlateKind.PAIR)


def ensure_repeat(session: Session, labeler: Labeler, project: Project, *, now: datetime) -> None:
    """Have a repeat ready for the labeler, if they ranked anything long enough ago that was not repeated yet."""
    waiting = select(Slate.id).where(Slate.for_labeler_id == labeler.id, Slate.state == constant(SlateState.READY))
    if session.scalar(waiting.limit(1)) is not None:
        return
    repeat = aliased(Slate)
    is_repeated = exists().where(
        repeat.repeats_id == Slate.id,
        repeat.for_labeler_id == labeler.id,
        repeat.kind == constant(SlateKind.REPEAT),  # what the index holds
    )
    oldest = session.scalar(
        select(Slate)
        .join(Ranking, Ranking.slate_id == Slate.id)
        .where(
            Ranking.labeler_id == labeler.id,
            Ranking.submitted_at <= now - timedelta(days=project.repeat_after_days),
            Ranking.counted,
            Ranking.retracted_at.is_(None),
            Slate.kind.in_(REPEATED_KINDS),
            ~is_repeated,
        )
        .order_by(Ranking.submitted_at)
        .limit(1)
    )
    if oldest is not None:
        copy_slate(session, oldest, SlateKind.REPEAT, overlap=1, now=now, for_labeler_id=labeler.id)

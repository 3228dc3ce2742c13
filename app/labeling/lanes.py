"""Where a labeler's next slate comes from: onboarding, begun work, comparisons, training; gold and repeats unseen."""

from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Any

from sqlalchemy import ColumnElement, exists, select
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import SQLCoreOperations

from app.labeling.models import DECLINED, Draft, Lease, Ranking, Slate, SlateKind
from app.people.models import Labeler
from app.projects.models import Project
from app.quality import gold, onboarding
from app.quality.repeats import ensure_repeat
from app.rounds.models import Round, RoundState

RANKED_KINDS = (SlateKind.TRAINING, SlateKind.PAIR)
EVALUATION_SHARE = 0.5  # of the slates given out while a round waits for its comparisons; the rest go on with training


@dataclass(frozen=True)
class Standing:
    """What decides which slates a labeler may be given."""

    must_accept: bool  # the guidelines, before anything else
    is_newcomer: bool
    is_waiting: bool  # as a newcomer, for an admin
    has_work_left: bool  # on a slate that they hold no lease of


@dataclass(frozen=True)
class Lane:
    """Slates to look among, and the order to look in."""

    slates: ColumnElement[bool]
    order: tuple[SQLCoreOperations[Any], ...]


def lanes_for(
    session: Session, labeler: Labeler, project: Project, standing: Standing, *, now: datetime, rng: Random
) -> list[Lane]:
    """Where to look for the labeler's next slate, the first place first. Nothing that they see tells which it was."""
    if standing.is_newcomer:
        return [Lane(onboarding.is_left_for(labeler), onboarding.order_for(labeler))]
    training = Slate.kind.in_(RANKED_KINDS)
    comparing = (
        select(Round.id)
        .where(Round.project_id == labeler.project_id, Round.state == RoundState.AWAITING_LABELS)
        .scalar_subquery()  # at most one round is active
    )
    evaluation = (Slate.kind == SlateKind.EVALUATION) & (Slate.round_id == comparing)
    known = Slate.kind == SlateKind.GOLD
    repeat = (Slate.kind == SlateKind.REPEAT) & (Slate.for_labeler_id == labeler.id)
    kinds: list[ColumnElement[bool]]
    kinds = [evaluation, training] if rng.random() < EVALUATION_SHARE else [training, evaluation]
    drawn = rng.random()
    if drawn < project.gold_share:
        kinds.insert(0, gold.is_gold_for(labeler))
    elif drawn < project.gold_share + project.repeat_share:
        ensure_repeat(session, labeler, project, now=now)
        kinds.insert(0, repeat)
    if standing.has_work_left:  # on a lease that expired: it comes back as it was left
        left = Slate.id.in_(select(Draft.slate_id).where(Draft.labeler_id == labeler.id))
        kinds.insert(0, left & (training | evaluation | known | repeat))
    is_new = _is_new_to(labeler)
    return [Lane(kind & is_new, (Slate.free_from,)) for kind in kinds]


def _is_new_to(labeler: Labeler) -> ColumnElement[bool]:
    """Whether the labeler neither holds nor has declined nor has ranked a slate."""
    held_or_declined = exists().where(
        Lease.slate_id == Slate.id,
        Lease.labeler_id == labeler.id,
        Lease.closed_at.is_(None) | Lease.end.in_(DECLINED),
    )
    ranked = exists().where(
        Ranking.slate_id == Slate.id, Ranking.labeler_id == labeler.id, Ranking.retracted_at.is_(None)
    )
    return ~held_or_declined & ~ranked

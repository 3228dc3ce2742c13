"""Where a labeler's next slate comes from: onboarding, begun work, comparisons, training; gold and repeats unseen."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from functools import lru_cache
from random import Random
from typing import Any

from sqlalchemy import ARRAY, BigInteger, DateTime, Select, Uuid, bindparam, exists, func, or_, select
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement, SQLCoreOperations

from app.db import constant
from app.labeling.models import DECLINED, Completion, Draft, Lease, LeaseEnd, Ranking, Slate, SlateKind, SlateState
from app.people.models import Labeler
from app.projects.models import Project
from app.quality import gold, onboarding
from app.quality.repeats import ensure_repeat
from app.rounds.models import Round, RoundState

EVALUATION_SHARE = 0.5  # of the slates given out while a round waits for its comparisons; the rest go on with training


@dataclass(frozen=True)
class Standing:
    """What decides which slates a labeler may be given."""

    must_accept: bool  # the guidelines, before anything else
    is_newcomer: bool
    is_waiting: bool  # as a newcomer, for an admin
    has_work_left: bool  # on a slate that they hold no lease of
    is_comparing: bool  # a round of the project waits for its comparisons


class Lane(Enum):
    """Slates to look among."""

    ONBOARDING = auto()
    WORK_LEFT = auto()  # on a lease that expired: it comes back as it was left
    GOLD = auto()
    REPEAT = auto()
    COMPARING = auto()
    TRAINING = auto()


def lanes_for(
    session: Session, labeler: Labeler, project: Project, standing: Standing, *, now: datetime, rng: Random
) -> list[Lane]:
    """Where to look for the labeler's next slate, the first place first. Nothing that they see tells which it was."""
    if standing.is_newcomer:
        return [Lane.ONBOARDING]
    lanes = [Lane.TRAINING]
    if standing.is_comparing:
        lanes.insert(0 if rng.random() < EVALUATION_SHARE else 1, Lane.COMPARING)
    drawn = rng.random()
    if drawn < project.gold_share:
        lanes.insert(0, Lane.GOLD)
    elif drawn < project.gold_share + project.repeat_share:
        ensure_repeat(session, labeler, project, now=now)
        lanes.insert(0, Lane.REPEAT)
    if standing.has_work_left:
        lanes.insert(0, Lane.WORK_LEFT)
    return lanes


# Bound when a lane is looked at. The statements are put together once: that costs more than the database's answer.
_labeler_id: SQLCoreOperations[int] = bindparam("labeler_id", type_=BigInteger)
_account_id: SQLCoreOperations[int] = bindparam("account_id", type_=BigInteger)
_project_id: SQLCoreOperations[int] = bindparam("project_id", type_=BigInteger)
_now = bindparam("now", type_=DateTime(timezone=True))


@lru_cache(maxsize=len(Lane))
def candidate(lane: Lane) -> Select[Any]:
    """Locks the first slate of the lane that seems to have a free slot; what others lock is left to them.

    Bound: labeler_id, account_id, project_id, now, and passed_over, the ids of slates not to look at again.
    Answers with what the slate's slots need, its completions, and in which order the labeler saw them on a lease that
    ran out: work comes back as it was left.
    """
    completion_ids = select(func.array_agg(Completion.id)).where(Completion.slate_id == Slate.id).scalar_subquery()
    seen = (
        select(Lease.order_shown)
        .where(Lease.slate_id == Slate.id, Lease.labeler_id == _labeler_id, Lease.end == constant(LeaseEnd.EXPIRED))
        .order_by(Lease.granted_at.desc())
        .limit(1)
        .scalar_subquery()
    )
    passed_over = bindparam("passed_over", type_=ARRAY(Uuid))
    order = onboarding.order_for(_labeler_id) if lane is Lane.ONBOARDING else (Slate.free_from,)
    return (
        select(
            Slate.id,
            Slate.overlap,
            Slate.state,
            Slate.free_from,
            Slate.done_at,
            completion_ids.label("completion_ids"),
            seen.label("seen"),
        )
        .where(Slate.project_id == _project_id, Slate.state == constant(SlateState.READY), Slate.free_from <= _now)
        .where(_slates_of(lane), Slate.id != func.all(passed_over))
        .order_by(*order)
        .limit(1)
        .with_for_update(of=Slate, key_share=True, skip_locked=True)
    )


def _slates_of(lane: Lane) -> ColumnElement[bool]:
    if lane is Lane.ONBOARDING:
        return onboarding.is_left_for(_labeler_id)
    training = Slate.kind.in_((constant(SlateKind.TRAINING), constant(SlateKind.PAIR)))
    comparing = (
        select(Round.id)
        .where(Round.project_id == _project_id, Round.state == constant(RoundState.AWAITING_LABELS))
        .scalar_subquery()  # at most one round is active
    )
    evaluation = (Slate.kind == constant(SlateKind.EVALUATION)) & (Slate.round_id == comparing)
    repeat = (Slate.kind == constant(SlateKind.REPEAT)) & (Slate.for_labeler_id == _labeler_id)
    known = Slate.kind == constant(SlateKind.GOLD)
    left = Slate.id.in_(select(Draft.slate_id).where(Draft.labeler_id == _labeler_id))
    slates = {
        Lane.WORK_LEFT: left & or_(training, evaluation, known, repeat),
        Lane.GOLD: gold.is_gold_for(_labeler_id, _account_id),
        Lane.REPEAT: repeat,
        Lane.COMPARING: evaluation,
        Lane.TRAINING: training,
    }
    return slates[lane] & _is_new_to_labeler()


def _is_new_to_labeler() -> ColumnElement[bool]:
    """Whether the labeler neither holds nor has declined nor has ranked a slate."""
    held_or_declined = exists().where(
        Lease.slate_id == Slate.id,
        Lease.labeler_id == _labeler_id,
        Lease.closed_at.is_(None) | Lease.end.in_(list(map(constant, DECLINED))),
    )
    ranked = exists().where(
        Ranking.slate_id == Slate.id, Ranking.labeler_id == _labeler_id, Ranking.retracted_at.is_(None)
    )
    return ~held_or_declined & ~ranked

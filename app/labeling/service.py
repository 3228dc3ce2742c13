"""Takes rankings in and, where asked, back. What was acknowledged is kept; what counts is decided under a lock."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from app.datasets.models import SnapshotRanking
from app.labeling import submissions
from app.labeling.errors import (
    AlreadyRanked,
    IncompleteRanking,
    RankingInUse,
    RankingNotFound,
    StrengthDoesNotFit,
)
from app.labeling.leases import lease_again
from app.labeling.models import (
    Draft,
    Lease,
    LeaseEnd,
    Ranking,
    RankingItem,
    Retraction,
    Slate,
    SlateKind,
    SlateState,
    Strength,
)
from app.labeling.slots import Place, Slots, count_slots, settle
from app.people.models import Labeler
from app.people.owners import Owner
from app.projects.models import Project
from app.quality import onboarding
from app.rounds.conclusions import conclude_if_compared, moment_of_comparison
from app.rounds.models import Round, RoundState


@dataclass(frozen=True)
class Judgement:
    """What a labeler said about a slate, by completion id.

    ranks: 1 is best, equal ranks are ties, gaps allowed; every completion of the slate exactly once.
    strength: how much better the better of two, or the picked one, is; None where it was not asked.
    is_pick: one was picked, and the others were not compared with each other: their equal ranks are no ties.
    """

    ranks: Mapping[UUID, int]
    qualities: Mapping[UUID, int] = field(default_factory=dict)  # 1 to 7
    flags: Mapping[UUID, list[str]] = field(default_factory=dict)
    notes: Mapping[UUID, str] = field(default_factory=dict)
    note: str | None = None
    strength: Strength | None = None
    is_pick: bool = False
    is_safe: Mapping[UUID, bool] = field(default_factory=dict)  # asked of two completions, where the project does
    active_s: float | None = None  # seconds of work, idle time left out
    idle_s: float | None = None  # seconds in view without a key or a pointer


@dataclass(frozen=True)
class Receipt:
    """What became of a submit. `is_retry`: the ranking was stored before, and this call changed nothing."""

    ranking_id: UUID
    counted: bool
    submitted_at: datetime
    is_retry: bool
    lesson: onboarding.Lesson | None = None  # after an onboarding slate: the researchers' answer


def submit_ranking(
    session: Session, owner: Owner, lease_id: UUID, ranking_id: UUID, judgement: Judgement, *, now: datetime
) -> Receipt:
    """Store the ranking of the slate that the owner's lease is on, and close the lease.

    ranking_id: made by the client, so that a retry finds the first ranking. A lease that has expired still takes the
    ranking: it counts when a slot is free, and is kept with `counted` false when none is.
    The slate and the lease are written past the session: objects of them that it holds are stale afterwards.
    Raises LeaseNotFound, AlreadyRanked, IncompleteRanking, StrengthDoesNotFit, RankingIdTaken.
    """
    session.flush()  # what the caller changed on the lease is read back below
    lease = submissions.lock(session, owner, lease_id)
    is_lesson = lease.kind is SlateKind.ONBOARDING
    first = submissions.ranking_of(session, lease_id) if lease.end is not None else None
    if first is not None:
        if first.id != ranking_id:
            raise AlreadyRanked(first.id)
        lesson = _lesson(session, ranking_id) if is_lesson else None
        return Receipt(ranking_id, first.counted, first.submitted_at, is_retry=True, lesson=lesson)
    _check(judgement, lease.order_shown)
    _check_safety(session, judgement, lease.order_shown, lease.project_id)
    slots = count_slots(session, lease.slate_id, lease.overlap, now).without_lease_of(lease.labeler_id)
    slot = _slot_of(lease, slots)
    if slot is not None:
        slots = slots.with_ranking(slot, lease.labeler_id)
    place = Place(lease.state, lease.free_from, lease.done_at).settled(slots, now)
    compared_in = lease.round_id if lease.kind is SlateKind.EVALUATION and place.state is SlateState.DONE else None
    if compared_in is not None:
        now = moment_of_comparison(session, compared_in, now)
    ranking = {
        "id": ranking_id,
        "project_id": lease.project_id,
        "slate_id": lease.slate_id,
        "labeler_id": lease.labeler_id,
        "lease_id": lease_id,
        "slot": slot,
        "counted": slot is not None,
        "order_shown": lease.order_shown,
        "is_pick": judgement.is_pick,
        "strength": judgement.strength,
        "note": judgement.note,
        "active_s": judgement.active_s,
        "idle_s": judgement.idle_s,
        "submitted_at": now,
    }
    submissions.store(session, ranking, _items(judgement), place)
    if compared_in is not None:
        conclude_if_compared(session, compared_in, now)
    lesson = None
    if is_lesson:
        stored, project = session.get_one(Ranking, ranking_id), session.get_one(Project, lease.project_id)
        lesson = onboarding.answer(session, project, stored, now=now)
    return Receipt(ranking_id, slot is not None, now, is_retry=False, lesson=lesson)


def _slot_of(lease: Row[Any], slots: Slots) -> int | None:
    """The slot that the ranking takes; None for one that is kept and does not count. lease: of submissions.lock."""
    if lease.labeler_id in slots.ranked.values():
        return None  # they ranked it on a later lease: one person counts once
    if lease.kind is SlateKind.ONBOARDING:
        return None  # it says something about the labeler, and nothing about the completions
    if lease.end is LeaseEnd.RETIRED:
        return None  # a text of the slate was erased: nobody is to learn from what was ranked
    return slots.free_for(lease.labeler_id, preferred=lease.slot)


def retract(
    session: Session, owner: Owner, ranking_id: UUID, *, correct: bool, now: datetime, rng: Random
) -> UUID | None:
    """Take the owner's ranking back: its slot is free again, the ranking stays on record.

    correct: lease the slate to the same labeler at once, its draft as it was submitted; returns that lease's id.
    A second call finds the first and changes nothing.  Raises RankingNotFound, RankingInUse.
    """
    slate = session.scalar(
        select(Slate)
        .join(Ranking, Ranking.slate_id == Slate.id)
        .join(Labeler, Labeler.id == Ranking.labeler_id)
        .where(Ranking.id == ranking_id, owner.is_labeler())
        .with_for_update(of=Slate, key_share=True)
        .execution_options(populate_existing=True)
    )
    if slate is None:
        raise RankingNotFound(ranking_id)
    # A snapshot being frozen holds a share lock on the row: we wait for it, then see what it took.
    ranking = session.scalars(
        select(Ranking).where(Ranking.id == ranking_id).with_for_update().execution_options(populate_existing=True)
    ).one()
    if ranking.retracted_at is None:
        _refuse_when_used(session, ranking, slate)
        ranking.retracted_at = now
        session.add(Retraction(ranking_id=ranking.id, account_id=owner.account_id, retracted_at=now))
        session.flush()
        settle(session, slate, now)
        session.flush()
    if not correct:
        return None
    return _open_for_correction(session, ranking, slate, now, rng)


def dense(ranks: Mapping[UUID, int]) -> dict[UUID, int]:
    """The same order with ranks 1, 2, 3 … and no gaps; equal ranks stay equal."""
    place = {rank: number for number, rank in enumerate(sorted(set(ranks.values())), start=1)}
    return {completion_id: place[rank] for completion_id, rank in ranks.items()}


def draft_of(judgement_items: Iterable[RankingItem], ranking: Ranking) -> dict[str, object]:
    """The draft that the page would have saved just before this ranking was submitted."""
    items = list(judgement_items)
    return {
        # Of a pick the others have no rank yet: whoever ranks them now says something new.
        "ranks": {str(item.completion_id): item.rank for item in items if item.rank == 1 or not ranking.is_pick},
        "qualities": {str(item.completion_id): item.quality for item in items if item.quality is not None},
        "flags": {str(item.completion_id): item.flags for item in items if item.flags},
        "notes": {str(item.completion_id): item.note for item in items if item.note},
        "note": ranking.note or "",
        "strength": None if ranking.is_pick else ranking.strength,
        "is_safe": {str(item.completion_id): item.is_safe for item in items if item.is_safe is not None},
        "active_s": ranking.active_s or 0.0,
        "idle_s": ranking.idle_s or 0.0,
    }


def _lesson(session: Session, ranking_id: UUID) -> onboarding.Lesson:
    ranking = session.get_one(Ranking, ranking_id)
    return onboarding.lesson_of(session, session.get_one(Project, ranking.project_id), ranking)


def _check(judgement: Judgement, completion_ids: Iterable[UUID]) -> None:
    expected = set(completion_ids)
    if missing := len(expected - judgement.ranks.keys()):
        raise IncompleteRanking(f"{missing} of the {len(expected)} completions have no rank")
    named = {*judgement.ranks, *judgement.qualities, *judgement.flags, *judgement.notes, *judgement.is_safe}
    if named - expected:
        raise IncompleteRanking("The ranking names a completion that is not on the slate")
    if judgement.strength is None:
        return
    if len(expected) != 2 and not judgement.is_pick:
        raise StrengthDoesNotFit(f"Strength is asked of two completions, not of {len(expected)}")
    is_tie = len(set(judgement.ranks.values())) == 1
    if is_tie and judgement.strength is not Strength.NEGLIGIBLY:
        raise StrengthDoesNotFit(f"Two completions with the same rank cannot differ {judgement.strength}")


def _check_safety(session: Session, judgement: Judgement, completion_ids: Sequence[UUID], project_id: int) -> None:
    if len(completion_ids) != 2 or judgement.is_safe.keys() == set(completion_ids):
        return
    if session.get_one(Project, project_id).asks_safety:
        raise IncompleteRanking("It is not said of both completions whether they are safe")


def _items(judgement: Judgement) -> list[dict[str, Any]]:
    return [
        {
            "completion_id": str(completion_id),
            "rank": rank,
            "quality": judgement.qualities.get(completion_id),
            "flags": judgement.flags.get(completion_id, []),
            "is_safe": judgement.is_safe.get(completion_id),
            "note": judgement.notes.get(completion_id),
        }
        for completion_id, rank in dense(judgement.ranks).items()
    ]


def _refuse_when_used(session: Session, ranking: Ranking, slate: Slate) -> None:
    if session.scalar(select(SnapshotRanking.snapshot_id).where(SnapshotRanking.ranking_id == ranking.id).limit(1)):
        raise RankingInUse("a snapshot")
    if slate.kind is SlateKind.EVALUATION:
        # Against the submit that ends the round: it has counted this ranking, or it waits and then does not count it.
        round_ = session.get_one(Round, slate.round_id, with_for_update={"read": True}, populate_existing=True)
        if round_.state is not RoundState.AWAITING_LABELS:
            raise RankingInUse("a finished comparison of two policies")
    if slate.kind is SlateKind.ONBOARDING:
        raise RankingInUse("the lesson that you were shown")


def _open_for_correction(session: Session, ranking: Ranking, slate: Slate, now: datetime, rng: Random) -> UUID | None:
    """Lease the slate again with its old draft; None when it was retired or is taken by now."""
    own = Lease.slate_id == slate.id, Lease.labeler_id == ranking.labeler_id
    open_lease = session.scalar(select(Lease.id).where(*own, Lease.closed_at.is_(None)))
    if open_lease is not None or slate.state is not SlateState.READY:
        return open_lease
    project = session.get_one(Project, slate.project_id)
    deadline = now + timedelta(seconds=project.lease_duration_s)
    lease = lease_again(session, ranking.labeler_id, slate, deadline, now, rng)
    if lease is None:
        return None
    items = session.scalars(select(RankingItem).where(RankingItem.ranking_id == ranking.id))
    draft = {"content": draft_of(items, ranking), "updated_at": now, "revision": 1}
    session.execute(
        upsert(Draft)
        .values(slate_id=slate.id, labeler_id=ranking.labeler_id, **draft)
        .on_conflict_do_update(
            index_elements=[Draft.slate_id, Draft.labeler_id], set_={**draft, "revision": Draft.revision + 1}
        )
    )
    return lease.id

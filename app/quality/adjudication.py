"""The slates that people ranked least alike: a researcher sees the judgements blind, decides, and says why."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from random import Random
from string import ascii_uppercase
from uuid import UUID

from sqlalchemy import ColumnElement, case, false, func, select
from sqlalchemy.orm import Session, joinedload

from app.datasets.facts import RankingFacts
from app.labeling.models import FITTING_KINDS, Completion, Ranking, RankingItem, Slate
from app.labeling.service import dense
from app.people.models import Account
from app.people.service import audit
from app.projects.models import Project
from app.quality.errors import AlreadyAdjudicated, BadDecision, ReasonMissing, SlateNotInQueue
from app.quality.models import Adjudication
from app.quality.standing import LONGEST_REASON

LONGEST_QUEUE = 50
MOST_COMPLETIONS = len(ascii_uppercase)


@dataclass(frozen=True)
class QueuedSlate:
    """A slate that waits for a decision."""

    slate: Slate
    agreement: float  # share of comparisons that its rankings order alike, over all pairs of them
    num_rankings: int


@dataclass(frozen=True)
class BlindCompletion:
    """A text under a letter, and the rank that each judge gave it; None: they picked another and said no more."""

    id: UUID
    letter: str
    text: str
    ranks: list[int | None]


@dataclass(frozen=True)
class Case:
    """A slate and its judgements; letters and judges are shuffled, the same way for everyone who looks."""

    slate: Slate
    completions: list[BlindCompletion]
    num_judges: int

    @property
    def has_picks(self) -> bool:
        return any(None in completion.ranks for completion in self.completions)


def queue(session: Session, project: Project, limit: int = LONGEST_QUEUE) -> list[QueuedSlate]:
    """The least agreed slates first. Out are those that are decided, and those ranked alike by everybody.

    Reads what rankings are chosen by from the end of its index where they agree least: each ranking of a slate tells
    the slate's agreement, and one that is decided says so.
    """
    facts = RankingFacts
    undecided = (
        select(facts.slate_id, facts.agreement, func.count().label("num"))
        .where(
            facts.project_id == project.id,
            facts.agreement < 1,
            facts.kind.in_(FITTING_KINDS),
            facts.k <= MOST_COMPLETIONS,
            facts.is_adjudicated == false(),
        )
        .group_by(facts.agreement, facts.slate_id)
        .order_by(facts.agreement, facts.slate_id)
        .limit(limit)
        .subquery()
    )
    rows = session.execute(
        select(Slate, undecided.c.agreement, undecided.c.num)
        .join(undecided, undecided.c.slate_id == Slate.id)
        .order_by(undecided.c.agreement, Slate.id)
        .options(joinedload(Slate.prompt))
    )
    return [QueuedSlate(*row) for row in rows]


def _can_be_decided() -> ColumnElement[bool]:
    return Slate.kind.in_(FITTING_KINDS) & (Slate.k <= MOST_COMPLETIONS)


def case_of(session: Session, project: Project, slate_id: UUID) -> Case:
    """What a researcher decides on.  Raises SlateNotInQueue, AlreadyAdjudicated.

    Nothing on it says who judged, when, or which policy wrote what.
    """
    slate = session.scalar(select(Slate).where(Slate.id == slate_id, Slate.project_id == project.id, _can_be_decided()))
    if slate is None:
        raise SlateNotInQueue
    if session.get(Adjudication, slate_id) is not None:
        raise AlreadyAdjudicated
    ranks = _ranks_by_judge(session, slate)
    if len(ranks) < 2:
        raise SlateNotInQueue
    shuffler = Random(slate.id.int)  # noqa: S311 - no secret, and the same for everyone who opens the slate
    judges = shuffler.sample(ranks, len(ranks))
    completions = shuffler.sample(slate.completions, slate.k)
    return Case(
        slate,
        [
            BlindCompletion(each.id, letter, each.text, [judge[each.id] for judge in judges])
            for letter, each in zip(ascii_uppercase, completions, strict=False)
        ],
        len(judges),
    )


def _ranks_by_judge(session: Session, slate: Slate) -> list[dict[UUID, int | None]]:
    """Each standing ranking that counts as completion id -> rank, in no order that tells who gave it."""
    is_left_open = Ranking.is_pick & (RankingItem.rank > 1)
    rows = session.execute(
        select(RankingItem.ranking_id, RankingItem.completion_id, case((is_left_open, None), else_=RankingItem.rank))
        .join(Ranking, Ranking.id == RankingItem.ranking_id)
        .where(Ranking.slate_id == slate.id, Ranking.counted, Ranking.retracted_at.is_(None))
        .order_by(RankingItem.ranking_id)
    )
    ranks: dict[UUID, dict[UUID, int | None]] = {}
    for ranking_id, completion_id, rank in rows:
        ranks.setdefault(ranking_id, {})[completion_id] = rank
    return list(ranks.values())


def decide(
    session: Session,
    project: Project,
    slate_id: UUID,
    ranks: Mapping[UUID, int],
    reason: str,
    *,
    by: Account,
    now: datetime,
) -> Adjudication:
    """Store the decision; the slate leaves the queue for good.

    ranks: completion id -> rank, every completion once; made dense.
    Raises SlateNotInQueue, AlreadyAdjudicated, BadDecision, ReasonMissing.
    """
    session.get(Slate, slate_id, with_for_update={"key_share": True})  # two researchers: the first decision stands
    case = case_of(session, project, slate_id)
    if ranks.keys() != {completion.id for completion in case.completions} or min(ranks.values()) < 1:
        raise BadDecision
    reason = reason.strip()
    if not 0 < len(reason) <= LONGEST_REASON:
        raise ReasonMissing
    decision = Adjudication(
        slate_id=slate_id,
        ranks={str(completion_id): rank for completion_id, rank in dense(ranks).items()},
        reason=reason,
        num_rankings=case.num_judges,
        account_id=by.id,
        created_at=now,
    )
    session.add(decision)
    audit(session, by.id, "quality.adjudicate", f"slate:{slate_id}", project.id)
    session.flush()
    return decision


@dataclass(frozen=True)
class Decided:
    """A decision for the list: its slate, and who made it."""

    decision: Adjudication
    slate: Slate
    by: str
    best: str  # the text that was placed first; the first of several


def decisions(session: Session, project: Project, limit: int = 20) -> list[Decided]:
    """What was decided, the newest first."""
    rows = session.execute(
        select(Adjudication, Slate, Account.name)
        .join(Slate, Slate.id == Adjudication.slate_id)
        .join(Account, Account.id == Adjudication.account_id)
        .where(Slate.project_id == project.id)
        .options(joinedload(Slate.prompt))
        .order_by(Adjudication.created_at.desc())
        .limit(limit)
    ).all()
    best = {UUID(next(key for key, rank in row[0].ranks.items() if rank == 1)) for row in rows}
    texts = dict(session.execute(select(Completion.slate_id, Completion.text).where(Completion.id.in_(best))).all())
    return [Decided(decision, slate, name, texts[slate.id]) for decision, slate, name in rows]

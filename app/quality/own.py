"""What a labeler reads about their own work: pace, time, how often they agree with others, what admins said."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np
from sqlalchemy import Date, cast, func, select
from sqlalchemy.orm import Session

from app.labeling.models import Ranking
from app.people.models import Labeler
from app.projects.models import Project
from app.quality.agreement import Estimate, make_blocks
from app.quality.judgements import REFERENCE, Filter, make_digests, read_judgements
from app.quality.pairs import agreements, pairs_of
from app.quality.standing import TakenStep, history

DAYS_SHOWN = 14
FEWEST_SHARED = 10  # slates: below, agreement would tell what a single other person said


@dataclass(frozen=True)
class Day:
    """One day of work, in UTC."""

    day: date
    num_rankings: int
    active_s: float


@dataclass(frozen=True)
class OwnStatistics:
    """A labeler's own page."""

    days: list[Day]  # the last DAYS_SHOWN, days without work too
    num_rankings: int
    active_s: float
    agreement: Estimate | None  # None: the project does not show it
    num_shared: int
    steps: list[TakenStep]


def own_statistics(session: Session, project: Project, labeler: Labeler, *, now: datetime) -> OwnStatistics:
    """Everything on the labeler's page. Rankings they took back are left out."""
    stands = (Ranking.labeler_id == labeler.id) & Ranking.retracted_at.is_(None)
    num, active_s = session.execute(select(func.count(), func.sum(Ranking.active_s)).where(stands)).one()
    agreement, num_shared = _agreement(session, project, labeler) if project.shows_agreement else (None, 0)
    return OwnStatistics(
        days=_days(session, labeler, now),
        num_rankings=num,
        active_s=active_s or 0.0,
        agreement=agreement,
        num_shared=num_shared,
        steps=history(session, labeler.id),
    )


def _days(session: Session, labeler: Labeler, now: datetime) -> list[Day]:
    day = cast(func.timezone("UTC", Ranking.submitted_at), Date)
    first = now.date() - timedelta(days=DAYS_SHOWN - 1)
    rows = session.execute(
        select(day, func.count(), func.sum(Ranking.active_s))
        .where(Ranking.labeler_id == labeler.id, Ranking.retracted_at.is_(None), day >= first)
        .group_by(day)
    )
    worked = {each: Day(each, num, active_s or 0.0) for each, num, active_s in rows}
    return [
        worked.get(each, Day(each, 0, 0.0)) for each in (first + timedelta(days=number) for number in range(DAYS_SHOWN))
    ]


def _agreement(session: Session, project: Project, labeler: Labeler) -> tuple[Estimate, int]:
    """With whoever ranked the same slates. Known answers are left out: nobody may learn which slates have one."""
    make_digests(session, project.id, labeler_id=labeler.id)
    read = read_judgements(session, project.id, Filter(labeler_id=labeler.id))
    rows = np.nonzero(read.labeler != REFERENCE)[0]
    pairs = pairs_of(read.slate[rows], read.labeler[rows], read.prompt[rows], read.ranks[rows], read.is_pick[rows])
    is_mine = read.labeler[rows] == labeler.id
    mine = np.nonzero(is_mine[pairs.first] | is_mine[pairs.second])[0]
    num_shared = len(np.unique(read.slate[rows][pairs.first[mine]]))
    if num_shared < FEWEST_SHARED:
        return Estimate(None, reason=f"others have ranked fewer than {FEWEST_SHARED} of your slates so far"), num_shared
    blocks = make_blocks(int(read.prompt.max()) + 1)
    found = agreements(pairs, mine, np.zeros(len(mine), dtype=np.int64), 1, blocks)[0].alike
    return found, num_shared

"""How a trainer holds a row of work: an attempt number, an owner and a deadline, committed before the work starts.

A stage is held so, and an evaluation of a reward model. Whatever a holder reports is taken only while the attempt is
the row's latest: one that was thought dead and comes back changes nothing.
"""

from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import ColumnElement, Select, and_, or_, select

from app.reward_models.models import RewardEvaluation
from app.rounds.models import Stage, StageState

Work = TypeVar("Work", Stage, RewardEvaluation)


def is_free(table: type[Work], now: datetime) -> ColumnElement[bool]:
    """Whether it waits, or its holder went silent."""
    return or_(table.state == StageState.QUEUED, and_(table.state == StageState.RUNNING, table.deadline < now))


def take(work: Work, *, owner: str, duration: timedelta, now: datetime) -> None:
    """Begin the next attempt at it."""
    work.attempt, work.owner, work.deadline = work.attempt + 1, owner, now + duration
    work.state, work.started_at = StageState.RUNNING, work.started_at or now


def held(table: type[Work], id: int, attempt: int, owner: str) -> Select[Work]:
    """The row, to be locked, if this attempt at it is still the latest and under way."""
    is_ours = (table.id == id, table.attempt == attempt, table.owner == owner, table.state == StageState.RUNNING)
    return select(table).where(*is_ours).with_for_update().execution_options(populate_existing=True)


def put_back(work: Work) -> None:
    """Into the queue, for another holder to go on with."""
    work.state, work.owner, work.deadline = StageState.QUEUED, None, None


def end(work: Work, state: StageState, now: datetime) -> None:
    """For good; nobody holds it any more."""
    work.state, work.finished_at = state, now
    work.owner = work.deadline = None

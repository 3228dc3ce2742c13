"""Alarms: raised once, told to whoever asked for it, acknowledged by an admin or cleared, and kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, and_, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, joinedload

from app.db import EVENTS_CHANNEL, notify
from app.notifications.errors import AlarmIsClosed, AlarmNotFound
from app.notifications.kinds import MEANINGS
from app.notifications.models import Alarm, AlarmKind, EventType
from app.notifications.outbox import publish
from app.people.models import Account
from app.people.service import audit
from app.projects.models import Project
from app.rounds.models import Round, Stage

LONGEST_NOTE = 2000  # letters
A_PAGE = 50


def raise_alarm(
    session: Session,
    project_id: int,
    kind: AlarmKind,
    evidence: str,
    *,
    now: datetime,
    round: Round | None = None,
    stage: Stage | None = None,
    numbers: Mapping[str, Any] | None = None,
    series: Mapping[str, Sequence[Sequence[float]]] | None = None,
) -> Alarm | None:
    """Raise the alarm, unless its round (or project) has it already; None then.

    evidence: one sentence with the numbers.  series: metric -> [(step, value), …], what it was seen in.
    """
    row = {
        "project_id": project_id,
        "round_id": round.id if round else None,
        "stage_id": stage.id if stage else None,
        "kind": kind,
        "raised_at": now,
        "evidence": evidence,
        "numbers": dict(numbers or {}),
        "series": {name: [list(point) for point in points] for name, points in (series or {}).items()},
    }
    # The indexes decide: two processes may see the same at once.
    alarm_id = session.scalar(insert(Alarm).values(row).on_conflict_do_nothing().returning(Alarm.id))
    if alarm_id is None:
        return None
    alarm = session.get_one(Alarm, alarm_id)
    _announce(session, alarm)
    publish(
        session,
        project_id,
        EventType.ALARM_RAISED,
        key=f"alarm.raised/{alarm_id}",
        text=f"{'' if round is None else f'Round {round.number}: '}{MEANINGS[kind].title}. {evidence}",
        path=f"/alarms/{alarm_id}",
        data={"alarm": alarm_id, "kind": kind.value, "round": round.number if round else None, "evidence": evidence},
        now=now,
    )
    return alarm


def clear(session: Session, kind: AlarmKind, *, now: datetime, where: ColumnElement[bool]) -> None:
    """The condition that these alarms told of has gone."""
    gone = session.scalars(select(Alarm).where(Alarm.kind == kind, Alarm.cleared_at.is_(None), where)).all()
    for alarm in gone:
        alarm.cleared_at = now
        _announce(session, alarm)
    session.flush()


def clear_of_round(session: Session, round: Round, kind: AlarmKind, *, now: datetime) -> None:
    """The same of one round."""
    clear(session, kind, now=now, where=Alarm.round_id == round.id)


def acknowledge(session: Session, alarm: Alarm, *, account: Account, note: str, now: datetime) -> None:
    """An admin has read it, and perhaps says what comes of it. Raises AlarmIsClosed."""
    changed = session.execute(
        update(Alarm)
        .where(Alarm.id == alarm.id, Alarm.acknowledged_at.is_(None), Alarm.cleared_at.is_(None))
        .values(acknowledged_at=now, acknowledged_by=account.id, note=note.strip()[:LONGEST_NOTE] or None)
        .returning(Alarm.id)
    )
    if changed.one_or_none() is None:
        raise AlarmIsClosed  # two admins at once: the first one's note stays
    session.refresh(alarm)
    _announce(session, alarm)
    audit(
        session,
        account.id,
        "alarm.acknowledge",
        f"alarm:{alarm.id}",
        project_id=alarm.project_id,
        kind=alarm.kind.value,
        note=alarm.note,
    )


def get_alarm(session: Session, project: Project, alarm_id: int) -> Alarm:
    """Raises AlarmNotFound."""
    alarm = session.scalar(select(Alarm).where(Alarm.id == alarm_id, Alarm.project_id == project.id))
    if alarm is None:
        raise AlarmNotFound
    return alarm


IS_OPEN = and_(Alarm.acknowledged_at.is_(None), Alarm.cleared_at.is_(None))


def open_alarms(session: Session, project: Project) -> list[Alarm]:
    """What nobody has read and what has not gone, the newest first."""
    query = select(Alarm).where(Alarm.project_id == project.id, IS_OPEN).options(joinedload(Alarm.round))
    return list(session.scalars(query.order_by(Alarm.id.desc())))


# The project page says these itself, with the button that helps.
TOLD_BY_NEEDS = frozenset({AlarmKind.STAGE_FAILED, AlarmKind.TRAINER_SILENT})


def alarms_beside_needs(session: Session, project: Project) -> list[Alarm]:
    """The open alarms that the project page does not tell otherwise."""
    return [alarm for alarm in open_alarms(session, project) if alarm.kind not in TOLD_BY_NEEDS]


def alarms_of_round(session: Session, round: Round) -> list[Alarm]:
    """All that were raised in the round and told of it still: the open ones first."""
    query = select(Alarm).where(Alarm.round_id == round.id, Alarm.cleared_at.is_(None))
    query = query.options(joinedload(Alarm.acknowledger), joinedload(Alarm.round))
    return list(session.scalars(query.order_by(Alarm.acknowledged_at.is_not(None), Alarm.id)))


class AlarmState(StrEnum):
    """What the list can be narrowed to."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    CLEARED = "cleared"


STATES: dict[AlarmState, ColumnElement[bool]] = {
    AlarmState.OPEN: IS_OPEN,
    AlarmState.ACKNOWLEDGED: and_(Alarm.acknowledged_at.is_not(None), Alarm.cleared_at.is_(None)),
    AlarmState.CLEARED: Alarm.cleared_at.is_not(None),
}


@dataclass(frozen=True)
class AlarmFilter:
    """Which alarms of a project; None: any."""

    state: AlarmState | None = None
    kind: AlarmKind | None = None
    round: int | None = None
    before: int | None = None  # alarm id: the page after this one


def list_alarms(session: Session, project: Project, wanted: AlarmFilter) -> tuple[list[Alarm], bool]:
    """A page of the project's alarms, the newest first, and whether there are more."""
    query = select(Alarm).where(Alarm.project_id == project.id)
    query = query.options(joinedload(Alarm.round), joinedload(Alarm.acknowledger))
    if wanted.state is not None:
        query = query.where(STATES[wanted.state])
    if wanted.kind is not None:
        query = query.where(Alarm.kind == wanted.kind)
    if wanted.round is not None:
        query = query.where(Alarm.round.has(Round.number == wanted.round))
    if wanted.before is not None:
        query = query.where(Alarm.id < wanted.before)
    alarms = list(session.scalars(query.order_by(Alarm.id.desc()).limit(A_PAGE + 1)))
    return alarms[:A_PAGE], len(alarms) > A_PAGE


def num_alarms(session: Session, project: Project) -> int:
    """Ever raised."""
    return session.scalars(select(func.count()).select_from(Alarm).where(Alarm.project_id == project.id)).one()


def _announce(session: Session, alarm: Alarm) -> None:
    notify(session, EVENTS_CHANNEL, f"project:{alarm.project_id}")
    if alarm.round_id is not None:
        notify(session, EVENTS_CHANNEL, f"round:{alarm.round_id}")

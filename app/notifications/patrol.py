"""The patrol: conditions that no event tells of, because something does not happen. Raises and clears their alarms."""

from datetime import datetime, timedelta

from sqlalchemy import delete, exists, select
from sqlalchemy.orm import Session

from app.db import SessionFactory, clock
from app.notifications.alarms import clear, raise_alarm
from app.notifications.models import Alarm, AlarmKind, Notification
from app.projects.models import Project
from app.projects.overview import SILENT_AFTER, count_slates
from app.prompts.models import Prompt, Split
from app.rounds.models import Heartbeat, Round, RoundState

EMPTY_FOR = timedelta(minutes=10)  # a queue that is refilled is empty for a moment
KEPT_FOR = timedelta(days=30)  # notifications and what became of them


class Patrol:
    """Walks every half minute in each web process. What two of them see is raised once: the tables say so."""

    def __init__(self) -> None:
        self._empty_since: dict[int, datetime] = {}  # project id -> when its queue was first seen empty

    def walk(self) -> None:
        with SessionFactory.begin() as session:
            now = clock(session)
            look_for_trainers(session, now)
            look_for_samplers(session, now)
            self.look_at_queues(session, now)
            session.execute(delete(Notification).where(Notification.at < now - KEPT_FOR))

    def look_at_queues(self, session: Session, now: datetime) -> None:
        """Raise where no slate has been ready for EMPTY_FOR, though there are prompts and nobody paused the project."""
        empty = []
        for project in working_projects(session):
            seen = count_slates(session, project, now)
            if "rank" not in project.task_weights or seen.target == 0 or seen.ready > 0:
                continue
            empty.append(project.id)
            since = self._empty_since.setdefault(project.id, now)
            if now - since >= EMPTY_FOR:
                raise_alarm(
                    session,
                    project.id,
                    AlarmKind.QUEUE_EMPTY,
                    f"No slate has been ready since {clock_time(since)}; {seen.sampling} are being sampled and"
                    f" {seen.held} are with labelers.",
                    now=now,
                    numbers={"sampling": seen.sampling, "held": seen.held},
                )
        # Nothing is missed of a project that was paused or has no prompts left, and its ten minutes begin anew.
        self._empty_since = {each: self._empty_since[each] for each in empty}
        clear(session, AlarmKind.QUEUE_EMPTY, now=now, where=Alarm.project_id.not_in(empty))


def look_for_trainers(session: Session, now: datetime) -> None:
    """Raise on each round that has waited for a trainer for SILENT_AFTER while none was heard of."""
    last_beat = _last_beat(session, "trainer")
    is_silent = last_beat is None or now - last_beat.beat_at > SILENT_AFTER
    waiting = session.scalars(
        select(Round).where(
            Round.state.in_((RoundState.QUEUED, RoundState.RUNNING)), Round.created_at < now - SILENT_AFTER
        )
    ).all()
    heard = f"the last one was heard of at {clock_time(last_beat.beat_at)}" if last_beat else "none has been heard of"
    for round in waiting if is_silent else ():
        raise_alarm(
            session,
            round.project_id,
            AlarmKind.TRAINER_SILENT,
            f"Round {round.number} is {round.state.value} and no trainer is at work; {heard}.",
            now=now,
            round=round,
        )
    still = [round.id for round in waiting] if is_silent else []
    clear(session, AlarmKind.TRAINER_SILENT, now=now, where=Alarm.round_id.not_in(still))


def look_for_samplers(session: Session, now: datetime) -> None:
    """Raise where every sampler went silent without a word. One that ended in good order is missed by nobody."""
    last_beat = _last_beat(session, "sampler")
    if last_beat is None or now - last_beat.beat_at <= SILENT_AFTER:
        clear(session, AlarmKind.SAMPLER_SILENT, now=now, where=Alarm.id.is_not(None))
        return
    working = working_projects(session)
    for project in working:
        raise_alarm(
            session,
            project.id,
            AlarmKind.SAMPLER_SILENT,
            # Not what it was doing: that may name another project, and this one's people and receivers read it.
            f"{last_beat.owner} was last heard of at {clock_time(last_beat.beat_at)}.",
            now=now,
        )
    ids = [project.id for project in working]
    clear(session, AlarmKind.SAMPLER_SILENT, now=now, where=Alarm.project_id.not_in(ids))


def working_projects(session: Session) -> list[Project]:
    """Those that are not paused and have prompts to sample from."""
    has_prompts = exists().where(
        Prompt.project_id == Project.id,
        Prompt.split.in_((Split.TRAIN, Split.VALIDATION)),
        Prompt.set_aside_at.is_(None),
    )
    return list(session.scalars(select(Project).where(Project.paused_at.is_(None), has_prompts)))


def clock_time(moment: datetime) -> str:
    return moment.strftime("%d %b, %H:%M UTC")


def _last_beat(session: Session, process: str) -> Heartbeat | None:
    return session.scalar(
        select(Heartbeat).where(Heartbeat.process == process).order_by(Heartbeat.beat_at.desc()).limit(1)
    )

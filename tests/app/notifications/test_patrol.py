"""Conditions that no event tells of raise an alarm while they hold."""

from datetime import timedelta

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.db import clock
from app.notifications.models import Alarm, AlarmKind, Notification
from app.notifications.patrol import EMPTY_FOR, Patrol, look_for_samplers, look_for_trainers
from app.notifications.webhooks import add_webhook
from app.projects.models import Project
from app.prompts.models import Prompt, Split
from app.rounds.heart import beat, stop_beating
from app.rounds.service import cancel_round
from tests.app.loop import make_account, make_prompts, make_slate
from tests.app.rounds.stages import MINUTE, make_loop, start


@pytest.fixture
def loop(session: Session) -> Project:
    return make_loop(session)


def told(session: Session) -> list[tuple[AlarmKind, bool]]:
    """Each alarm, and whether it is open."""
    session.flush()
    return [(alarm.kind, alarm.is_open) for alarm in session.scalars(select(Alarm).order_by(Alarm.id))]


def test_a_round_without_a_trainer_raises_an_alarm_until_one_is_heard_of(session: Session, loop: Project) -> None:
    start(session, loop)
    now = clock(session)
    look_for_trainers(session, now + MINUTE)
    assert told(session) == []  # one may be starting
    for later in (3, 4):
        look_for_trainers(session, now + later * MINUTE)
        assert told(session) == [(AlarmKind.TRAINER_SILENT, True)]
    beat(session, "trainer@here:1", "trainer", "waiting", now=now + 5 * MINUTE)
    look_for_trainers(session, now + 5 * MINUTE)
    assert told(session) == [(AlarmKind.TRAINER_SILENT, False)]
    look_for_trainers(session, now + 8 * MINUTE)
    assert told(session) == [(AlarmKind.TRAINER_SILENT, False), (AlarmKind.TRAINER_SILENT, True)]
    assert "the last one was heard of at" in session.scalars(select(Alarm.evidence).order_by(Alarm.id.desc())).all()[0]


def test_a_round_that_is_over_misses_no_trainer(session: Session, loop: Project) -> None:
    round = start(session, loop)
    now = clock(session)
    look_for_trainers(session, now + 3 * MINUTE)
    cancel_round(session, round, account=None, now=now)
    look_for_trainers(session, now + 4 * MINUTE)
    assert (AlarmKind.TRAINER_SILENT, False) in told(session)


def test_a_sampler_that_goes_silent_is_missed_and_one_that_ended_is_not(session: Session, loop: Project) -> None:
    now = clock(session)
    look_for_samplers(session, now)
    assert told(session) == []  # none was ever started
    beat(session, "sampler@here:1", "sampler", "sampling 8 slates", now=now)
    look_for_samplers(session, now + MINUTE)
    assert told(session) == []
    look_for_samplers(session, now + 3 * MINUTE)
    assert told(session) == [(AlarmKind.SAMPLER_SILENT, True)]
    stop_beating(session, "sampler@here:1")
    look_for_samplers(session, now + 4 * MINUTE)
    assert told(session) == [(AlarmKind.SAMPLER_SILENT, False)]


def test_a_paused_project_misses_nobody(session: Session, loop: Project) -> None:
    now = clock(session)
    loop.paused_at = now
    beat(session, "sampler@here:1", "sampler", "sampling", now=now)
    look_for_samplers(session, now + 3 * MINUTE)
    Patrol().look_at_queues(session, now)
    assert told(session) == []


def test_a_queue_that_stays_empty_raises_an_alarm_until_a_slate_is_ready(session: Session, loop: Project) -> None:
    patrol, now = Patrol(), clock(session)
    patrol.look_at_queues(session, now)
    patrol.look_at_queues(session, now + EMPTY_FOR - timedelta(seconds=1))
    assert told(session) == []
    patrol.look_at_queues(session, now + EMPTY_FOR)
    assert told(session) == [(AlarmKind.QUEUE_EMPTY, True)]
    make_slate(session, make_prompts(session, loop, Split.TRAIN)[0])
    patrol.look_at_queues(session, now + EMPTY_FOR + MINUTE)
    assert told(session) == [(AlarmKind.QUEUE_EMPTY, False)]
    session.commit()


def test_the_minutes_of_an_empty_queue_begin_anew_after_a_pause(session: Session, loop: Project) -> None:
    patrol, now = Patrol(), clock(session)
    patrol.look_at_queues(session, now)
    loop.paused_at = now + MINUTE
    patrol.look_at_queues(session, now + MINUTE)
    loop.paused_at = None
    patrol.look_at_queues(session, now + 2 * EMPTY_FOR)
    patrol.look_at_queues(session, now + 3 * EMPTY_FOR - MINUTE)
    assert told(session) == []
    patrol.look_at_queues(session, now + 3 * EMPTY_FOR)
    assert told(session) == [(AlarmKind.QUEUE_EMPTY, True)]


@pytest.mark.parametrize("why", ["paused", "without prompts"])
def test_a_project_that_wants_no_slates_any_more_has_no_empty_queue(session: Session, loop: Project, why: str) -> None:
    patrol, now = Patrol(), clock(session)
    patrol.look_at_queues(session, now)
    patrol.look_at_queues(session, now + EMPTY_FOR)
    assert told(session) == [(AlarmKind.QUEUE_EMPTY, True)]
    if why == "paused":
        loop.paused_at = now
    else:
        session.execute(update(Prompt).values(set_aside_at=now, set_aside_reason="used up"))
    patrol.look_at_queues(session, now + EMPTY_FOR + MINUTE)
    assert told(session) == [(AlarmKind.QUEUE_EMPTY, False)]


def test_an_alarm_does_not_say_what_the_sampler_did_elsewhere(session: Session, loop: Project) -> None:
    now = clock(session)
    beat(session, "sampler@here:1", "sampler", "secret-project: /srv/models/a is missing", now=now)
    add_webhook(
        session, loop, url="https://x.example.org/", events=["alarm.raised"], account=make_account(session), now=now
    )
    look_for_samplers(session, now + 3 * MINUTE)
    alarm, notification = session.scalars(select(Alarm)).one(), session.scalars(select(Notification)).one()
    assert alarm.evidence.startswith("sampler@here:1 was last heard of at ")
    for said in (alarm.evidence, str(alarm.numbers), notification.text, str(notification.data)):
        assert "secret-project" not in said


def test_a_walk_looks_at_everything_and_commits(session: Session, loop: Project) -> None:
    beat(session, "sampler@here:1", "sampler", "sampling", now=clock(session) - 3 * MINUTE)
    session.commit()
    Patrol().walk()
    assert told(session) == [(AlarmKind.SAMPLER_SILENT, True)]

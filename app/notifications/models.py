"""Alarms, and what is sent to other systems: webhooks, the outbox of notifications, their deliveries."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.db import Base, one_of
from app.people.models import Account
from app.projects.models import Project
from app.rounds.models import Round, Stage


class AlarmKind(StrEnum):
    """What is wrong. What each means and asks for: app.notifications.kinds."""

    HELD_OUT_FALLS = "held_out_falls"
    LENGTH_DRIFTS = "length_drifts"
    EOS_FALLS = "eos_falls"
    DISAGREEMENT_GROWS = "disagreement_grows"
    PEOPLE_DISAGREE = "people_disagree"
    STAGE_FAILED = "stage_failed"
    TRAINER_SILENT = "trainer_silent"
    SAMPLER_SILENT = "sampler_silent"
    QUEUE_EMPTY = "queue_empty"
    WEBHOOK_OFF = "webhook_off"


class Alarm(Base):
    """Raised once for its round (or project) and kind; never deleted.

    Open until an admin acknowledges it or, where it tells of a condition, until the condition has gone.
    """

    __tablename__ = "alarm"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    round_id: Mapped[int | None] = mapped_column(ForeignKey("round.id"))
    stage_id: Mapped[int | None] = mapped_column(ForeignKey("stage.id"))
    kind: Mapped[AlarmKind] = mapped_column(one_of(AlarmKind, "kind"))
    raised_at: Mapped[datetime]
    evidence: Mapped[str]  # one sentence, with the numbers
    numbers: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    series: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))  # metric -> [[step, value], …] as seen
    acknowledged_at: Mapped[datetime | None]
    acknowledged_by: Mapped[int | None] = mapped_column(ForeignKey("account.id"))
    note: Mapped[str | None]  # what the admin made of it
    cleared_at: Mapped[datetime | None]  # the condition has gone

    project: Mapped[Project] = relationship()
    round: Mapped[Round | None] = relationship()
    stage: Mapped[Stage | None] = relationship()
    acknowledger: Mapped[Account | None] = relationship()

    __table_args__ = (
        Index("uq_alarm_of_round", "round_id", "kind", unique=True, postgresql_where=text("cleared_at IS NULL")),
        Index(
            "uq_alarm_of_project",
            "project_id",
            "kind",
            unique=True,
            postgresql_where=text("round_id IS NULL AND cleared_at IS NULL"),
        ),
        Index("ix_alarm_project", "project_id", "id"),
        CheckConstraint("(acknowledged_at IS NULL) = (acknowledged_by IS NULL)", name="acknowledged_by_someone"),
    )

    @property
    def is_open(self) -> bool:
        return self.acknowledged_at is None and self.cleared_at is None


class EventType(StrEnum):
    """What other systems may be told of."""

    ROUND_FINISHED = "round.finished"
    NEEDS_LABELS = "round.needs_labels"
    ALARM_RAISED = "alarm.raised"
    TEST = "webhook.test"  # not chosen: a button sends it


CHOOSABLE_EVENTS = (EventType.ROUND_FINISHED, EventType.NEEDS_LABELS, EventType.ALARM_RAISED)


class Webhook(Base):
    """An address that a project's notifications are sent to."""

    __tablename__ = "webhook"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    url: Mapped[str]
    events: Mapped[list[str]] = mapped_column(JSONB)
    secret: Mapped[bytes] = mapped_column(LargeBinary)  # as it is: each attempt is signed anew
    old_secret: Mapped[bytes | None] = mapped_column(LargeBinary)  # signs beside the new one for a day
    old_secret_until: Mapped[datetime | None]
    created_by: Mapped[int] = mapped_column(ForeignKey("account.id"))
    created_at: Mapped[datetime]
    num_failures: Mapped[int] = mapped_column(server_default=text("0"))  # in a row
    failing_since: Mapped[datetime | None]
    rests_until: Mapped[datetime | None]  # after a failure, its other deliveries wait too
    disabled_at: Mapped[datetime | None]
    disabled_because: Mapped[str | None]

    __table_args__ = (
        CheckConstraint("(disabled_at IS NULL) = (disabled_because IS NULL)", name="disabled_says_why"),
        Index("ix_webhook_project", "project_id"),
    )


class Notification(Base):
    """Something that happened, as other systems are told of it. Written in the transaction of what happened."""

    __tablename__ = "notification"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    type: Mapped[EventType] = mapped_column(one_of(EventType, "type"))
    key: Mapped[str] = mapped_column(unique=True)  # what happened once is told once
    at: Mapped[datetime]
    text: Mapped[str]  # for people
    path: Mapped[str]  # of the page that shows it
    data: Mapped[dict[str, Any]]

    project: Mapped[Project] = relationship()


class DeliveryState(StrEnum):
    """waiting → delivered | failed; back to waiting when an admin sends it again."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"


class Delivery(Base):
    """One notification on its way to one webhook. Claimed for each attempt; a claim that ran out is free."""

    __tablename__ = "delivery"

    id: Mapped[int] = mapped_column(primary_key=True)
    notification_id: Mapped[UUID] = mapped_column(ForeignKey("notification.id", ondelete="CASCADE"))
    webhook_id: Mapped[int] = mapped_column(ForeignKey("webhook.id", ondelete="CASCADE"))
    state: Mapped[DeliveryState] = mapped_column(one_of(DeliveryState, "state"), server_default="waiting")
    num_attempts: Mapped[int] = mapped_column(server_default=text("0"))
    next_attempt_at: Mapped[datetime] = mapped_column(server_default=func.now())
    claimed_until: Mapped[datetime | None]
    last_attempt_at: Mapped[datetime | None]
    last_status: Mapped[int | None]  # of the answer
    last_answer: Mapped[str | None]  # its first letters
    last_error: Mapped[str | None]  # why there was none
    delivered_at: Mapped[datetime | None]

    notification: Mapped[Notification] = relationship()
    webhook: Mapped[Webhook] = relationship()

    __table_args__ = (
        UniqueConstraint("notification_id", "webhook_id"),
        Index("ix_delivery_waiting", "next_attempt_at", postgresql_where=text("state = 'waiting'")),
        Index("ix_delivery_webhook", "webhook_id", "id"),
    )

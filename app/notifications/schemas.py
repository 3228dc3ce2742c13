"""What the JSON API says and takes about alarms and webhooks."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from app.notifications.alarms import LONGEST_NOTE
from app.notifications.kinds import MEANINGS
from app.notifications.models import CHOOSABLE_EVENTS, Alarm, AlarmKind, Delivery, DeliveryState, EventType


class AlarmOut(BaseModel):
    """An alarm with its evidence."""

    id: int
    kind: AlarmKind
    title: str
    round: int | None
    raised_at: datetime
    evidence: str
    numbers: dict[str, Any]
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    note: str | None
    cleared_at: datetime | None


class AlarmsOut(BaseModel):
    """A page of alarms. next_before: the `before` of the next page; null on the last."""

    alarms: list[AlarmOut]
    next_before: int | None


class Acknowledgement(BaseModel):
    """What an admin makes of an alarm."""

    note: str = Field(default="", max_length=LONGEST_NOTE)


class WebhookIn(BaseModel):
    """Where to send what."""

    url: str
    events: list[EventType] = Field(default=list(CHOOSABLE_EVENTS))


class WebhookOut(BaseModel):
    """A webhook. Its secret is in the answer that made it, and never again."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    url: str
    events: list[str]
    created_at: datetime
    failing_since: datetime | None
    disabled_at: datetime | None
    disabled_because: str | None


class NewWebhookOut(WebhookOut):
    """The same, with the secret."""

    secret: str


class SecretOut(BaseModel):
    """A new secret; the old one signs beside it until `old_until`."""

    secret: str
    old_until: datetime


class DeliveryOut(BaseModel):
    """How far a notification has come on its way to a webhook."""

    id: int
    message_id: UUID
    type: EventType
    state: DeliveryState
    num_attempts: int
    next_attempt_at: datetime | None
    last_status: int | None
    last_error: str | None
    delivered_at: datetime | None


def alarm_out(alarm: Alarm) -> AlarmOut:
    return AlarmOut(
        id=alarm.id,
        kind=alarm.kind,
        title=MEANINGS[alarm.kind].title,
        round=alarm.round.number if alarm.round else None,
        raised_at=alarm.raised_at,
        evidence=alarm.evidence,
        numbers=alarm.numbers,
        acknowledged_at=alarm.acknowledged_at,
        acknowledged_by=alarm.acknowledger.name if alarm.acknowledger else None,
        note=alarm.note,
        cleared_at=alarm.cleared_at,
    )


def delivery_out(delivery: Delivery) -> DeliveryOut:
    return DeliveryOut(
        id=delivery.id,
        message_id=delivery.notification_id,
        type=delivery.notification.type,
        state=delivery.state,
        num_attempts=delivery.num_attempts,
        next_attempt_at=delivery.next_attempt_at if delivery.state == DeliveryState.WAITING else None,
        last_status=delivery.last_status,
        last_error=delivery.last_error,
        delivered_at=delivery.delivered_at,
    )

"""Webhooks: where a project's notifications go. Added, changed, tested, switched off and on, each act audited."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import uuid4

from sqlalchemy import func, select
from sqlalchemy.orm import Session, joinedload

from app.notifications.alarms import clear
from app.notifications.errors import BadWebhook, DeliveryNotFound, WebhookIsOff, WebhookNotFound
from app.notifications.models import (
    CHOOSABLE_EVENTS,
    Alarm,
    AlarmKind,
    Delivery,
    DeliveryState,
    EventType,
    Webhook,
)
from app.notifications.outbox import publish
from app.notifications.sending import check_url, host_of
from app.notifications.signing import new_secret
from app.people.models import Account
from app.people.service import audit
from app.projects.models import Project

MOST_WEBHOOKS = 20  # of a project: each event is sent to all of them
OLD_SECRET_SIGNS_FOR = timedelta(days=1)
BY_HAND = "an admin switched it off"
DELIVERIES_SHOWN = 50


def add_webhook(
    session: Session, project: Project, *, url: str, events: Sequence[str], account: Account, now: datetime
) -> Webhook:
    """A new webhook with a secret of its own. Raises BadWebhook."""
    session.get_one(Project, project.id, with_for_update={"key_share": True})
    if len(webhooks_of(session, project)) >= MOST_WEBHOOKS:
        raise BadWebhook("url", f"A project has at most {MOST_WEBHOOKS} webhooks; remove one first.")
    webhook = Webhook(
        project_id=project.id,
        url=check_url(url),
        events=_chosen(events),
        secret=new_secret(),
        created_by=account.id,
        created_at=now,
    )
    session.add(webhook)
    session.flush()
    _record(session, webhook, account, "webhook.add", events=webhook.events)
    return webhook


def change_webhook(session: Session, webhook: Webhook, *, url: str, events: Sequence[str], account: Account) -> None:
    """Another address or other events; what waits goes to the new address. Raises BadWebhook."""
    webhook.url, webhook.events = check_url(url), _chosen(events)
    if webhook.disabled_at is None:
        _forget_failures(webhook)
    session.flush()
    _record(session, webhook, account, "webhook.change", events=webhook.events)


def rotate_secret(session: Session, webhook: Webhook, *, account: Account, now: datetime) -> None:
    """A new secret. The old one signs beside it for a day, so that no notification is refused meanwhile."""
    webhook.old_secret, webhook.old_secret_until = webhook.secret, now + OLD_SECRET_SIGNS_FOR
    webhook.secret = new_secret()
    session.flush()
    _record(session, webhook, account, "webhook.rotate_secret")


def switch_off(session: Session, webhook: Webhook, *, account: Account, now: datetime) -> None:
    """Send nothing more until it is switched on. What waits is kept, and goes out then."""
    if webhook.disabled_at is not None:
        return
    webhook.disabled_at, webhook.disabled_because = now, BY_HAND
    _forget_failures(webhook)
    session.flush()
    _record(session, webhook, account, "webhook.switch_off")


def switch_on(session: Session, webhook: Webhook, *, account: Account, now: datetime) -> None:
    """Send again, from the next notification on."""
    if webhook.disabled_at is None:
        return
    webhook.disabled_at = webhook.disabled_because = None
    _forget_failures(webhook)
    session.flush()
    _clear_alarm(session, webhook.project_id, now)
    _record(session, webhook, account, "webhook.switch_on")


def remove_webhook(session: Session, webhook: Webhook, *, account: Account, now: datetime) -> None:
    """Forget the webhook and its deliveries."""
    _record(session, webhook, account, "webhook.remove")
    session.delete(webhook)
    session.flush()
    _clear_alarm(session, webhook.project_id, now)


def send_test(session: Session, webhook: Webhook, *, account: Account, now: datetime) -> None:
    """Put a notification that says nothing but that it arrives before the courier. Raises WebhookIsOff."""
    if webhook.disabled_at is not None:
        raise WebhookIsOff
    webhook.rests_until = None
    publish(
        session,
        webhook.project_id,
        EventType.TEST,
        key=f"webhook.test/{uuid4()}",
        text="A test: this webhook works.",
        path="",
        data={},
        now=now,
        only=webhook,
    )
    _record(session, webhook, account, "webhook.test")


def send_again(session: Session, webhook: Webhook, delivery_id: int, *, account: Account, now: datetime) -> None:
    """Send a delivery once more, with the id it had: a receiver that has seen it may drop it.

    Raises DeliveryNotFound, WebhookIsOff.
    """
    delivery = session.get(Delivery, delivery_id, with_for_update=True)
    if delivery is None or delivery.webhook_id != webhook.id:
        raise DeliveryNotFound
    if webhook.disabled_at is not None:
        raise WebhookIsOff
    webhook.rests_until = None
    if delivery.state != DeliveryState.WAITING:
        delivery.num_attempts = 0  # its pauses begin anew
    delivery.state, delivery.next_attempt_at, delivery.delivered_at = DeliveryState.WAITING, now, None
    session.flush()
    _record(session, webhook, account, "webhook.send_again", delivery=delivery.id)


def webhooks_of(session: Session, project: Project) -> list[Webhook]:
    return list(session.scalars(select(Webhook).where(Webhook.project_id == project.id).order_by(Webhook.id)))


def get_webhook(session: Session, project: Project, webhook_id: int) -> Webhook:
    """Raises WebhookNotFound."""
    webhook = session.scalar(select(Webhook).where(Webhook.id == webhook_id, Webhook.project_id == project.id))
    if webhook is None:
        raise WebhookNotFound
    return webhook


def deliveries_of(session: Session, webhook: Webhook) -> list[Delivery]:
    """The last deliveries, the newest first."""
    query = select(Delivery).where(Delivery.webhook_id == webhook.id).options(joinedload(Delivery.notification))
    return list(session.scalars(query.order_by(Delivery.id.desc()).limit(DELIVERIES_SHOWN)))


def last_deliveries(session: Session, project: Project) -> dict[int, Delivery]:
    """webhook id -> its newest delivery that was tried."""
    newest = (
        select(func.max(Delivery.id))
        .join(Webhook)
        .where(Webhook.project_id == project.id, Delivery.num_attempts > 0)
        .group_by(Delivery.webhook_id)
    )
    return {
        delivery.webhook_id: delivery for delivery in session.scalars(select(Delivery).where(Delivery.id.in_(newest)))
    }


def _chosen(events: Sequence[str]) -> list[str]:
    """Raises BadWebhook."""
    chosen = [event.value for event in CHOOSABLE_EVENTS if event.value in events]
    if not chosen or set(events) - set(chosen):
        raise BadWebhook("events", f"Choose at least one event of {', '.join(CHOOSABLE_EVENTS)}.")
    return chosen


def _forget_failures(webhook: Webhook) -> None:
    webhook.num_failures, webhook.failing_since, webhook.rests_until = 0, None, None


def _clear_alarm(session: Session, project_id: int, now: datetime) -> None:
    """Once none of the project's webhooks is off because of its failures."""
    still_off = select(Webhook.id).where(Webhook.project_id == project_id, Webhook.failing_since.is_not(None))
    if session.scalar(still_off.where(Webhook.disabled_at.is_not(None)).limit(1)) is None:
        clear(session, AlarmKind.WEBHOOK_OFF, now=now, where=Alarm.project_id == project_id)


def _record(session: Session, webhook: Webhook, account: Account, action: str, **detail: object) -> None:
    subject, host = f"webhook:{webhook.id}", host_of(webhook.url)  # the path may hold a secret of the receiver's
    audit(session, account.id, action, subject, project_id=webhook.project_id, host=host, **detail)

"""The courier: sends what lies in the outbox, at least once, with pauses that grow.

It runs in a thread of each web process, the one kind that every installation always has. Deliveries are claimed with
SKIP LOCKED, so several couriers send each one once; the claim is committed before anything is sent, and no transaction
is open meanwhile. One that is killed between sending and writing it down leaves a claim that runs out: the
notification is sent again with the same id.
"""

import asyncio
import json
import logging
import random
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import or_, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.db import EVENTS_CHANNEL, SessionFactory, clock, notify
from app.notifications.alarms import clear, raise_alarm
from app.notifications.models import Alarm, AlarmKind, Delivery, DeliveryState, Notification, Webhook
from app.notifications.patrol import Patrol
from app.notifications.sending import TIMEOUT_S, Answer, Network, NotSent, host_of, post
from app.notifications.signing import message_id, signed_headers
from app.privacy.removal import remove_doomed
from app.privacy.result_redaction import redact_results
from app.settings import Settings, networks_of

log = logging.getLogger(__name__)

POLL_S = 2.0
PATROL_S = 30.0
RETRY_S = 5.0  # after the database went away
AT_ONCE = 8  # more would be a burst to a small receiver
CLAIM_DURATION = timedelta(seconds=3 * TIMEOUT_S)

_MINUTE, _HOUR = timedelta(minutes=1), timedelta(hours=1)
# After each failed attempt; after the last the delivery has failed. The schedule that Standard Webhooks proposes.
PAUSES = (
    timedelta(seconds=5),
    5 * _MINUTE,
    30 * _MINUTE,
    *(2 * _HOUR, 5 * _HOUR, 10 * _HOUR, 14 * _HOUR, 20 * _HOUR, 24 * _HOUR),
)
JITTER = 0.1  # of a pause, so that a receiver that comes back does not get everything at the same moment
LONGEST_REST = 5 * _MINUTE  # of a webhook's other deliveries after a failure: it may have been that one alone
FAILS_FOR = timedelta(days=3)  # without a success: it is switched off
GONE = 410  # the receiver wants no more


@dataclass(frozen=True)
class Letter:
    """One attempt at one delivery: everything that sending needs."""

    delivery_id: int
    attempt: int
    url: str
    headers: dict[str, str]
    body: bytes


def claim(session: Session, address: str, *, now: datetime) -> list[Letter]:
    """Claim what is due, at most AT_ONCE. The caller commits before it sends.

    address: what people type into a browser; links begin with it.
    """
    due = session.scalars(
        select(Delivery)
        .join(Webhook)
        .where(
            Delivery.state == DeliveryState.WAITING,
            Delivery.next_attempt_at <= now,
            or_(Delivery.claimed_until.is_(None), Delivery.claimed_until <= now),
            Webhook.disabled_at.is_(None),
            or_(Webhook.rests_until.is_(None), Webhook.rests_until <= now),
        )
        .order_by(Delivery.next_attempt_at, Delivery.id)
        .limit(AT_ONCE)
        .with_for_update(of=Delivery, skip_locked=True)
    ).all()
    for delivery in due:
        delivery.num_attempts += 1
        delivery.last_attempt_at, delivery.claimed_until = now, now + CLAIM_DURATION
    session.flush()
    return [_letter(delivery, address, now) for delivery in due]


def _letter(delivery: Delivery, address: str, now: datetime) -> Letter:
    webhook = delivery.webhook
    secrets = [webhook.secret]
    if webhook.old_secret is not None and webhook.old_secret_until is not None and webhook.old_secret_until > now:
        secrets.append(webhook.old_secret)
    body = payload(delivery.notification, address)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "Podium-Webhooks/1",
        **signed_headers(secrets, message_id(delivery.notification_id), int(now.timestamp()), body),
    }
    return Letter(delivery.id, delivery.num_attempts, webhook.url, headers, body)


def payload(notification: Notification, address: str) -> bytes:
    """What is sent: JSON in UTF-8. `text` is what chat programs show."""
    link = address + notification.path
    content = {
        "id": message_id(notification.id),
        "type": notification.type.value,
        "timestamp": notification.at.isoformat(timespec="seconds"),
        "project": {"slug": notification.project.slug, "name": notification.project.name},
        "link": link,
        "text": f"{notification.project.name}: {notification.text} {link}",
        "data": notification.data,
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def settle(session: Session, letter: Letter, outcome: Answer | NotSent, *, now: datetime) -> None:
    """Write down what became of an attempt. What was delivered is delivered, even if the claim had run out."""
    delivery = session.get(Delivery, letter.delivery_id, with_for_update=True, populate_existing=True)
    if delivery is None or delivery.state != DeliveryState.WAITING:
        return
    is_delivered = isinstance(outcome, Answer) and outcome.is_success
    if delivery.num_attempts != letter.attempt and not is_delivered:
        return  # another attempt is under way, and says the rest
    # Key share: an alarm put before this webhook meanwhile does not wait for us, so no two of us wait for each other.
    locked = {"key_share": True}
    webhook = session.get_one(Webhook, delivery.webhook_id, with_for_update=locked, populate_existing=True)
    delivery.claimed_until = None
    delivery.last_status, delivery.last_answer, delivery.last_error = None, None, None
    if isinstance(outcome, Answer):
        delivery.last_status, delivery.last_answer = outcome.status, outcome.text
    else:
        delivery.last_error = str(outcome)
    if is_delivered:
        delivery.state, delivery.delivered_at = DeliveryState.DELIVERED, now
        webhook.num_failures, webhook.failing_since, webhook.rests_until = 0, None, None
    else:
        _failed(session, webhook, delivery, now)
    session.flush()
    notify(session, EVENTS_CHANNEL, f"project:{webhook.project_id}")


def _failed(session: Session, webhook: Webhook, delivery: Delivery, now: datetime) -> None:
    webhook.num_failures += 1
    webhook.failing_since = webhook.failing_since or now
    webhook.rests_until = now + min(LONGEST_REST, PAUSES[min(webhook.num_failures, len(PAUSES)) - 1])
    if delivery.num_attempts > len(PAUSES):
        delivery.state = DeliveryState.FAILED
    else:
        pause = PAUSES[delivery.num_attempts - 1]
        delivery.next_attempt_at = now + pause * (1 + random.uniform(0, JITTER))  # noqa: S311 - no secret
    if delivery.last_status == GONE:
        _switch_off(session, webhook, "the receiver answered 410: it wants no more", now)
    elif now - webhook.failing_since >= FAILS_FOR:
        _switch_off(session, webhook, f"nothing was accepted for {FAILS_FOR.days} days", now)


def _switch_off(session: Session, webhook: Webhook, because: str, now: datetime) -> None:
    """Stop sending to it. What waits has failed: days later it would be news no more; an admin may send it again."""
    webhook.disabled_at, webhook.disabled_because = now, because
    session.flush()
    session.execute(
        update(Delivery)
        .where(Delivery.webhook_id == webhook.id, Delivery.state == DeliveryState.WAITING)
        .values(state=DeliveryState.FAILED, claimed_until=None)
        .execution_options(synchronize_session="fetch")
    )
    log.warning("webhook=%s switched off: %s", webhook.id, because)
    _raise_anew(session, webhook, because, now)


def _raise_anew(session: Session, webhook: Webhook, because: str, now: datetime) -> None:
    """An alarm that names everything that is off takes the place of the last: each switching off is told of."""
    others = (
        select(Webhook.url)
        .where(Webhook.project_id == webhook.project_id, Webhook.id != webhook.id)
        .where(Webhook.disabled_at.is_not(None), Webhook.failing_since.is_not(None))  # an admin's own choice is no news
        .order_by(Webhook.disabled_at, Webhook.id)
    )
    raised = None
    while raised is None:  # None: another courier has just switched one off, and its alarm does not name ours
        clear(session, AlarmKind.WEBHOOK_OFF, now=now, where=Alarm.project_id == webhook.project_id)
        hosts = [host_of(url) for url in session.scalars(others)]
        also = f" Also off: {', '.join(hosts)}." if hosts else ""
        raised = raise_alarm(
            session,
            webhook.project_id,
            AlarmKind.WEBHOOK_OFF,
            f"The webhook to {host_of(webhook.url)} was switched off: {because}.{also}",
            now=now,
            numbers={"webhook": webhook.id, "failures": webhook.num_failures},
        )


class Courier:
    """The thread, with an event loop of its own: a slow receiver delays no page, and sending is many at once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.address = settings.address
        self.networks: Sequence[Network] = networks_of(settings.webhook_networks)
        self.refused: Sequence[Network] = networks_of(settings.webhook_refused)
        self.patrol = Patrol()
        self._is_ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._is_ready.wait()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """End now. What is being sent is sent again, by whoever finds its claim run out."""
        self._loop.call_soon_threadsafe(self._end)
        self._thread.join(timeout=5)

    def _run(self) -> None:
        with suppress(asyncio.CancelledError):
            asyncio.run(self._go_on())

    async def _go_on(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), cast(asyncio.Task[None], asyncio.current_task()).cancel
        self._is_ready.set()
        patrol_at, removal = self._loop.time(), None
        while True:
            pause_s = POLL_S
            try:
                if self._loop.time() >= patrol_at:
                    patrol_at = self._loop.time() + PATROL_S
                    self.patrol.walk()
                    if removal is None or removal.done():  # a slow store delays no delivery
                        removal = asyncio.create_task(asyncio.to_thread(self._remove_doomed))
                if await self.deliver():
                    pause_s = 0.0
            except DBAPIError as error:
                log.warning("the database is away, trying again in %s s: %s", RETRY_S, str(error.orig).splitlines()[0])
                pause_s = RETRY_S
            except Exception:
                log.exception("the courier failed; it goes on in %s s", RETRY_S)
                pause_s = RETRY_S
            await asyncio.sleep(pause_s)

    def _remove_doomed(self) -> None:
        """Folders of erased people that could not be removed at once: a disk or a store was away. In a thread."""
        try:
            with SessionFactory.begin() as session:
                remove_doomed(session, self.settings)
            redact_results(self.settings)
        except DBAPIError as error:
            log.warning("the database is away, erased labels wait: %s", str(error.orig).splitlines()[0])
        except Exception:
            log.exception("what was erased could not be removed from files; it is tried again in %s s", PATROL_S)

    async def deliver(self) -> bool:
        """Send what is due; whether anything was."""
        with SessionFactory.begin() as session:
            letters = claim(session, self.address, now=clock(session))
        await asyncio.gather(*(self._send(letter) for letter in letters))
        return bool(letters)

    async def _send(self, letter: Letter) -> None:
        outcome: Answer | NotSent
        try:
            outcome = await post(letter.url, letter.headers, letter.body, self.networks, self.refused)
        except NotSent as problem:
            outcome = problem
        except Exception as error:  # whatever it is, it is this delivery's alone: the others go on
            log.exception("delivery=%s could not be sent; it counts as a failed attempt", letter.delivery_id)
            outcome = NotSent(f"it could not be sent ({type(error).__name__})")
        with SessionFactory.begin() as session:
            settle(session, letter, outcome, now=clock(session))
        log.info("delivery=%s attempt=%s %s", letter.delivery_id, letter.attempt, _said(outcome))


def _said(outcome: Answer | NotSent) -> str:
    return f"status={outcome.status}" if isinstance(outcome, Answer) else f"not sent: {outcome}"

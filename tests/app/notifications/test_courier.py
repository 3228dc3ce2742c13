"""What happens is sent to a real server, at least once and with one id, through refusals, silence and kills."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from app.db import clock
from app.notifications import courier as courier_module
from app.notifications import sending
from app.notifications.alarms import acknowledge, raise_alarm
from app.notifications.courier import CLAIM_DURATION, FAILS_FOR, PAUSES, Courier, claim, settle
from app.notifications.models import Alarm, AlarmKind, Delivery, DeliveryState, EventType, Notification, Webhook
from app.notifications.outbox import publish
from app.notifications.sending import Answer
from app.notifications.signing import secret_text
from app.notifications.webhooks import add_webhook, rotate_secret, send_again, switch_off, switch_on
from app.projects.models import Project
from app.rounds import claims
from app.rounds.conclusions import end_comparison
from app.rounds.resuming import resume_round
from app.rounds.service import cancel_round
from app.settings import Settings
from tests.app.conftest import Clock
from tests.app.loop import compare, evaluation_slates, make_account, run_stage
from tests.app.notifications.receiver import Receiver, is_signed, receiving, run
from tests.app.rounds.stages import claimed, make_loop, start
from tests.app.rounds.test_comparisons import wait_until_blocked

ALL = ["round.finished", "round.needs_labels", "alarm.raised"]
FAILURE = {"code": "killed", "message": "It ran out of memory", "advice": "lower it", "last_lines": ""}


@pytest.fixture
def loop(session: Session) -> Project:
    return make_loop(session)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def clock_ahead(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch, courier_module)


@pytest.fixture
def courier(settings: Settings) -> Courier:
    allowed = settings.model_copy(
        update={"webhook_networks": "127.0.0.0/8", "public_url": "https://podium.example.org/"}
    )
    return Courier(allowed)


def add(session: Session, loop: Project, url: str, events: list[str] | None = None) -> Webhook:
    webhook = add_webhook(
        session, loop, url=url, events=events or ALL, account=make_account(session), now=clock(session)
    )
    session.commit()
    return webhook


def tell(session: Session, loop: Project) -> None:
    """Something happens."""
    raise_what = {"key": str(uuid4()), "text": "Look!", "path": "/alarms/1", "data": {"kind": "eos_falls"}}
    publish(session, loop.id, EventType.ALARM_RAISED, **raise_what, now=clock(session))
    session.commit()


def deliver(courier: Courier) -> bool:
    return run(courier.deliver())


def the_delivery(session: Session) -> Delivery:
    session.expire_all()
    return session.scalars(select(Delivery)).one()


def test_a_message_says_what_happened_where_and_is_signed(
    session: Session, loop: Project, receiver: Receiver, courier: Courier
) -> None:
    webhook = add(session, loop, receiver.url)
    tell(session, loop)
    assert deliver(courier)
    (request,) = receiver.received
    assert request.path == "/hook?for=podium"
    assert is_signed(request.headers, request.body, secret_text(webhook.secret))
    assert not is_signed(request.headers, request.body, secret_text(b"another"))
    content = request.content
    assert content["id"] == request.headers["webhook-id"]
    assert (content["type"], content["project"]) == ("alarm.raised", {"slug": "loop", "name": "The loop"})
    assert content["link"] == "https://podium.example.org/projects/loop/alarms/1"
    assert content["text"] == f"The loop: Look! {content['link']}"
    assert content["data"] == {"kind": "eos_falls"}
    assert datetime.fromisoformat(content["timestamp"]).tzinfo is not None
    sent = the_delivery(session)
    assert (sent.state, sent.last_status, sent.last_answer) == (DeliveryState.DELIVERED, 200, "thank you")
    assert not deliver(courier)


def test_a_network_that_the_installation_refuses_is_not_connected_to(
    session: Session, loop: Project, settings: Settings
) -> None:
    add(session, loop, "http://93.184.216.34/hook")
    tell(session, loop)
    deliver(Courier(settings.model_copy(update={"webhook_refused": "93.184.216.0/24"})))
    assert "refused here" in (the_delivery(session).last_error or "")


def test_labels_that_take_long_to_remove_from_files_hold_up_no_delivery(
    session: Session, loop: Project, receiver: Receiver, courier: Courier, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_removing, go_on, is_sent = threading.Event(), threading.Event(), threading.Event()

    def slow(settings: Settings) -> None:
        is_removing.set()
        assert go_on.wait(60)

    def seen(*given: Any, **named: Any) -> None:
        settle(*given, **named)
        is_sent.set()

    monkeypatch.setattr(courier_module, "redact_results", slow)
    monkeypatch.setattr(courier_module, "settle", seen)
    courier.start()
    assert is_removing.wait(60)
    add(session, loop, receiver.url)
    tell(session, loop)
    was_sent = is_sent.wait(30)
    go_on.set()
    courier.stop()
    assert was_sent


def test_what_is_rolled_back_is_told_to_nobody(
    session: Session, loop: Project, receiver: Receiver, courier: Courier
) -> None:
    add(session, loop, receiver.url)
    raise_alarm(session, loop.id, AlarmKind.QUEUE_EMPTY, "Nothing.", now=clock(session))
    session.rollback()
    assert not deliver(courier)
    raise_alarm(session, loop.id, AlarmKind.QUEUE_EMPTY, "Nothing.", now=clock(session))
    session.commit()
    assert deliver(courier)


def test_a_refusal_is_tried_again_later_with_the_same_id_and_a_new_time(
    session: Session, loop: Project, receiver: Receiver, courier: Courier, clock_ahead: Clock
) -> None:
    webhook = add(session, loop, receiver.url)
    tell(session, loop)
    receiver.statuses, receiver.answer = [500], b"<h1>oh no</h1>"
    deliver(courier)
    failed = the_delivery(session)
    assert (failed.state, failed.last_status, failed.last_answer) == (DeliveryState.WAITING, 500, "<h1>oh no</h1>")
    assert not deliver(courier)  # not before its pause is over
    clock_ahead.advance(PAUSES[0] * 1.2)
    assert deliver(courier)
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    assert int(second.headers["webhook-timestamp"]) > int(first.headers["webhook-timestamp"])
    assert is_signed(second.headers, second.body, secret_text(webhook.secret))
    assert the_delivery(session).state == DeliveryState.DELIVERED
    session.refresh(webhook)
    assert (webhook.num_failures, webhook.failing_since) == (0, None)


def test_a_refused_connection_is_tried_again(
    session: Session, loop: Project, courier: Courier, clock_ahead: Clock
) -> None:
    with receiving() as gone:
        add(session, loop, gone.url)
    tell(session, loop)
    deliver(courier)
    failed = the_delivery(session)
    assert (failed.state, failed.last_status) == (DeliveryState.WAITING, None)
    assert failed.last_error
    with receiving(gone.port) as back:
        clock_ahead.advance(PAUSES[0] * 1.2)
        assert deliver(courier)
        assert len(back.received) == 1


@pytest.mark.parametrize("url", ["https://hooks..example.org/x", "http://127.0.0.1:99999/x"])
def test_an_address_that_cannot_be_sent_to_fails_alone(
    session: Session, loop: Project, receiver: Receiver, courier: Courier, url: str
) -> None:
    """It was typed in before such addresses were refused."""
    bad = add(session, loop, receiver.url)
    bad.url = url
    good = add(session, loop, receiver.url)
    tell(session, loop)
    assert deliver(courier)
    by_webhook = {delivery.webhook_id: delivery for delivery in session.scalars(select(Delivery))}
    failed, delivered = by_webhook[bad.id], by_webhook[good.id]
    assert (delivered.state, len(receiver.received)) == (DeliveryState.DELIVERED, 1)
    assert "could not be sent" in (failed.last_error or "")
    assert (failed.state, failed.claimed_until) == (DeliveryState.WAITING, None)
    assert failed.last_attempt_at is not None
    assert failed.next_attempt_at >= failed.last_attempt_at + PAUSES[0]
    session.refresh(bad)
    assert (bad.num_failures, bad.failing_since is not None) == (1, True)


def test_silence_is_a_failure_and_holds_no_transaction(
    session: Session, loop: Project, receiver: Receiver, courier: Courier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "TIMEOUT_S", 0.3)
    receiver.holds = threading.Event()
    add(session, loop, receiver.url)
    tell(session, loop)
    deliver(courier)
    assert "no answer within" in (the_delivery(session).last_error or "")


def test_a_courier_killed_before_it_wrote_down_an_answer_is_followed_by_one_that_sends_the_same_id(
    session: Session, loop: Project, receiver: Receiver, courier: Courier, clock_ahead: Clock, monkeypatch: Any
) -> None:
    add(session, loop, receiver.url)
    tell(session, loop)

    class Killed(BaseException):
        pass

    def die(*arguments: Any, **options: Any) -> None:
        raise Killed

    with monkeypatch.context() as killed:
        killed.setattr(courier_module, "settle", die)
        with pytest.raises(Killed):
            deliver(courier)
    assert the_delivery(session).state == DeliveryState.WAITING
    assert not deliver(courier)  # the claim holds: it might be alive
    clock_ahead.advance(CLAIM_DURATION)
    assert deliver(courier)
    assert len(receiver.received) == 2
    assert len({request.headers["webhook-id"] for request in receiver.received}) == 1
    assert the_delivery(session).num_attempts == 2


def test_two_couriers_send_each_message_once(
    session: Session, loop: Project, receiver: Receiver, courier: Courier
) -> None:
    add(session, loop, receiver.url)
    for _ in range(40):
        tell(session, loop)

    def work() -> None:
        while deliver(courier):
            pass

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(work), pool.submit(work)]:
            done.result(timeout=60)
    ids = [request.headers["webhook-id"] for request in receiver.received]
    assert set(session.scalars(select(Delivery.last_error))) == {None}
    assert (len(ids), len(set(ids))) == (40, 40)


def test_an_attempt_whose_claim_ran_out_says_nothing_unless_it_delivered(
    session: Session, loop: Project, receiver: Receiver
) -> None:
    add(session, loop, receiver.url)
    tell(session, loop)
    now = clock(session)
    (first,) = claim(session, "https://p", now=now)
    (second,) = claim(session, "https://p", now=now + CLAIM_DURATION)
    assert (first.attempt, second.attempt) == (1, 2)
    settle(session, first, Answer(500, "late"), now=now)
    assert the_delivery(session).last_status is None
    settle(session, first, Answer(200, "late"), now=now)
    settle(session, second, Answer(500, "later"), now=now)
    assert the_delivery(session).state == DeliveryState.DELIVERED


def fail_at(session: Session, at: datetime, status: int = 500) -> None:
    """One attempt that fails at this time."""
    (letter,) = claim(session, "https://p", now=at)
    settle(session, letter, Answer(status, ""), now=at)
    session.commit()


def test_pauses_grow_until_the_delivery_has_failed(session: Session, loop: Project, receiver: Receiver) -> None:
    webhook = add(session, loop, receiver.url)
    tell(session, loop)
    waits = []
    while (delivery := the_delivery(session)).state == DeliveryState.WAITING:
        session.execute(update(Webhook).values(rests_until=None, failing_since=None))
        at = delivery.next_attempt_at
        fail_at(session, at)
        waits.append(the_delivery(session).next_attempt_at - at)
    assert len(waits) == 10
    for pause, wait in zip(PAUSES, waits, strict=False):
        assert pause <= wait <= 1.11 * pause
    assert waits[:9] == sorted(waits[:9])
    assert webhook.disabled_at is None


def test_a_webhook_that_fails_for_days_is_switched_off_with_an_alarm_until_an_admin_switches_it_on(
    session: Session, loop: Project, receiver: Receiver
) -> None:
    webhook = add(session, loop, receiver.url)
    tell(session, loop)
    now = clock(session)
    fail_at(session, now)
    tell(session, loop)  # waits too: the webhook rests
    assert claim(session, "https://p", now=now + timedelta(seconds=1)) == []
    session.execute(update(Delivery).where(Delivery.num_attempts == 0).values(next_attempt_at=now + 2 * FAILS_FOR))
    fail_at(session, now + FAILS_FOR)
    session.refresh(webhook)
    assert webhook.disabled_because == "nothing was accepted for 3 days"
    assert set(session.scalars(select(Delivery.state))) == {DeliveryState.FAILED}
    (alarm,) = session.scalars(select(Alarm))
    assert alarm.kind == AlarmKind.WEBHOOK_OFF
    assert "127.0.0.1" in alarm.evidence
    assert "hook?for" not in alarm.evidence  # the path may be a secret
    tell(session, loop)
    assert len(session.scalars(select(Notification)).all()) == 2  # nobody listens: nothing is written
    switch_on(session, webhook, account=make_account(session), now=now)
    session.refresh(alarm)
    assert alarm.cleared_at == now


def test_a_receiver_that_answers_gone_is_left_alone_at_once(
    session: Session, loop: Project, receiver: Receiver
) -> None:
    webhook = add(session, loop, receiver.url)
    tell(session, loop)
    fail_at(session, clock(session), status=410)
    session.refresh(webhook)
    assert "410" in (webhook.disabled_because or "")


def put_before(session: Session, webhook: Webhook) -> None:
    """Something for this webhook alone."""
    what = {"key": str(uuid4()), "text": "A test", "path": "", "data": {}}
    publish(session, webhook.project_id, EventType.TEST, **what, now=clock(session), only=webhook)
    session.commit()


@pytest.mark.parametrize("is_read", [True, False])
def test_a_second_webhook_that_is_switched_off_is_told_of_and_named_beside_the_first(
    session: Session, loop: Project, is_read: bool
) -> None:
    account = make_account(session)
    one = add(session, loop, "https://one.example.org/", ["round.finished"])
    two = add(session, loop, "https://two.example.org/", ["round.finished"])
    by_hand = add(session, loop, "https://three.example.org/")
    switch_off(session, by_hand, account=account, now=clock(session))
    add(session, loop, "https://living.example.org/", ["alarm.raised"])
    put_before(session, one)
    fail_at(session, clock(session), status=410)
    first = session.scalars(select(Alarm)).one()
    if is_read:
        acknowledge(session, first, account=account, note="", now=clock(session))
    session.execute(update(Delivery).values(next_attempt_at=clock(session) + FAILS_FOR))  # the first alarm's waits
    put_before(session, two)
    fail_at(session, clock(session), status=410)
    second = session.scalars(select(Alarm).where(Alarm.id != first.id)).one()
    session.refresh(first)
    assert (first.is_open, second.is_open) == (False, True)
    assert "to two.example.org was switched off" in second.evidence
    assert second.evidence.endswith("Also off: one.example.org.")
    told = session.scalars(select(Notification.data).where(Notification.type == EventType.ALARM_RAISED)).all()
    assert {data["alarm"] for data in told} == {first.id, second.id}
    switch_on(session, two, account=account, now=clock(session))
    assert second.is_open  # the first is off still
    switch_on(session, one, account=account, now=clock(session))
    assert not second.is_open


def test_of_two_that_are_switched_off_at_the_same_moment_one_alarm_names_both(
    session: Session, loop: Project, engine: Engine
) -> None:
    for name in ("one", "two"):
        put_before(session, add(session, loop, f"https://{name}.example.org/"))
    now = clock(session)
    first, second = claim(session, "https://p", now=now)
    session.commit()

    def settle_second() -> None:
        with Session(engine) as other, other.begin():
            settle(other, second, Answer(410, ""), now=now)

    with ThreadPoolExecutor(1) as pool:
        settle(session, first, Answer(410, ""), now=now)
        done = pool.submit(settle_second)
        wait_until_blocked(engine)
        session.commit()
        done.result(timeout=60)
    alarm = session.scalars(select(Alarm).where(Alarm.cleared_at.is_(None))).one()
    assert "to two.example.org was switched off" in alarm.evidence
    assert alarm.evidence.endswith("Also off: one.example.org.")


def test_what_waits_at_a_webhook_that_is_switched_off_by_hand_goes_out_when_it_is_on(
    session: Session, loop: Project, receiver: Receiver, courier: Courier
) -> None:
    webhook, account = add(session, loop, receiver.url), make_account(session)
    tell(session, loop)
    switch_off(session, webhook, account=account, now=clock(session))
    session.commit()
    assert not deliver(courier)
    switch_on(session, webhook, account=account, now=clock(session))
    session.commit()
    assert deliver(courier)


def test_a_delivery_is_sent_again_with_its_id(
    session: Session, loop: Project, receiver: Receiver, courier: Courier
) -> None:
    webhook = add(session, loop, receiver.url)
    tell(session, loop)
    deliver(courier)
    send_again(session, webhook, the_delivery(session).id, account=make_account(session), now=clock(session))
    session.commit()
    assert deliver(courier)
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


def test_a_replaced_secret_signs_beside_the_new_one_for_a_day(
    session: Session, loop: Project, receiver: Receiver, courier: Courier, clock_ahead: Clock
) -> None:
    webhook = add(session, loop, receiver.url)
    old = secret_text(webhook.secret)
    rotate_secret(session, webhook, account=make_account(session), now=clock(session))
    tell(session, loop)
    deliver(courier)
    tell(session, loop)
    clock_ahead.advance(timedelta(days=1))
    deliver(courier)
    new = secret_text(webhook.secret)
    during, after = receiver.received
    assert [is_signed(during.headers, during.body, secret) for secret in (old, new)] == [True, True]
    assert [is_signed(after.headers, after.body, secret) for secret in (old, new)] == [False, True]


def types(session: Session) -> list[tuple[str, dict[str, Any]]]:
    return [(row.type.value, row.data) for row in session.scalars(select(Notification).order_by(Notification.at))]


def test_a_round_is_told_when_it_wants_labels_and_when_it_is_finished_once_each(
    session: Session, loop: Project, receiver: Receiver
) -> None:
    add(session, loop, receiver.url)
    round = start(session, loop, evaluation_comparisons=2)
    run_stage(session)
    run_stage(session)
    run_stage(session, num_pairs=2)
    assert types(session) == [("round.needs_labels", {"round": 1})]
    for slate in evaluation_slates(session, round):
        compare(session, round, slate, "win")
    session.commit()
    end_comparison(session, round, account=make_account(session), now=clock(session))
    (_, finished) = types(session)
    assert finished[0] == "round.finished"
    assert (finished[1]["state"], finished[1]["policy_version"]) == ("succeeded", 2)
    assert (finished[1]["win_rate"]["rate"], finished[1]["win_rate"]["comparisons"]) == (1.0, 2)


def test_each_failure_of_a_round_is_told_and_its_cancelling(
    session: Session, loop: Project, receiver: Receiver
) -> None:
    add(session, loop, receiver.url, ["round.finished"])
    round = start(session, loop)
    for _ in range(2):
        claims.fail_stage(session, claimed(session), FAILURE, now=clock(session))
        session.commit()
        resume_round(session, round, account=None, now=clock(session))
        session.commit()
    cancel_round(session, round, account=None, now=clock(session))
    assert [data["state"] for _, data in types(session)] == ["failed", "failed", "cancelled"]
    texts = session.scalars(select(Notification.text).order_by(Notification.at)).all()
    assert texts == ["Round 1 failed in reward.", "Round 1 failed in reward.", "Round 1 was cancelled."]


def test_only_chosen_events_are_sent(session: Session, loop: Project, receiver: Receiver) -> None:
    add(session, loop, receiver.url, ["round.finished"])
    tell(session, loop)
    assert types(session) == []


def test_the_thread_delivers_by_itself_and_ends(
    session: Session, loop: Project, receiver: Receiver, courier: Courier
) -> None:
    add(session, loop, receiver.url)
    tell(session, loop)
    courier.start()
    assert receiver.arrived.wait(timeout=30)
    courier.stop()
    assert not courier.is_alive

"""Webhooks by the front door: an admin adds, tests, changes and removes them; a secret is shown once."""

import re

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.notifications.models import Delivery, Notification, Webhook
from app.notifications.signing import secret_text
from app.people.models import AuditEvent
from app.projects.models import Project
from tests.app.conftest import Person
from tests.app.loop import make_project

WEBHOOKS = "/projects/everyday/settings/webhooks"
URL = "https://hooks.example.org/services/T0/very-secret"
FORM = {"url": URL, "events": ["round.finished", "alarm.raised"]}


def add(admin: Person) -> str:
    """The page that answers."""
    response = admin.post(WEBHOOKS, data=FORM)
    assert response.status_code == 200
    page: str = response.text
    return page


def stored(session: Session) -> Webhook:
    session.expire_all()
    return session.scalars(select(Webhook)).one()


def test_an_admin_adds_a_webhook_and_sees_its_secret_once(admin: Person, session: Session) -> None:
    page = add(admin)
    webhook = stored(session)
    assert (webhook.url, webhook.events) == (URL, ["round.finished", "alarm.raised"])
    assert secret_text(webhook.secret) in page
    for again in (WEBHOOKS, f"{WEBHOOKS}/{webhook.id}", f"/api/v1{WEBHOOKS.replace('/settings', '')}"):
        assert "whsec_" not in admin.get(again).text


def test_the_audit_log_names_the_host_and_not_the_address(admin: Person, session: Session) -> None:
    add(admin)
    (event,) = session.scalars(select(AuditEvent).where(AuditEvent.action == "webhook.add"))
    assert event.detail["host"] == "hooks.example.org"
    assert "very-secret" not in str(event.detail)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"url": "hooks.example.org"}, "must begin with https://"),
        ({"url": "https://me:pw@example.org"}, "must hold no user name"),
        ({"events": []}, "Choose at least one event"),
        ({"events": ["webhook.test"]}, "Choose at least one event"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field_and_nothing_is_lost(
    admin: Person, session: Session, changes: dict[str, object], rule: str
) -> None:
    response = admin.post(WEBHOOKS, data=FORM | changes)
    assert response.status_code == 422
    assert rule in response.text
    assert f'value="{changes.get("url", URL)}"' in response.text
    assert session.scalar(select(func.count(Webhook.id))) == 0


def test_a_test_is_put_before_the_courier_and_sent_again_by_a_button(admin: Person, session: Session) -> None:
    add(admin)
    root = f"{WEBHOOKS}/{stored(session).id}"
    assert admin.post(f"{root}/test").headers["location"] == root
    (test,) = session.scalars(select(Notification))
    assert test.type == "webhook.test"
    delivery = session.scalars(select(Delivery)).one()
    page = admin.get(root).text
    assert "A test: this webhook works." in page
    assert f"msg_{test.id.hex}" in page
    assert admin.post(f"{root}/deliveries/{delivery.id}/again").status_code == 303
    assert admin.post(f"{root}/deliveries/{delivery.id + 1}/again").status_code == 404


def test_nothing_is_sent_to_one_that_is_off(admin: Person, session: Session) -> None:
    add(admin)
    root = f"{WEBHOOKS}/{stored(session).id}"
    admin.post(f"{root}/switch-off")
    assert admin.post(f"{root}/test").status_code == 409
    admin.post(f"{root}/switch-on")
    assert admin.post(f"{root}/test").status_code == 303


def test_an_admin_changes_replaces_the_secret_and_removes(admin: Person, session: Session) -> None:
    add(admin)
    webhook = stored(session)
    root, old = f"{WEBHOOKS}/{webhook.id}", webhook.secret
    admin.post(root, data={"url": "https://other.example.org/", "events": ["round.needs_labels"]})
    webhook = stored(session)
    assert (webhook.url, webhook.events) == ("https://other.example.org/", ["round.needs_labels"])
    assert admin.post(root, data=FORM | {"url": "nowhere"}).status_code == 422
    shown = re.search(r"whsec_[\w+/=]+", admin.post(f"{root}/rotate").text)
    webhook = stored(session)
    assert shown is not None
    assert (shown[0], webhook.old_secret) == (secret_text(webhook.secret), old)
    admin.post(f"{root}/test")
    admin.post(f"{root}/remove")
    session.expire_all()
    assert [session.scalar(select(func.count(table.id))) for table in (Webhook, Delivery)] == [0, 0]
    actions = session.scalars(select(AuditEvent.action).order_by(AuditEvent.id)).all()
    assert actions == [f"webhook.{act}" for act in ("add", "change", "rotate_secret", "test", "remove")]


def test_only_admins_of_the_project_see_webhooks(
    researcher: Person, labeler: Person, admin: Person, session: Session
) -> None:
    add(admin)
    page = f"{WEBHOOKS}/{stored(session).id}"
    for person in (researcher, labeler):
        assert [person.get(path).status_code for path in (WEBHOOKS, page)] == [403, 403]
        assert person.post(f"{page}/test").status_code == 403


def test_a_webhook_of_another_project_is_not_found(admin: Person, session: Session, project: Project) -> None:
    add(admin)
    webhook = stored(session)
    webhook.project_id = make_project(session).id
    session.commit()
    assert admin.get(f"{WEBHOOKS}/{webhook.id}").status_code == 404
    assert admin.post(f"{WEBHOOKS}/{webhook.id}/remove").status_code == 404


def test_programs_add_test_and_remove(admin: Person) -> None:
    root = "/api/v1/projects/everyday/webhooks"
    made = admin.post(root, json={"url": URL}).json()
    assert made["secret"].startswith("whsec_")
    assert made["events"] == ["round.finished", "round.needs_labels", "alarm.raised"]
    assert admin.post(f"{root}/{made['id']}/test").status_code == 202
    (delivery,) = admin.get(f"{root}/{made['id']}/deliveries").json()
    assert (delivery["type"], delivery["state"], delivery["num_attempts"]) == ("webhook.test", "waiting", 0)
    assert "secret" not in admin.get(root).json()[0]
    rotated = admin.post(f"{root}/{made['id']}/rotate").json()
    assert rotated["secret"] != made["secret"]
    assert admin.delete(f"{root}/{made['id']}").status_code == 204
    assert admin.get(root).json() == []


def test_a_project_has_at_most_twenty(admin: Person, session: Session) -> None:
    for _ in range(20):
        add(admin)
    response = admin.post(WEBHOOKS, data=FORM)
    assert response.status_code == 422
    assert session.scalar(select(func.count(Webhook.id))) == 20

"""What a key may do: never more than its account, and no more than its scope. Who may call what: test_access.py."""

import re

import pytest
from fastapi import FastAPI
from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session

from app.labeling.models import Lease
from app.labeling.task_models import Writing
from app.people import service
from app.people.models import APIKey, AuditEvent, KeyScope, Labeler, Membership
from app.projects.models import Project
from tests.app.conftest import Person, make_project
from tests.app.labeling.conftest import MakeSlate, in_order, make_slate  # noqa: F401

API = "/api/v1/projects/everyday"


def with_key(session: Session, person: Person, scope: KeyScope) -> dict[str, dict[str, str]]:
    assert person.account is not None
    secret = service.create_key(session, session.merge(person.account), "script", scope=scope)
    session.commit()
    return {"headers": {"authorization": f"Bearer {secret}"}}


def test_a_key_made_on_the_page_reads_unless_more_is_chosen(app: FastAPI, admin: Person, session: Session) -> None:
    for sent, scope in (({}, KeyScope.READ), ({"scope": "label"}, KeyScope.LABEL), ({"scope": "all"}, KeyScope.ALL)):
        page = admin.post("/account/keys", data={"name": "k", **sent})
        found = session.scalars(select(APIKey).order_by(APIKey.id.desc())).first()
        assert found is not None
        assert found.scope is scope
        assert page.text.count('id="new-key">podium_') == 1
    events = session.scalars(select(AuditEvent).where(AuditEvent.action == "key.create").order_by(AuditEvent.id))
    assert [event.detail["scope"] for event in events] == ["read", "label", "all"]
    assert admin.post("/account/keys", data={"name": "k", "scope": "root"}).status_code == 422


def test_a_key_made_on_the_page_is_for_the_project_that_was_chosen(
    admin: Person, site_admin: Person, project: Project, session: Session
) -> None:
    other = make_project(session, "other", "Another project", "Be kind.")
    assert "Another project" not in admin.get("/account").text
    page = admin.post("/account/keys", data={"name": "export", "project": "everyday"})
    assert re.search(r"<td>Everyday requests</td>", page.text)
    made = session.scalars(select(APIKey)).one()
    event = session.scalars(select(AuditEvent).where(AuditEvent.action == "key.create")).one()
    assert (made.project_id, event.detail["project"]) == (project.id, "everyday")
    for slug in ("other", "nowhere"):  # one answer for both
        refused = admin.post("/account/keys", data={"name": "k", "project": slug})
        assert (refused.status_code, f"There is no project {slug}, or" in refused.text) == (422, True)
    assert admin.get("/account/data/export").json()["account"]["keys"][0]["project"] == "everyday"
    made.project_id = other.id  # as if they had left it since
    session.commit()
    pages = [admin.get("/account").text, site_admin.get(f"/people/{made.account_id}").text]
    assert ["a project you are not in" in pages[0], "<td>Another project</td>" in pages[1]] == [True, True]


def test_a_key_of_a_project_is_of_no_use_when_its_account_leaves_it(
    app: FastAPI, labeler: Person, project: Project, session: Session
) -> None:
    key = service.create_key(session, session.merge(labeler.account), "script", scope=KeyScope.ALL, project=project)
    session.execute(delete(Membership))
    session.commit()
    headers = {"authorization": f"Bearer {key}"}
    assert Person(app).get("/api/v1/projects", headers=headers).json() == []
    assert Person(app).post(f"{API}/leases", json={"wanted": 1}, headers=headers).status_code == 404


def test_only_the_hash_of_a_key_is_stored(admin: Person, session: Session) -> None:
    page = admin.post("/account/keys", data={"name": "k"}).text
    secret = re.search(r'id="new-key">(podium_[\w-]{43})<', page)
    assert secret is not None
    kept = session.execute(text("SELECT api_key::text || (SELECT json_agg(e)::text FROM audit_event e) FROM api_key"))
    assert secret[1] not in kept.scalars().one()
    assert secret[1] not in admin.get("/account").text


def test_a_reading_key_changes_nothing_and_says_why(app: FastAPI, admin: Person, session: Session) -> None:
    key = with_key(session, admin, KeyScope.READ)
    program = Person(app)
    assert program.get(f"{API}/members", **key).status_code == 200
    refused = program.post(f"{API}/invitations", json={"role": "admin"}, **key)
    assert (refused.status_code, refused.json()["code"]) == (403, "scope_too_narrow")
    assert "scope read" in refused.json()["detail"]


def test_a_reading_key_neither_leases_nor_drafts_nor_submits(
    app: FastAPI,
    labeler: Person,
    session: Session,
    make_slate: MakeSlate,  # noqa: F811
) -> None:
    make_slate()
    (lease,) = labeler.post(f"{API}/leases", json={"wanted": 1}).json()["leases"]
    key, program, path = with_key(session, labeler, KeyScope.READ), Person(app), f"/api/v1/leases/{lease['id']}"
    asked = [
        program.post(f"{API}/leases", json={"wanted": 1}, **key),
        program.post(f"{path}/renewal", **key),
        program.put(f"{path}/draft", json={"revision": 0, "content": {"note": "mine"}}, **key),
        program.post(f"{path}/ranking", json={"ranking_id": lease["id"], "ranks": in_order(lease)}, **key),
    ]
    assert [(answer.status_code, answer.json()["code"]) for answer in asked] == [(403, "scope_too_narrow")] * 4
    assert session.scalars(text("SELECT count(*) FROM draft")).one() == 0


@pytest.mark.parametrize("page", ["rank", "work", "answer", "write/plain", "converse", "mine", "onboarding"])
def test_a_reading_key_opens_no_page_that_begins_work(
    app: FastAPI,
    labeler: Person,
    project: Project,
    session: Session,
    make_slate: MakeSlate,  # noqa: F811
    page: str,
) -> None:
    make_slate()
    project.task_weights = {"rank": 1, "answer": 1, "write": 1, "converse": 1}
    key = with_key(session, labeler, KeyScope.READ)
    refused = Person(app).get(f"/projects/everyday/{page}", **key)
    assert (refused.status_code, "scope read" in refused.text) == (403, True)
    assert [session.scalar(select(func.count()).select_from(table)) for table in (Lease, Writing, Labeler)] == [0, 0, 0]
    opened = labeler.get(f"/projects/everyday/{page}")
    assert opened.status_code in {200, 303}
    assert session.scalar(select(func.count(Labeler.id))) == 1


def test_a_labeling_key_of_an_admin_labels_and_does_not_run_the_project(
    app: FastAPI,
    admin: Person,
    project: Project,
    session: Session,
    make_slate: MakeSlate,  # noqa: F811
) -> None:
    make_slate()
    key, program = with_key(session, admin, KeyScope.LABEL), Person(app)
    assert len(program.post(f"{API}/leases", json={"wanted": 1}, **key).json()["leases"]) == 1
    refused = program.get(f"{API}/members", **key)
    assert (refused.status_code, refused.json()["code"]) == (403, "scope_too_narrow")
    assert program.get("/api/v1/me/data", **key).status_code == 403


def test_a_keys_scope_ends_where_its_accounts_role_does(app: FastAPI, labeler: Person, session: Session) -> None:
    key = with_key(session, labeler, KeyScope.ALL)
    refused = Person(app).get(f"{API}/members", **key)
    assert (refused.status_code, refused.json()["code"]) == (403, "role_too_low")


@pytest.mark.parametrize("scope", list(KeyScope))
def test_a_key_takes_no_invitation(app: FastAPI, outsider: Person, admin: Person, session: Session, scope: str) -> None:
    link = admin.post(f"{API}/invitations", json={"role": "admin"}).json()["url"]
    key = with_key(session, outsider, KeyScope(scope))
    assert Person(app).post(link.removeprefix("http://testserver"), **key).status_code in {401, 403}
    assert outsider.get("/projects/everyday").status_code == 404

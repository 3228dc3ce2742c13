"""Who may lease, draft, renew and submit: these routes look the caller up by themselves."""

from typing import Any
from uuid import uuid4

import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.orm import Session

from app import security
from app.people.service import create_key
from app.projects.models import Project
from tests.app.conftest import Person
from tests.app.labeling.conftest import MakeSlate, in_order, take

EVERYTHING = {"lease": 200, "screens": 200, "draft": 200, "renewal": 200, "submit": 201}
NOTHING = dict.fromkeys(EVERYTHING, 401)


def ask_for_everything(person: Person, lease: dict[str, Any], **options: Any) -> dict[str, int]:
    """The status of each request of a slate."""
    path, wanted = f"/api/v1/leases/{lease['id']}", {"wanted": 1}
    screens = {**wanted, "since": "2026-01-01T00:00:00Z"}
    ranking = {"ranking_id": str(uuid4()), "ranks": in_order(lease)}
    project = "/api/v1/projects/everyday"
    answers = {
        "lease": person.post(f"{project}/leases", json=wanted, **options),
        "screens": person.post(f"{project}/leases/screens", json=screens, **options),
        "draft": person.put(f"{path}/draft", json={"revision": 0, "content": {}}, **options),
        "renewal": person.post(f"{path}/renewal", **options),
        "submit": person.post(f"{path}/ranking", json=ranking, **options),
    }
    return {what: answer.status_code for what, answer in answers.items()}


def with_key(key: str) -> dict[str, Any]:
    return {"headers": {"authorization": f"Bearer {key}"}}


def test_a_session_and_a_key_open_every_request(
    app: FastAPI, labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    make_slate()
    make_slate()
    (lease,) = take(labeler, project)
    assert ask_for_everything(labeler, lease) == EVERYTHING
    (lease,) = take(labeler, project)
    assert labeler.account is not None
    key = create_key(session, labeler.account, "program")
    session.commit()
    assert ask_for_everything(Person(app), lease, **with_key(key)) == EVERYTHING


@pytest.mark.parametrize(
    "ended",
    [
        "UPDATE account SET disabled_at = now()",
        "UPDATE sign_in_session SET revoked_at = now()",
        "UPDATE sign_in_session SET expires_at = now()",
    ],
)
def test_a_session_that_ended_opens_none(
    labeler: Person, project: Project, make_slate: MakeSlate, session: Session, ended: str
) -> None:
    make_slate()
    (lease,) = take(labeler, project)
    session.execute(text(ended))
    session.commit()
    assert ask_for_everything(labeler, lease) == NOTHING


@pytest.mark.parametrize("ended", ["UPDATE account SET disabled_at = now()", "UPDATE api_key SET revoked_at = now()"])
def test_a_key_that_ended_opens_none(
    app: FastAPI, labeler: Person, project: Project, make_slate: MakeSlate, session: Session, ended: str
) -> None:
    make_slate()
    (lease,) = take(labeler, project)
    assert labeler.account is not None
    key = create_key(session, labeler.account, "program")
    session.execute(text(ended))
    session.commit()
    assert ask_for_everything(Person(app), lease, **with_key(key)) == NOTHING


def test_what_nobody_issued_opens_none(app: FastAPI, labeler: Person, project: Project, make_slate: MakeSlate) -> None:
    make_slate()
    (lease,) = take(labeler, project)
    assert ask_for_everything(Person(app), lease, **with_key("nonsense")) == NOTHING
    stranger = Person(app, token="nonsense")
    assert stranger.cookies[security.SESSION_COOKIE] == "nonsense"
    assert ask_for_everything(stranger, lease) == NOTHING


def test_another_page_cannot_ask_in_a_labelers_name(labeler: Person, project: Project, make_slate: MakeSlate) -> None:
    make_slate()
    (lease,) = take(labeler, project)
    forged = {"headers": {"x-csrf-token": "0" * 64}}
    assert ask_for_everything(labeler, lease, **forged) == dict.fromkeys(EVERYTHING, 403)


def test_another_labelers_lease_is_not_found(
    labeler: Person, other_labeler: Person, project: Project, make_slate: MakeSlate
) -> None:
    make_slate(overlap=1)
    (lease,) = take(labeler, project)
    seen = ask_for_everything(other_labeler, lease)
    assert {what: seen[what] for what in ("draft", "renewal", "submit")} == {
        "draft": 404,
        "renewal": 404,
        "submit": 404,
    }


@pytest.mark.parametrize("revision", [2**53 + 1, 2**63, 10**30])
def test_a_revision_beyond_all_revisions_is_refused(
    labeler: Person, project: Project, make_slate: MakeSlate, revision: int
) -> None:
    make_slate()
    (lease,) = take(labeler, project)
    form = {"revision": revision, "content": {}}
    assert labeler.put(f"/api/v1/leases/{lease['id']}/draft", json=form).status_code == 422

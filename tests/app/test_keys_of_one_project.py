"""A key of one project, of somebody who may do everything in two: held against all that the other one holds.

Which addresses there are says docs/access.md; what is theirs says the database. Nothing here asks the code's own rule.
"""

import re
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from fastapi import FastAPI
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from app.db import Base
from app.people import service
from app.people.models import KeyScope
from app.projects.models import Project
from tests.app.conftest import Person, accept_guidelines
from tests.app.labeling.conftest import add_slate, ids, submit, take
from tests.app.test_access import BODIES, BROWSER, MANAGER, SITE_ADMIN_BROWSER, rules
from tests.app.test_objects_of_others import OF_A_PERSON, Both, Ids, both, fill, form_of, names  # noqa: F401

Program = Callable[..., Any]  # method, path, what is sent


@pytest.fixture
def worker(person: Callable[..., Person], both: Both, session: Session) -> Person:  # noqa: F811
    """Runs the installation, labels in both projects, and is at home in neither."""
    made = person("Sita Site", is_site_admin=True)
    assert made.account is not None
    accept_guidelines(session, made.account)
    session.commit()
    return made


@pytest.fixture
def program(app: FastAPI, worker: Person, session: Session) -> Callable[[str], Program]:
    """Makes what sends requests with the worker's key of a project."""

    def with_key_of(slug: str) -> Program:
        project = session.scalars(select(Project).where(Project.slug == slug)).one()
        secret = service.create_key(session, session.merge(worker.account), "key", project=project)
        session.commit()
        bare = Person(app)
        headers = {"authorization": f"Bearer {secret}"}
        return lambda method, path, **sent: bare.request(method, path, headers=headers, **sent)

    return with_key_of


def held(session: Session, slug: str) -> dict[str, list[str]]:
    """Every row of every table that belongs to the project, as text."""
    project_id = session.scalars(select(Project.id).where(Project.slug == slug)).one()
    found = {}
    for table in Base.metadata.sorted_tables:
        if "project_id" in table.c and table.name not in {"api_key", "audit_event"}:
            rows = text(f'SELECT t::text FROM "{table.name}" t WHERE project_id = :id ORDER BY 1')
            found[table.name] = list(session.scalars(rows, {"id": project_id}))
    drafts = "SELECT d::text FROM draft d JOIN labeler l ON l.id = d.labeler_id WHERE l.project_id = :id ORDER BY 1"
    found["draft"] = list(session.scalars(text(drafts), {"id": project_id}))
    session.rollback()
    return found


def sent_to(method: str, path: str) -> dict[str, Any]:
    if method in {"GET", "HEAD"}:
        return {}
    return form_of(method, path) or ({"json": BODIES[path]} if path in BODIES else {})


def test_nothing_of_another_project_is_shown_or_changed_below_its_own_address(
    program: Callable[[str], Program],
    both: Both,  # noqa: F811
    session: Session,
    one_message: None,
) -> None:
    _, theirs = both
    ours, before, wrong = program("everyday"), held(session, "theirs"), []
    known = {**dict.fromkeys(OF_A_PERSON, str(uuid4())), "key": "loss", "metric": "loss", "kind": "plain"}
    for method, path in rules():
        if "{slug}" in path:
            address = fill(path.replace("{slug}", "theirs"), {"try_number": "1", **known, **theirs})
            response = ours(method, address, **sent_to(method, path))
            is_api_problem = path.startswith("/api/") and method != "HEAD"
            if response.status_code != 404 or (is_api_problem and response.json()["code"] != "project_not_found"):
                wrong.append((method, path, response.status_code))
            assert "Secret" not in response.text, (method, path)
    assert wrong == []
    assert held(session, "theirs") == before


def test_what_is_of_no_project_is_closed_and_what_lists_projects_shows_the_one(
    program: Callable[[str], Program],
    both: Both,  # noqa: F811
    one_message: None,
) -> None:
    closed, listed = set(), {}
    theirs = program("theirs")
    for (method, path), rule in rules().items():
        if "{" not in path and rule != "Anyone":
            response = theirs(method, path, **({} if method == "GET" else {"data": {"name": "k"}}))
            if response.status_code < 400 and "sign-in" not in response.headers.get("location", ""):
                listed[path] = response.text
            else:
                assert response.status_code in ({303, 401, 403} if rule in {BROWSER, SITE_ADMIN_BROWSER} else {403})
                closed.add(path)
            assert "Everyday requests" not in response.text, (method, path)
    assert set(listed) == {"/", "/api/v1/me", "/api/v1/projects"}
    assert all("Secret plans" in shown for shown in listed.values())
    assert {"/api/v1/audit", "/api/v1/storage", "/api/v1/me/data", "/people", "/projects/new"} <= closed


def test_accounts_are_of_no_project(program: Callable[[str], Program], both: Both) -> None:  # noqa: F811
    (ours, _), with_key = both, program("everyday")
    for (method, path), rule in rules().items():
        if rule in {MANAGER, SITE_ADMIN_BROWSER}:
            response = with_key(method, re.sub(r"{\w+}", ours["account_id"], path))
            assert response.status_code in {401, 403} or "/sign-in" in response.headers["location"], (method, path)


Work = dict[tuple[str, str], dict[str, Any]]  # method and address -> what is sent there


def begin_work(person: Person, project: Project, session: Session) -> Ids:
    """One of everything that a labeler may have in their hands."""
    project.task_weights = {"rank": 1, "write": 1, "converse": 1}
    add_slate(session, project, prompt=f"First of {project.slug}")
    add_slate(session, project, prompt=f"Second of {project.slug}")
    api = f"/api/v1/projects/{project.slug}"
    (first,) = take(person, project)
    ranking_id = submit(person, first).json()["id"]
    (lease,) = take(person, project)
    first_one = person.post(f"{api}/writings", json={"task": "plain"}).json()["writing"]["id"]
    submission = {"submission_id": str(uuid4()), "content": {"prompt": project.slug, "answer": "So."}}
    assert person.post(f"/api/v1/writings/{first_one}/demonstration", json=submission).status_code == 201
    talk = person.post(f"{api}/writings", json={"task": "converse"}).json()["writing"]["id"]
    turn = {"turn_id": str(uuid4()), "text": f"Hi from {project.slug}"}
    assert person.post(f"{api}/conversations/{talk}/turns", json=turn).status_code == 201
    return {
        "lease_id": lease["id"],
        "completions": " ".join(ids(lease)),
        "ranking_id": ranking_id,
        "submission_id": submission["submission_id"],
        "writing_id": person.post(f"{api}/writings", json={"task": "plain"}).json()["writing"]["id"],
        "talk_id": talk,
        "turn_id": turn["turn_id"],
        "suggestion_id": str(uuid4()),
    }


def acts_on(work: Ids, slug: str) -> Work:
    """Everything that can be done to it, below no project's address and below that of `slug`; what ends it last."""
    written = {"prompt": "Say it.", "answer": "So."}
    ranks = dict.fromkeys(work["completions"].split(), 1)
    lease, writing, talk = (work[name] for name in ("lease_id", "writing_id", "talk_id"))
    fields = {"lease_id": lease, "ranking_id": str(uuid4()), **{f"rank:{each}": "1" for each in ranks}}
    root, api = f"/projects/{slug}", "/api/v1"
    taken_back = f"demonstrations/{work['submission_id']}/retraction"
    turn = {"turn_id": work["turn_id"], "do": "withdraw"}
    return {
        ("PUT", f"{api}/leases/{lease}/draft"): {"json": {"revision": 0, "content": {"note": "mine"}}},
        ("POST", f"{api}/leases/{lease}/renewal"): {},
        ("PUT", f"{api}/writings/{writing}/draft"): {"json": {"revision": 0, "content": written}},
        ("POST", f"{api}/writings/{writing}/look"): {"json": {"content": written}},
        ("POST", f"{api}/writings/{writing}/suggestions"): {"json": {"content": written}},
        ("GET", f"{api}/writings/{writing}/suggestions/{work['suggestion_id']}"): {},
        ("POST", f"{api}/turns/{work['turn_id']}/choice"): {
            "json": {"ranking_id": str(uuid4()), "chosen": str(uuid4()), "ranks": ranks}
        },
        ("GET", f"{root}/conversations/{talk}/live"): {},
        ("GET", f"{root}/conversations/{talk}/events"): {},
        ("POST", f"{root}/conversations/{talk}"): {"data": turn},
        ("POST", f"{api}/projects/{slug}/conversations/{talk}/turns"): {
            "json": {"turn_id": str(uuid4()), "text": "Hm"}
        },
        ("POST", f"{api}/turns/{work['turn_id']}/withdrawal"): {},
        ("POST", f"{api}/conversations/{talk}/end"): {},
        ("POST", f"{api}/rankings/{work['ranking_id']}/retraction"): {"json": {"correct": False}},
        ("POST", f"{root}/{taken_back}"): {},
        ("POST", f"{api}/{taken_back}"): {},
        ("POST", f"{root}/rank"): {"data": fields},
        ("POST", f"{api}/leases/{lease}/ranking"): {"json": {"ranking_id": str(uuid4()), "ranks": ranks}},
        ("POST", f"{api}/leases/{lease}/skip"): {"json": {"kind": "skip", "reason": "x"}},
        ("POST", f"{root}/write/plain"): {"data": {"writing_id": writing, "submission_id": str(uuid4()), **written}},
        ("POST", f"{api}/writings/{writing}/demonstration"): {
            "json": {"submission_id": str(uuid4()), "content": written}
        },
        ("POST", f"{api}/writings/{writing}/skip"): {"json": {"reason": "x"}},
    }


def test_the_same_persons_work_in_another_project_is_not_found(
    worker: Person,
    program: Callable[[str], Program],
    session: Session,
    one_message: None,
) -> None:
    projects = {slug: session.scalars(select(Project).where(Project.slug == slug)).one() for slug in FOUND_AT}
    work = {slug: begin_work(worker, project, session) for slug, project in projects.items()}
    tried = {path for _, path in acts_on(dict.fromkeys(work["theirs"], "{id}"), "{slug}")}
    named = {re.sub(r"{(?!slug)\w+}", "{id}", path) for _, path in of_persons()}
    assert named <= tried
    before = held(session, "theirs")
    for below in FOUND_AT:  # by the address of either project
        for (method, path), sent in acts_on(work["theirs"], below).items():
            answer = program("everyday")(method, path, **sent)
            assert answer.status_code == 404, (method, path, answer.text)
    assert held(session, "theirs") == before
    for (method, path), sent in acts_on(work["everyday"], "everyday").items():
        if "/suggestions/" not in path:  # nobody asked for this one
            answer = program("everyday")(method, path, **sent)
            assert answer.status_code not in {403, 404, 500}, (method, path, answer.text)
    assert held(session, "theirs") == before


FOUND_AT = ("everyday", "theirs")


def of_persons() -> list[tuple[str, str]]:
    """Addresses that name somebody's own work."""
    persons = {"lease_id", "writing_id", "turn_id", "submission_id"}
    return [each for each in rules() if persons & set(names(each[1])) or "/rankings/{ranking_id}/retraction" in each[1]]


@pytest.mark.parametrize("scope", list(KeyScope))
def test_a_key_of_a_project_is_no_wider_for_it(
    app: FastAPI,
    labeler: Person,
    project: Project,
    session: Session,
    scope: KeyScope,
) -> None:
    secret = service.create_key(session, session.merge(labeler.account), "key", scope=scope, project=project)
    session.commit()
    headers = {"authorization": f"Bearer {secret}"}
    assert Person(app).get("/api/v1/projects/everyday/members", headers=headers).status_code == 403
    leased = Person(app).post("/api/v1/projects/everyday/leases", json={"wanted": 1}, headers=headers)
    assert leased.status_code == (403 if scope is KeyScope.READ else 200)


def test_a_site_admins_key_of_a_project_opens_no_folder_of_the_trainers_machine(
    program: Callable[[str], Program],
    worker: Person,
    both: Both,  # noqa: F811
) -> None:
    ours, _ = both
    asked = {"snapshot_id": int(ours["snapshot_id"]), "model": "/etc"}
    path = "/api/v1/projects/everyday/reward-evaluations"
    refused = program("everyday")("POST", path, json=asked)
    assert (refused.status_code, refused.json()["code"]) == (403, "role_too_low")
    assert worker.post(path, json=asked).status_code == 201

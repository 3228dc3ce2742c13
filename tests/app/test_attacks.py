"""What an attacker types: markup, templates, SQL and paths, in every field that is shown and in every query."""

import json
import logging
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from starlette.requests import Request

from app.labeling.models import Completion
from app.monitoring.logs import TextFormatter
from app.people.models import Account, Role
from app.projects.models import Project
from tests.app.conftest import Person
from tests.app.labeling.conftest import MakeSlate, make_slate, submit, take  # noqa: F401
from tests.app.test_access import routes, rules
from tests.app.test_objects_of_others import WITHIN_A_PROJECT, Ids, fill, fill_project, names

# Breaks out of an attribute, a text, a script, a template of Jinja and a string of SQL.
EVIL = """'"></script><script>alert(1)</script><img src=x onerror=alert(1)>{{7*191}}{%raw%}${7*191}' OR '1'='1'--"""
MARKDOWN = (
    "[a](javascript:alert(1)) ![b](data:text/html,<script>alert(1)</script>) <javascript:alert(1)>\n\n"
    f"```html\n{EVIL}\n```\n\n$$\\href{{javascript:alert(1)}}{{x}}$$\n\n{EVIL}"
)
ALLOWED_SCHEMES = {"", "http", "https", "mailto"}


class Acting(HTMLParser):
    """What of a page could act: scripts that are not files of ours, handlers, addresses that run something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "script" and not given.get("src", "").startswith("/static/"):
            self.found.append(f"script {given}")
        if tag in {"iframe", "object", "embed", "base", "style", "foreignobject", "applet"}:
            self.found.append(tag)
        for name, value in given.items():
            if name.startswith("on") or name in {"style", "srcdoc"}:
                self.found.append(f"{tag} {name}")
            is_address = name in {"href", "src", "action", "formaction", "xlink:href", "data", "poster"}
            scheme = re.match(r"[\s\x00-\x20]*([a-z][a-z0-9+.-]*):", value.lower())
            if is_address and scheme is not None and scheme[1] not in ALLOWED_SCHEMES:
                self.found.append(f"{tag} {name}={value}")


def test_the_search_for_what_acts_finds_it() -> None:
    assert Acting("<a href=' javascript:x'><p onclick=x><script>1</script><svg style=x>").found == [
        "a href= javascript:x",
        "p onclick",
        "script {}",
        "svg style",
    ]
    assert Acting('<script type="module" src="/static/base.js"></script><a href="/x">').found == []


def is_harmless(page: str) -> bool:
    return Acting(page).found == [] and "1337" not in page  # 7 times 191: no template computed it


@pytest.fixture
def poisoned(session: Session, project: Project, person: Callable[..., Person]) -> Ids:
    """A project in which everything that somebody can type is an attack."""
    tara = person("Tara", project, Role.LABELER).account
    assert tara is not None
    found = fill_project(session, project, tara)
    project.name, project.flags = EVIL, [EVIL]
    project.use_cases = [EVIL]
    project.task_weights = {"rank": 1, "compare": 1, "answer": 1, "write": 1, "converse": 1}
    session.merge(tara).name = EVIL
    session.execute(
        text(
            "UPDATE prompt SET messages = jsonb_build_array(jsonb_build_object('role', 'user', 'content',"
            " CAST(:evil AS text)))"
        ),
        {"evil": MARKDOWN},
    )
    # Labels and what was judged are append-only by triggers, and an attacker's text comes before those.
    session.execute(text("SET session_replication_role = replica"))
    for statement in (
        "UPDATE completion SET text = :evil",
        "UPDATE guidelines SET markdown = :evil",
        "UPDATE ranking SET note = :evil",
        "UPDATE ranking_item SET note = CAST(:evil AS text), flags = jsonb_build_array(CAST(:evil AS text))",
        "UPDATE dataset_import SET file_name = :evil",
        "UPDATE snapshot SET name = :evil || id",
        "UPDATE reward_evaluation SET checkpoint = checkpoint || :evil",
        "UPDATE alarm SET evidence = :evil, note = :evil",
        "UPDATE webhook SET url = url || '/' || :evil",
        "UPDATE delivery SET last_answer = :evil, last_error = :evil",
        "UPDATE reference_ranking SET reason = :evil",
        "UPDATE stage_event SET text = :evil",
        "UPDATE labeler SET external_id = :evil || id WHERE external_id IS NOT NULL",
        "UPDATE sign_in_session SET user_agent = :evil",
    ):
        session.execute(text(statement), {"evil": MARKDOWN})
    session.execute(text("SET session_replication_role = origin"))
    session.commit()
    return found


def pages(ids: Ids) -> list[str]:
    """The address of each page that this project has."""
    found = [
        path
        for method, path in rules()
        if method == "GET" and not path.startswith(("/api/", "/static/", "/sign-in/sso"))
    ]
    known = set(ids) | WITHIN_A_PROJECT - {"kind", "try_number", "key", "metric"}
    return [path for path in found if set(names(path)) <= known]


def test_no_text_that_somebody_typed_acts_on_any_page(
    site_admin: Person, labeler: Person, poisoned: Ids, one_message: None
) -> None:
    acting, shown = {}, 0
    for path in pages(poisoned):
        for reader in (site_admin, labeler):
            response = reader.get(fill(path, poisoned))
            assert response.status_code < 500, (path, response.status_code)
            if response.headers.get("content-type", "").startswith("text/html"):
                shown += "alert(1)" in response.text
                if not is_harmless(response.text):
                    acting[path] = Acting(response.text).found
    assert acting == {}
    assert shown > 60  # it stands there, as a text


def test_no_query_acts_on_any_page_or_reaches_the_database_as_sql(
    site_admin: Person, poisoned: Ids, one_message: None, session: Session
) -> None:
    num_accounts = len(session.scalars(select(Account.id)).all())
    for path in pages(poisoned):
        dependant = routes()["GET", path]
        queries = set() if dependant is None else {parameter.alias for parameter in all_queries(dependant)}
        response = site_admin.get(fill(path, poisoned), params=dict.fromkeys(queries or {"q"}, EVIL))
        assert response.status_code < 500, (path, queries)
        is_page = response.headers.get("content-type", "").startswith("text/html")
        assert not is_page or is_harmless(response.text), path
    assert len(session.scalars(select(Account.id)).all()) == num_accounts


def all_queries(dependant: Any) -> list[Any]:
    return [*dependant.query_params, *(each for inner in dependant.dependencies for each in all_queries(inner))]


def test_what_a_labeler_sends_is_a_text_to_whoever_reads_it(
    labeler: Person,
    researcher: Person,
    project: Project,
    session: Session,
    make_slate: MakeSlate,  # noqa: F811
) -> None:
    make_slate([EVIL, MARKDOWN, f"x{EVIL}", f"y{EVIL}"], prompt=MARKDOWN)
    (lease,) = take(labeler, project)
    assert is_harmless(labeler.get("/projects/everyday/rank").text)
    noted = {completion["id"]: EVIL for completion in lease["completions"]}
    assert submit(labeler, lease, notes=noted, note=EVIL).status_code == 201
    slate_id = session.scalars(select(Completion.slate_id)).first()
    page = researcher.get(f"/projects/everyday/slates/{slate_id}")
    assert page.status_code == 200
    assert "alert(1)" in page.text
    assert is_harmless(page.text)


# Files


NAMES = ["../../../etc/passwd", "..\\..\\boot.ini", f"{EVIL}.jsonl", "a\r\nX-Evil: 1.jsonl", "/dev/stdin", "x" * 3000]


@pytest.mark.parametrize("name", NAMES, ids=["up", "up on Windows", "markup", "header", "device", "long"])
def test_the_name_of_a_file_is_only_a_text(researcher: Person, project: Project, name: str) -> None:
    line = json.dumps({"prompt": "Hi", "chosen": "a", "rejected": "b"}).encode()
    answer = researcher.post(
        "/api/v1/projects/everyday/imports", files={"file": (name, line)}, data={"what": "rankings", "format": "trl"}
    )
    assert answer.status_code in {200, 201, 202, 422}, answer.text
    listed = researcher.get("/projects/everyday/datasets/imports")
    assert listed.status_code == 200
    assert is_harmless(listed.text)
    assert "x-evil" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        "/static/../../app/main.py",
        "/static/..%2f..%2fapp%2fmain.py",
        "/static/%2e%2e/%2e%2e/app/main.py",
        "/static/....//....//app/main.py",
        "/static/0123456789ab/..%2f..%2f..%2fapp%2fmain.py",
        "/static/0123456789ab//etc/passwd",
        "/static//etc/passwd",
        "/static/style.css%00.png",
        "/projects/..%2f..%2fetc/policies",
    ],
)
def test_no_address_leads_out_of_the_static_files(admin: Person, path: str) -> None:
    response = admin.get(path)
    assert response.status_code == 404
    assert "create_app" not in response.text
    assert "root:" not in response.text


@pytest.mark.parametrize("name", ['a";\r\nX-Evil: 1', "../../up", "ünïcode \U0001f600", "a/b\\c"])
def test_a_snapshots_name_is_no_header_and_no_path(
    researcher: Person, session: Session, project: Project, person: Callable[..., Person], name: str
) -> None:
    tara = person("Tara", project, Role.LABELER).account
    assert tara is not None
    ids = fill_project(session, project, tara)
    session.execute(text("SET session_replication_role = replica"))
    session.execute(text("UPDATE snapshot SET name = :name WHERE id = :id"), {"name": name, "id": ids["snapshot_id"]})
    session.execute(text("SET session_replication_role = origin"))
    session.commit()
    response = researcher.get(f"/projects/everyday/datasets/snapshots/{ids['snapshot_id']}/export")
    assert response.status_code == 200
    assert "x-evil" not in response.headers
    file_name = re.search(r'filename="([^"]*)"', response.headers["content-disposition"])
    assert file_name is not None
    assert not set("/\\\r\n") & set(file_name[1])


@pytest.mark.parametrize(
    "body",
    [b"[" * 200_000, b'{"a":' * 100_000, b"9" * 100_000, b'{"wanted": 1e999}', b"\xff\xfe", b'{"wanted": NaN}'],
    ids=["deep lists", "deep objects", "a long number", "infinity", "no text", "not a number"],
)
def test_json_that_is_deep_or_no_json_is_refused(labeler: Person, project: Project, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    response = labeler.post("/api/v1/projects/everyday/leases", content=body, headers=headers)
    assert response.status_code in {400, 422}
    assert response.headers["content-type"] == "application/problem+json"


# Headers


def test_no_other_site_shows_our_pages_in_a_frame_or_takes_our_forms(labeler: Person) -> None:
    headers = labeler.get("/").headers
    policy = dict(clause.split(" ", 1) for clause in headers["content-security-policy"].split("; "))
    assert (policy["frame-ancestors"], headers["x-frame-options"]) == ("'none'", "DENY")
    assert (policy["form-action"], policy["base-uri"]) == ("'self'", "'none'")


@pytest.mark.parametrize("host", ["evil.example", "evil.example/x?", "testserver@evil.example"])
def test_no_link_that_we_hand_out_goes_where_a_host_header_says(
    admin: Person, app: FastAPI, project: Project, host: str
) -> None:
    app.state.settings = app.state.settings.model_copy(update={"public_url": "https://podium.example.org"})
    secure = Person(app, admin.account)
    secure.base_url = "https://podium.example.org"
    secure.cookies.set("__Host-podium_session", admin.token or "")
    headers = {"host": host, "x-forwarded-host": host, "x-csrf-token": admin.csrf_token or ""}
    made = secure.post("/api/v1/projects/everyday/invitations", json={"role": "labeler"}, headers=headers)
    assert made.status_code == 201, made.text
    assert made.json()["url"].startswith("https://podium.example.org/invitations/")


# Logs


@pytest.mark.parametrize("page", ["invitations", "reset"])
@pytest.mark.parametrize("error", [OperationalError("x", {}, Exception("gone")), RuntimeError("unforeseen")])
def test_no_link_that_still_works_stands_in_a_log(
    app: FastAPI, caplog: pytest.LogCaptureFixture, page: str, error: Exception
) -> None:
    token = "A" * 43
    scope = {
        "type": "http",
        "method": "GET",
        "path": f"/{page}/{token}",
        "query_string": b"",
        "headers": [],
        "app": app,
        "state": {"request_id": "0123456789abcdef"},  # as the middleware gives each its own
        "scheme": "http",
        "server": ("testserver", 80),
        "root_path": "",
    }
    handler = app.exception_handlers[OperationalError if isinstance(error, OperationalError) else Exception]
    with caplog.at_level(logging.DEBUG):
        handler(Request(scope), error)
    written = "\n".join(map(TextFormatter("web").format, caplog.records))
    assert f"/{page}/" in written
    assert token not in written

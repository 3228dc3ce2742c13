"""Every error has an answer: a problem for programs, a page for people."""

import asyncio
import importlib
import pkgutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import create_engine, text

import app as package
from app import db
from app.errors import HTTP_STATUS, PodiumError, status_of
from app.main import create_app
from app.people.models import Membership
from tests.app.conftest import Person


def subclasses(of: type[PodiumError]) -> Iterator[type[PodiumError]]:
    for each in of.__subclasses__():
        yield each
        yield from subclasses(each)


@pytest.fixture
def unreachable_database(app):
    """The product, connected to a server that is not there."""
    bind = db.SessionFactory.kw["bind"]
    nowhere = create_engine("postgresql+psycopg://podium@127.0.0.1:9/podium", connect_args={"connect_timeout": 2})
    db.SessionFactory.configure(bind=nowhere)
    yield
    db.SessionFactory.configure(bind=bind)
    nowhere.dispose()


def test_the_table_of_statuses_speaks_of_errors_that_exist():
    for module in pkgutil.walk_packages(package.__path__, "app."):
        if module.name.endswith("errors"):
            importlib.import_module(module.name)
    importlib.import_module("app.security")
    codes = {error.code for error in subclasses(PodiumError)}
    assert set(HTTP_STATUS) - codes == set()


def test_an_error_takes_the_status_of_its_nearest_named_ancestor():
    class Absent(PodiumError):
        code = "not_found"

    class AbsentSlate(Absent):
        code = "a_code_without_a_status"

    assert status_of(AbsentSlate("There is none.")) == 404
    assert status_of(PodiumError("Not now.")) == 409


def test_programs_get_a_problem_with_a_stable_code(labeler, project):
    response = labeler.get("/api/v1/projects/everyday/members")
    assert response.status_code == 403
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["status"], problem["code"]) == (403, "role_too_low")
    assert "admin" in problem["detail"]


def test_people_get_a_page_with_their_navigation_and_the_next_move(labeler, project):
    response = labeler.get("/projects/everyday/people")
    assert response.status_code == 403
    assert "ask an admin of the project" in response.text
    assert 'href="/projects/everyday/rank"' in response.text
    assert "Nothing was changed" in response.text


def test_a_key_that_is_wrong_says_how_to_come_in(visitor):
    response = visitor.get("/api/v1/me", headers={"authorization": "Bearer podium_nothing"})
    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")


def test_a_form_sent_after_the_session_ended_is_not_lost(labeler, session):
    from app.people import sessions

    sessions.end_sessions(session, labeler.account, now=db.clock(session))
    session.commit()
    response = labeler.post("/account/keys", data={"name": "mine"})
    assert response.status_code == 401
    assert 'target="_blank"' in response.text  # sign in beside the form, which is still there behind Back


def test_a_request_that_was_not_understood_names_the_fields(admin, project):
    problem = admin.post("/api/v1/projects/everyday/invitations", json={"role": "queen"}).json()
    assert (problem["status"], problem["code"]) == (422, "invalid_request")
    assert problem["errors"][0]["field"] == "role"


@pytest.mark.parametrize("method", ["get", "post"])
def test_a_database_that_cannot_be_reached_is_said_so_on_a_page(visitor, unreachable_database, method):
    visitor.cookies.set("podium_session", "any")
    response = getattr(visitor, method)("/account/keys" if method == "post" else "/")
    assert response.status_code == 503
    assert "what was saved before is safe" in response.text
    assert response.headers["retry-after"] == "5"


def test_a_database_that_cannot_be_reached_is_said_so_to_programs(visitor, unreachable_database):
    response = visitor.get("/api/v1/me", headers={"authorization": "Bearer podium_x"})
    assert (response.status_code, response.json()["code"]) == (503, "database_unreachable")


def test_without_a_database_the_process_lives_and_is_not_ready(visitor, unreachable_database):
    assert visitor.get("/healthz").status_code == 200
    assert visitor.get("/readyz").status_code == 503


def test_with_a_database_the_process_is_ready(visitor):
    assert visitor.get("/readyz").text == "ready\n"


@pytest.mark.parametrize("path", ["/broken", "/api/v1/broken"])
def test_what_nobody_expected_gets_a_reference_and_keeps_its_secrets(engine, settings, path, caplog):
    app = create_app(settings)

    @app.get(path)
    def broken() -> None:
        raise RuntimeError("the password is hunter2")

    with Person(app) as client:
        client._transport.raise_server_exceptions = False
        response = client.get(path)
    assert response.status_code == 500
    assert "hunter2" not in response.text
    assert "content-security-policy" in response.headers
    reference = caplog.text.split("reference=")[1].split(" ")[0]
    assert reference in response.text


def test_a_browser_that_hangs_up_while_it_sends_a_form_is_no_error_of_ours(labeler, app, caplog):
    received = iter([{"type": "http.request", "body": b"name=mi", "more_body": True}, {"type": "http.disconnect"}])
    sent = []

    async def receive():
        return next(received)

    async def send(message):
        sent.append(message)

    kind, cookies = b"application/x-www-form-urlencoded", "; ".join(f"{k}={v}" for k, v in labeler.cookies.items())
    headers = [(b"content-type", kind), (b"cookie", cookies.encode())]
    scope = {"type": "http", "method": "POST", "path": "/account/keys", "query_string": b"", "headers": headers}
    scope |= {"scheme": "http", "server": ("testserver", 80), "client": ("testclient", 1), "root_path": "", "app": app}
    with ThreadPoolExecutor() as pool:  # a browser of another test may have its loop in this thread
        pool.submit(asyncio.run, app(scope, receive, send)).result()
    assert sent[0]["status"] == 400
    assert not caplog.records


def test_a_value_that_cannot_be_stored_is_not_repeated_in_the_log(engine, settings, caplog):
    app = create_app(settings)

    @app.get("/broken")
    def broken() -> None:
        with db.SessionFactory() as session:
            session.execute(text("SELECT CAST(CAST(:given AS text) AS int)"), {"given": "what I think"})

    with Person(app) as client:
        assert client.get("/broken").status_code == 422
    assert "invalid input syntax for type integer" in caplog.text
    assert "what I think" not in caplog.text


def test_a_page_that_does_not_exist_is_a_page(visitor):
    response = visitor.get("/nowhere")
    assert (response.status_code, "There is nothing here" in response.text) == (404, True)


def test_a_page_that_is_closed_for_now_says_so_and_nothing_of_forms(labeler, session, project):
    membership = session.query(Membership).filter_by(account_id=labeler.account.id).one()
    membership.paused_at = db.clock(session)
    session.commit()
    page = labeler.get("/projects/everyday/rank").text
    assert "<h1>You are paused in this project</h1>" in page
    assert 'href="/projects/everyday/mine">Read why' in page
    assert "What you typed" not in page
    refused = labeler.post("/projects/everyday/rank", data={"lease_id": "none"}).text
    assert "What you typed is still in the form" in refused


@pytest.mark.parametrize("query", ["what=%00", f"before={'9' * 20}", "until=9999-12-31"])
def test_values_that_no_database_holds_are_the_askers_to_correct(site_admin, query):
    response = site_admin.get(f"/audit?{query}")
    assert response.status_code == 422
    assert "Traceback" not in response.text

"""Every request has an id that a person can quote, and a line in the log where one was asked for."""

import json
import logging
import re

import pytest
from fastapi import FastAPI

from app.main import create_app
from app.monitoring.logs import JsonFormatter
from app.monitoring.requests import templates_of
from app.settings import Settings
from tests.app.conftest import Person


def access_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "app.access"]


@pytest.fixture
def logging_all(engine, tmp_path) -> FastAPI:
    return create_app(Settings(home=tmp_path, access_log="all"))


def test_each_request_has_an_id_of_its_own(visitor):
    first, second = (visitor.get("/sign-in").headers["x-request-id"] for _ in range(2))
    assert first != second
    assert re.fullmatch("[0-9a-f]{16}", first)


def test_the_id_that_a_proxy_gave_is_kept(visitor):
    given = "01JD8Z4Q-7f.a_b:c"
    assert visitor.get("/sign-in", headers={"x-request-id": given}).headers["x-request-id"] == given


@pytest.mark.parametrize(
    "given",
    ["short", "a" * 65, "has spaces in it", "<script>alert(1)</script>", "-begins-with-a-dash", "größe-größe"],
    ids=["short", "long", "spaces", "script", "dash", "not-ascii"],
)
def test_an_id_that_could_not_stand_in_a_log_is_not_taken(visitor, given):
    answered = visitor.get("/sign-in", headers={"x-request-id": given.encode()}).headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{16}", answered)


def test_an_errors_page_shows_the_id(visitor):
    response = visitor.get("/nowhere", headers={"x-request-id": "quote-me-please"})
    assert "<code>quote-me-please</code>" in response.text


def test_a_problem_tells_the_id_to_programs(visitor):
    response = visitor.get("/api/v1/me", headers={"authorization": "Bearer podium_nothing"})
    assert response.json()["request_id"] == response.headers["x-request-id"]


def test_what_nobody_expected_is_logged_and_answered_under_the_same_id(engine, settings, caplog):
    app = create_app(settings)

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError

    with Person(app) as client:
        client._transport.raise_server_exceptions = False
        response = client.get("/broken", headers={"x-request-id": "the-broken-one"})
    assert response.headers["x-request-id"] == "the-broken-one"
    assert "the-broken-one" in response.text
    assert "reference=the-broken-one" in caplog.text
    assert any("path=/broken status=500" in line for line in access_lines(caplog))


def test_ordinary_requests_are_not_logged_unless_that_is_asked_for(visitor, caplog):
    with caplog.at_level(logging.INFO, "app.access"):
        visitor.get("/sign-in")
        visitor.get("/nowhere")
    assert access_lines(caplog) == []


def test_all_requests_are_logged_where_that_is_asked_for(logging_all, caplog):
    with caplog.at_level(logging.INFO, "app.access"), Person(logging_all) as visitor:
        visitor.get("/sign-in?next=/my-secret")
    assert re.fullmatch(
        r"method=GET path=/sign-in status=200 waited_ms=[\d.]+ took_ms=[\d.]+ bytes=\d{3,}", access_lines(caplog)[0]
    )


def test_slow_requests_are_logged(visitor, caplog, monkeypatch):
    monkeypatch.setattr("app.monitoring.requests.SLOW_S", 0.0)
    with caplog.at_level(logging.INFO, "app.access"):
        visitor.get("/sign-in")
    assert len(access_lines(caplog)) == 1


def test_an_address_forges_no_line_and_no_fact(logging_all, caplog):
    with caplog.at_level(logging.INFO, "app.access"), Person(logging_all) as visitor:
        visitor.get("/x%0A2026-11-21%20INFO%20app.access%20path=/%20status=200")
    (line,) = access_lines(caplog)
    assert "path=/x%0A2026-11-21%20INFO" in line
    assert line.count(" status=") == 1


def test_no_one_time_token_is_logged_wherever_an_address_has_one(logging_all, caplog):
    with_tokens = sorted({path for path in templates_of(logging_all).values() if "{token}" in path})
    assert len(with_tokens) >= 2
    with caplog.at_level(logging.INFO, "app.access"), Person(logging_all) as visitor:
        for path in with_tokens:
            visitor.get(path.replace("{token}", "hF7-the_token"))
            visitor.get(path.replace("{token}", "hF7-the_token") + "/")
    assert len(access_lines(caplog)) == 2 * len(with_tokens)
    assert "hF7-the_token" not in "\n".join(access_lines(caplog))


def test_what_is_logged_during_a_request_carries_its_id(engine, settings):
    app = create_app(settings)
    lines: list[dict[str, object]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(self.format(record)))

    handler, log = Keep(), logging.getLogger("app.tests")
    handler.setFormatter(JsonFormatter("web"))

    @app.get("/in-a-thread")
    def in_a_thread() -> str:
        log.warning("in a thread")
        return ""

    @app.get("/in-the-loop")
    async def in_the_loop() -> str:
        log.warning("in the loop")
        return ""

    log.addHandler(handler)
    try:
        with Person(app) as client:
            client.get("/in-a-thread", headers={"x-request-id": "number-one"})
            client.get("/in-the-loop", headers={"x-request-id": "number-two"})
    finally:
        log.removeHandler(handler)
    assert [(line["message"], line["request"]) for line in lines] == [
        ("in a thread", "number-one"),
        ("in the loop", "number-two"),
    ]

"""People ask until they are answered, and note what nobody should be told."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.faults import person
from tests.faults.person import Person


@pytest.fixture
def statuses() -> list[int]:
    """What the web answers, one after the other."""
    return []


@pytest.fixture
def address(statuses: list[int]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(statuses.pop(0))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *said: object) -> None:
            """Nothing is printed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def somebody(address: str) -> Person:
    return Person("somebody", address, "key", patience_s=5, oddities=[])


def test_whoever_is_told_to_wait_asks_again_and_only_a_crash_is_odd(
    address: str, statuses: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(person, "RETRY_S", 0)
    statuses += [503, 429, 500, 422]
    asker = somebody(address)
    with asker._connected() as http:
        answer = asker._until_answered(http, "GET", "/")
    assert answer is not None
    assert answer.status_code == 422
    assert asker._oddities == ["GET / was answered 500: "]


def test_whoever_asks_once_has_one_answer_or_none(address: str, statuses: list[int]) -> None:
    statuses += [200, 503]
    asker = somebody(address)
    answers = [asker._ask_once("GET", "/") for _ in range(2)]
    assert [answer and answer.status_code for answer in answers] == [200, None]
    assert asker._oddities == []


def test_nobody_waits_longer_than_the_work_goes_on() -> None:
    asker = somebody("http://127.0.0.1:9")  # nobody listens
    asker.stop()
    with asker._connected() as http:
        assert asker._until_answered(http, "GET", "/") is None

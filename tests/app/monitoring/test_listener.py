"""What a sampler and a trainer answer beside their work."""

import socket

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter
from pydantic import SecretStr

from app.monitoring.listener import listening
from app.terminal import CannotStart

TOKEN = "a token of twenty-four letters"
ANYWHERE = "127.0.0.1:0"


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("podium_tests", "Told.", registry=registry).inc(3)
    return registry


def test_metrics_are_told_to_who_has_the_token(registry):
    with listening(ANYWHERE, SecretStr(TOKEN), registry, lambda: True) as address:
        told = httpx.get(f"{address}/metrics", headers={"authorization": f"Bearer {TOKEN}"})
        refused = httpx.get(f"{address}/metrics", headers={"authorization": "Bearer another token"})
    assert (told.status_code, "podium_tests_total 3.0" in told.text) == (200, True)
    assert (refused.status_code, "podium_tests" in refused.text) == (403, False)


def test_without_a_token_only_the_probes_answer(registry):
    with listening(ANYWHERE, None, registry, lambda: True) as address:
        answers = {path: httpx.get(address + path).status_code for path in ("/metrics", "/healthz", "/readyz", "/")}
    assert answers == {"/metrics": 404, "/healthz": 200, "/readyz": 200, "/": 404}


def test_a_process_whose_heart_does_not_beat_lives_and_is_not_ready(registry):
    with listening(ANYWHERE, None, registry, lambda: False) as address:
        assert httpx.get(f"{address}/healthz").status_code == 200
        assert httpx.get(f"{address}/readyz").status_code == 503


def test_a_port_that_is_taken_is_said_in_a_sentence(registry):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(CannotStart, match=f"cannot listen on {place} .*: name another port, or none"):
            listening(place, None, registry, lambda: True).__enter__()


def test_nothing_listens_unless_that_is_asked_for(registry):
    with listening(None, None, registry, lambda: True) as address:
        assert address is None

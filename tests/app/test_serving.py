"""Where a request comes from, with and without proxies in front: what the limits on guessing count by."""

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app import serving
from app.people.models import WrongToken
from app.people.sessions import place_of
from app.settings import Settings

PUBLIC = {"public_url": "https://podium.example.org"}
BRIDGE = {**PUBLIC, "proxies": "172.18.0.1, 10.20.0.0/16"}
SOMEBODY = "203.0.113.7"


def options_of(given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the web server is started with."""
    with monkeypatch.context() as server:
        server.setenv("FORWARDED_ALLOW_IPS", "*")  # of Uvicorn itself: ours is what counts
        server.setattr(serving.uvicorn, "Config", lambda *arguments, **options: options)
        options: Any = serving.configuration(Settings(**given))
    return dict(options)


@pytest.mark.parametrize(
    ("given", "peer", "forwarded", "place"),
    [
        (PUBLIC, "127.0.0.1", SOMEBODY, SOMEBODY),
        (PUBLIC, "::1", SOMEBODY, SOMEBODY),
        (PUBLIC, "::ffff:127.0.0.1", SOMEBODY, SOMEBODY),
        (PUBLIC, "127.0.0.1", None, "127.0.0.1"),
        (PUBLIC, "172.18.0.1", SOMEBODY, "172.18.0.1"),  # a proxy that nobody named
        (PUBLIC, "198.51.100.9", SOMEBODY, "198.51.100.9"),  # a guesser without a proxy
        (BRIDGE, "172.18.0.1", SOMEBODY, SOMEBODY),
        (BRIDGE, "::ffff:172.18.0.1", SOMEBODY, SOMEBODY),
        (BRIDGE, "172.18.0.2", SOMEBODY, "172.18.0.2"),
        (BRIDGE, "127.0.0.1", SOMEBODY, "127.0.0.1"),
        (BRIDGE, "172.18.0.1", f"198.51.100.1, {SOMEBODY}", SOMEBODY),  # the first was written by the guesser
        (BRIDGE, "172.18.0.1", f"198.51.100.1, {SOMEBODY}, 10.20.3.4", SOMEBODY),  # through two proxies
        (BRIDGE, "172.18.0.1", "2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ({"proxies": "172.18.0.1"}, "172.18.0.1", SOMEBODY, "172.18.0.1"),
        ({**PUBLIC, "proxies": ""}, "127.0.0.1", SOMEBODY, "127.0.0.1"),
    ],
)
def test_a_proxy_that_was_named_says_where_a_request_comes_from_and_nobody_else_does(
    app: FastAPI,
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, str],
    peer: str,
    forwarded: str | None,
    place: str,
) -> None:
    options = options_of(given, monkeypatch)
    served: Any = app
    if options["proxy_headers"]:  # as Uvicorn puts it around the app
        served = ProxyHeadersMiddleware(app, trusted_hosts=options["forwarded_allow_ips"])  # type: ignore[arg-type]
    headers = {"authorization": "Bearer podium_wrong", **({"x-forwarded-for": forwarded} if forwarded else {})}
    assert TestClient(served, client=(peer, 50000)).get("/api/v1/me", headers=headers).status_code == 401
    assert session.scalars(select(WrongToken.place)).all() == [place]


@pytest.mark.parametrize("wrong", ["*", "proxy.example.org", "10.20.0.5/16"])
def test_a_proxy_that_is_no_address_stops_the_start(wrong: str) -> None:
    with pytest.raises(ValidationError):
        Settings(proxies=wrong)


def test_ipv4_addresses_as_a_listener_on_ipv6_sees_them_are_places_of_their_own() -> None:
    assert [place_of(f"::ffff:{SOMEBODY}"), place_of("::ffff:203.0.113.8")] == [SOMEBODY, "203.0.113.8"]

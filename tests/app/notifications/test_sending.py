"""Where a webhook may go, how it is signed, and what is kept of an answer."""

import socket
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from pydantic import ValidationError

from app.notifications import sending
from app.notifications.errors import BadWebhook
from app.notifications.sending import NotSent, check_url, is_allowed, post
from app.notifications.signing import secret_text, signed_headers
from app.settings import Settings
from tests.app.notifications.receiver import is_signed, receiving, run

LOOPBACK = [ip_network("127.0.0.0/8")]


def test_the_signature_is_that_of_the_specification() -> None:
    """The example of the Standard Webhooks libraries' own tests."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    key = b"1\xf2\x90\xf6\xbf\x06)\x8a\xabO\x08\xd4<?\x08,\xf6H\xa3b\xda-\xa4\xb0"
    assert secret_text(key) == secret
    headers = signed_headers([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert is_signed(headers, body, secret)


def test_two_secrets_sign_side_by_side() -> None:
    headers = signed_headers([b"n" * 32, b"o" * 32], "msg_1", 1, b"{}")
    assert is_signed(headers, b"{}", secret_text(b"n" * 32))
    assert is_signed(headers, b"{}", secret_text(b"o" * 32))
    assert not is_signed(headers, b"{ }", secret_text(b"n" * 32))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",  # where clouds answer with credentials
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "ff02::1",
        "fec0::1",  # site-local, which is no more
        "::ffff:10.0.0.1",
        "::ffff:0:10.0.0.1",  # translated: RFC 2765
        "::ffff:0:93.184.215.14",
        "::10.0.0.1",  # compatible: RFC 4291
        "::127.0.0.1",
        "2002:a00:1::",
        "64:ff9b::a00:1",
        "64:ff9b:1::a00:1",  # translated by the network's own: RFC 8215
        "64:ff9b:1:a00:0:100::",
        "5f00::1",
    ],
)
def test_private_addresses_are_refused(address: str) -> None:
    assert not is_allowed(ip_address(address), [])


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "64:ff9b::5db8:d70e"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert is_allowed(ip_address(address), [])


def test_a_refused_network_is_not_reached_but_where_it_is_named() -> None:
    """2001:db8 is for documents, and private: a translator's own prefix is of the operator's public addresses."""
    translator, of_the_office = ip_network("2606:2800:64::/96"), ip_network("93.184.216.0/24")
    refused = [translator, of_the_office]
    assert is_allowed(ip_address("2606:2800:64::a00:1"), [])
    for address in ("2606:2800:64::a00:1", "2606:2800:64::5db8:d70e", "93.184.216.34", "::ffff:93.184.216.34"):
        assert not is_allowed(ip_address(address), [], refused)
    assert is_allowed(ip_address("2606:2800:65::1"), [], refused)
    assert not is_allowed(ip_address("64:ff9b::5db8:d70e"), [], [ip_network("64:ff9b::/96")])  # as it stands, too
    assert is_allowed(ip_address("2606:2800:64::5db8:d70e"), [ip_network("2606:2800:64::5db8:d70e/128")], refused)


@pytest.mark.parametrize("setting", ["webhook_networks", "webhook_refused"])
def test_what_is_no_network_is_said_at_the_start_and_not_when_a_webhook_is_sent(setting: str) -> None:
    with pytest.raises(ValidationError, match=setting):
        Settings(**{setting: "10.20.0.300/16"})


def test_a_named_network_is_allowed_and_its_neighbour_is_not() -> None:
    networks = [ip_network("10.20.0.0/16"), ip_network("fd00::/8")]
    assert is_allowed(ip_address("10.20.3.4"), networks)
    assert is_allowed(ip_address("::ffff:10.20.3.4"), networks)
    assert not is_allowed(ip_address("10.21.0.1"), networks)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example.org",
        "ftp://example.org",
        "file:///etc/passwd",
        "https://",
        "https://me:pw@example.org/",
        "http://a b/",
        "https://example.org/#top",
        "https://example.org/" + "x" * 2000,
        "http://[::1",
        "http://[fe80::1%25eth0]/",
        "https://hooks..example.org/x",
        "https://.example.org/",
        "https://./",
        "https://" + "a" * 64 + ".org/",
        "https://" + ".".join(["a" * 60] * 5) + "/",
        "https://xn--zzzzzz99999.org/",
        "https://exa%20mple.org/",
        "https://example.org:99999/",
        "https://example.org:0/",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(BadWebhook):
        check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://" + "a" * 63 + ".org:65535/x?y=z",
        "https://hooks.example.org.:443/",
        "https://bücher.example/",
        "http://podium_bot:8080/",
        "http://192.168.1.7:1/",
        "http://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]:8080/",
    ],
)
def test_what_can_be_looked_up_is_an_address(url: str) -> None:
    assert check_url(url) == url


def test_a_refused_address_says_what_is_wrong_with_it() -> None:
    with pytest.raises(BadWebhook, match=r"hooks\.\.example\.org is no name of a host"):
        check_url("https://hooks..example.org/x")
    with pytest.raises(BadWebhook, match="99999 is no port"):
        check_url("https://example.org:99999/")


def test_a_private_address_is_not_even_connected_to() -> None:
    with receiving() as receiver:
        with pytest.raises(NotSent, match=r"127\.0\.0\.1 is a private address"):
            run(post(receiver.url, {}, b"{}", []))
        assert receiver.received == []


def test_the_connection_goes_to_the_address_that_was_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that resolves to a harmless address once and to another one later is resolved once."""
    with receiving() as receiver:
        asked = []

        def resolve(host: str, port: int, *arguments: Any, **options: Any) -> list[Any]:
            asked.append(host)
            assert host == "rebinding.example"
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        url = f"http://rebinding.example:{receiver.port}/hook"
        assert run(post(url, {}, b"{}", LOOPBACK)).status == 200
        assert asked == ["rebinding.example"]
        assert receiver.received[0].headers["host"] == f"rebinding.example:{receiver.port}"


def test_a_name_that_resolves_to_a_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    place = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 80))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: [place])
    with pytest.raises(NotSent, match=r"harmless\.example is a private address"):
        run(post("http://harmless.example/", {}, b"{}", []))


def test_redirects_are_not_followed() -> None:
    with receiving() as elsewhere, receiving() as receiver:
        receiver.statuses, receiver.location = [307], elsewhere.url
        answer = run(post(receiver.url, {}, b"{}", LOOPBACK))
        assert (answer.status, answer.is_success, elsewhere.received) == (307, False, [])


def test_of_a_long_answer_the_first_letters_are_kept_and_nothing_that_controls_a_terminal() -> None:
    with receiving() as receiver:
        receiver.answer = b"\x1b[31m" + b"x" * 100_000
        text = run(post(receiver.url, {}, b"{}", LOOPBACK)).text
        assert text == "[31m" + "x" * 195


def test_a_receiver_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connects, and says nothing
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(NotSent, match="no answer within"):
            run(post(url, {}, b"{}", LOOPBACK))


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9/")
    with receiving() as receiver:
        assert run(post(receiver.url, {}, b"{}", LOOPBACK)).is_success

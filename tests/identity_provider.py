"""A small OpenID Connect provider on the loopback, with keys of its own, that can be made to misbehave."""

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT_ID, CLIENT_SECRET = "podium-test", "a secret that no log may hold"


@cache
def key(name: str) -> RSAKey:
    """A signing key of the provider, made once a process: that is slow."""
    return RSAKey.generate_key(2048, {"kid": name, "use": "sig", "alg": "RS256"})


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class IdentityProvider:
    """Signs in `person` whoever comes, without a question. What it says can be changed before it says it."""

    def __init__(self) -> None:
        self.person: dict[str, Any] = {
            "sub": "subject-1",
            "email": "Lena.Labeler@example.org",
            "email_verified": True,
            "name": "Lena of the Provider",
        }
        self.changed_claims: dict[str, Any] = {}  # None takes a claim away
        self.signing_key = self.published_key = "first"
        self.algorithm = "RS256"
        self.error: str | None = None
        self.status_of: dict[str, int] = {}  # path -> what it answers in place of its answer
        self.tells_address_in_userinfo = False
        self.codes: dict[str, dict[str, str]] = {}
        self.asked: list[str] = []
        self.start()

    def start(self, port: int = 0) -> None:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.answer(self, {})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                provider.answer(self, {name: values[0] for name, values in parse_qs(body).items()})

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.issuer = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def go_away(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, request: BaseHTTPRequestHandler, form: dict[str, str]) -> None:
        address = urlsplit(request.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        self.asked.append(address.path)
        if status := self.status_of.get(address.path):
            return self.send(request, status, b"<html>not in the mood</html>", "text/html")
        if address.path == "/authorize":
            request.send_response(303)
            request.send_header("Location", self.authorize(query))
            request.send_header("Content-Length", "0")
            return request.end_headers()
        found = {
            "/.well-known/openid-configuration": self.description,
            "/jwks": lambda: {"keys": [key(self.published_key).as_dict(private=False)]},
            "/userinfo": lambda: self.person,
            "/token": lambda: self.tokens(request.headers.get("authorization", ""), form),
        }[address.path]()
        self.send(request, 400 if "error" in found else 200, json.dumps(found).encode(), "application/json")

    def send(self, request: BaseHTTPRequestHandler, status: int, body: bytes, kind: str) -> None:
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def description(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "end_session_endpoint": f"{self.issuer}/end",
            "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],  # it would; we must not
        }

    def authorize(self, query: dict[str, str]) -> str:
        assert query["response_type"] == "code"
        assert query["client_id"] == CLIENT_ID
        assert query["code_challenge_method"] == "S256"
        assert "openid" in query["scope"].split()
        if self.error:
            return f"{query['redirect_uri']}?{urlencode({'error': self.error, 'state': query['state']})}"
        code = secrets.token_urlsafe(8)
        self.codes[code] = query
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state'], 'iss': self.issuer})}"

    def tokens(self, authorization: str, form: dict[str, str]) -> dict[str, Any]:
        if authorization != "Basic " + base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode():
            return {"error": "invalid_client"}
        begun = self.codes.pop(form["code"], None)
        if begun is None or form["redirect_uri"] != begun["redirect_uri"]:
            return {"error": "invalid_grant"}
        if base64url(hashlib.sha256(form["code_verifier"].encode()).digest()) != begun["code_challenge"]:
            return {"error": "invalid_grant"}
        return {"access_token": "an access token", "token_type": "Bearer", "id_token": self.statement(begun["nonce"])}

    def statement(self, nonce: str) -> str:
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 300, "nonce": nonce, **self.person}
        if self.tells_address_in_userinfo:
            del claims["email"], claims["email_verified"]
        claims = {name: value for name, value in (claims | self.changed_claims).items() if value is not None}
        if self.algorithm != "RS256":
            header = json.dumps({"alg": self.algorithm, "kid": self.published_key}).encode()
            signed = f"{base64url(header)}.{base64url(json.dumps(claims).encode())}"
            public = key(self.published_key).as_pem(private=False)  # which everyone can read
            forged = hmac.digest(public, signed.encode(), "sha256") if self.algorithm == "HS256" else b""
            return f"{signed}.{base64url(forged)}"
        return jwt.encode({"alg": "RS256", "kid": self.published_key}, claims, key(self.signing_key))


@pytest.fixture
def identity_provider() -> Iterator[IdentityProvider]:
    provider = IdentityProvider()
    yield provider
    provider.go_away()

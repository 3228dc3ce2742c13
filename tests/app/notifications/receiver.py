"""A real HTTP server that receives notifications, and checks signatures by an implementation of its own."""

import asyncio
import base64
import hmac
import json
import threading
from collections.abc import Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

Answer = TypeVar("Answer")


@dataclass
class Received:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def content(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.body)
        return content


@dataclass
class Receiver:
    """Answers with the statuses it was given, one after the other, and then with 200; keeps what came."""

    port: int = 0
    statuses: list[int] = field(default_factory=list)
    answer: bytes = b"thank you"
    location: str = ""
    received: list[Received] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)
    holds: threading.Event | None = None  # requests wait for it before they are answered

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?for=podium"


@contextmanager
def receiving(port: int = 0) -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.received.append(Received(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            receiver.arrived.set()
            if receiver.holds is not None:
                receiver.holds.wait(30)
            self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
            if receiver.location:
                self.send_header("Location", receiver.location)
            self.send_header("Content-Length", str(len(receiver.answer)))
            self.end_headers()
            self.wfile.write(receiver.answer)

        def log_message(self, *arguments: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # of five, which is the default, some of a burst would be cut off

    with Server(("127.0.0.1", port), Handler) as server:
        receiver.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            if receiver.holds is not None:
                receiver.holds.set()
            server.shutdown()
            thread.join()


def is_signed(headers: Mapping[str, str], body: bytes, secret: str) -> bool:
    """Whether one of the signatures is right, from the specification alone (Standard Webhooks 1.0.0)."""
    kind, _, encoded = secret.partition("_")
    assert kind == "whsec"
    key = base64.b64decode(encoded, validate=True)
    content = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body])
    expected = base64.b64encode(hmac.digest(key, content, "sha256")).decode()
    return f"v1,{expected}" in headers["webhook-signature"].split(" ")


def run(coroutine: Coroutine[Any, Any, Answer]) -> Answer:
    """In a thread of its own: this one has a loop already when a test before used a browser."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()

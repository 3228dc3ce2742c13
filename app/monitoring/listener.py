"""A small server beside a sampler's or trainer's work: /healthz, /readyz and, to who has the token, /metrics.

Standard library alone, in daemon threads: whatever it is asked, the work goes on.
"""

import logging
import socket
import socketserver
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from app.errors import PodiumError, status_of
from app.monitoring.exposition import check_token, exposition
from app.settings import host_and_port
from app.terminal import CannotStart

log = logging.getLogger(__name__)

TEXT = "text/plain; charset=utf-8"
STATUS_LINES = {200: "200 OK", 403: "403 Forbidden", 404: "404 Not Found", 503: "503 Service Unavailable"}


@contextmanager
def listening(
    place: str | None, token: SecretStr | None, registry: CollectorRegistry, is_ready: Callable[[], bool]
) -> Iterator[str | None]:
    """Answer at `place` within the block, and nowhere where it is None; gives the address. Raises CannotStart."""
    if place is None:
        yield None
        return
    host, port = host_and_port(place)
    server = _server(place, host, port, _application(token, registry, is_ready))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, name="listener", daemon=True)
    thread.start()
    try:
        yield f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(timeout=5)
        server.server_close()


def _server(place: str, host: str, port: int, application: Any) -> WSGIServer:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    kind = type("Server", (_Server,), {"address_family": family})
    try:
        return make_server(host, port, application, server_class=kind, handler_class=_Handler)
    except OSError as error:
        raise CannotStart(f"cannot listen on {place} ({error.strerror}): name another port, or none") from error


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Without looking up what this machine is called: where no name server answers, that takes long."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.socket.getsockname()[:2]
        self.setup_environ()


class _Handler(WSGIRequestHandler):
    timeout = 10  # seconds that a connection may be silent

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: who scrapes every few seconds is no news."""


def _application(token: SecretStr | None, registry: CollectorRegistry, is_ready: Callable[[], bool]) -> Any:
    def answer(environ: dict[str, Any]) -> tuple[int, bytes, str]:
        path = environ["PATH_INFO"]
        if path == "/healthz":
            return 200, b"alive\n", TEXT
        if path == "/readyz":
            return (200, b"ready\n", TEXT) if is_ready() else (503, b"no heartbeat reaches the database\n", TEXT)
        if path != "/metrics":
            return 404, b"there are /healthz, /readyz and /metrics\n", TEXT
        scheme, _, credentials = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        try:
            check_token(token, credentials.strip() if scheme.lower() == "bearer" else None)
        except PodiumError as error:
            return status_of(error), f"{error}\n".encode(), TEXT
        return 200, *exposition(environ.get("HTTP_ACCEPT"), registry)

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        status, body, content_type = answer(environ)
        start_response(STATUS_LINES[status], [("Content-Type", content_type), ("Content-Length", str(len(body)))])
        return [body]

    return application

"""Starts the web process. With several workers they share one listening socket."""

import errno
import os
import socket
import sys

import uvicorn
from uvicorn.supervisors import Multiprocess

from app.settings import Settings
from app.terminal import CannotStart

OPEN_PAGES_TIMEOUT_S = 3  # live pages hold their connection; a stop does not wait for their readers
BACKLOG = 2048


def listen(settings: Settings) -> socket.socket:
    """The socket that the web process will answer on. Raises CannotStart when the address or port is taken."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise CannotStart(
                f"port {settings.port} is in use by another program: stop it, or choose another port with --port"
            ) from error
        if error.errno == errno.EACCES:
            raise CannotStart(f"port {settings.port} needs root: choose one above 1023 with --port") from error
        raise CannotStart(
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror}): correct --host"
        ) from error
    return listener


def address(settings: Settings, listener: socket.socket) -> str:
    """What people type into a browser."""
    return public_address(settings.model_copy(update={"port": listener.getsockname()[1]}))


def public_address(settings: Settings) -> str:
    """The same, as the settings alone say it."""
    if settings.public_url is not None:
        return settings.public_url.rstrip("/")
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104 - compared, not bound
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{settings.port}"


def serve(settings: Settings, listener: socket.socket) -> None:
    """Answer until told to stop."""
    config = uvicorn.Config(
        "app.main:create_app",
        factory=True,
        log_level=settings.log_level,
        access_log=settings.log_level == "debug",
        workers=settings.web_workers,
        timeout_graceful_shutdown=OPEN_PAGES_TIMEOUT_S,
        proxy_headers=settings.public_url is not None,
        server_header=False,
        backlog=BACKLOG,
    )
    if settings.web_workers > 1:
        Multiprocess(config, sockets=[listener]).run()
        return
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    if not server.started:
        sys.exit(3)  # uvicorn has said why


def inherited(descriptor: int) -> socket.socket:
    """The listening socket that the parent process opened: it outlives a web process that is killed."""
    os.set_inheritable(descriptor, True)  # uvicorn's workers inherit it in turn
    return socket.socket(fileno=descriptor)

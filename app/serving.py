"""Starts the web process. With several workers they share one listening socket."""

import errno
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.supervisors import Multiprocess

from app.monitoring import logs
from app.monitoring.web_metrics import SHARED
from app.settings import Settings, networks_of
from app.supervision import end_with_spawner
from app.terminal import CannotStart

log = logging.getLogger(__name__)

REQUESTS_TIMEOUT_S = 20  # a stop lets requests that run come to their end; of downloads the large ones can be resumed
# A worker that says nothing for so long is killed and replaced. While it loads our code it may be silent for longer:
# after uvicorn's own five seconds, on a busy machine, none would ever come to its end. Meanwhile no stop is heard.
WORKER_SILENT_S, WORKER_STARTS_S = 10, 60
BACKLOG = 2048
MEMORY = Path("/dev/shm")  # noqa: S108 - files in memory; the folder made in it is ours alone
METRICS_BYTES = 4 << 20  # of one worker: twice what it writes once every route was asked for


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
    """What people type into a browser to come to this socket."""
    return settings.model_copy(update={"port": listener.getsockname()[1]}).address


def trusted_proxies(settings: Settings) -> list[str]:
    """Networks from which an X-Forwarded-For is believed; whoever else sends one is where it comes from itself.

    From the right of that header the first address that is none of them is taken: what a caller wrote there before the
    proxy came is left of it. A listener on :: sees IPv4 addresses as IPv6 writes them, so those are named too.
    """
    if settings.public_url is None:
        return []
    named = networks_of(settings.proxies)
    mapped = [f"::ffff:{each.network_address}/{96 + each.prefixlen}" for each in named if each.version == 4]
    return [*map(str, named), *mapped]


def configuration(settings: Settings) -> uvicorn.Config:
    """How the web process answers."""
    return uvicorn.Config(
        "app.serving:worker",
        factory=True,
        log_config=logs.configuration(settings, "web"),
        log_level=settings.log_level,
        access_log=False,  # ours has ids, and no tokens: app.monitoring.requests
        workers=settings.web_workers,
        timeout_worker_healthcheck=WORKER_STARTS_S,
        timeout_graceful_shutdown=REQUESTS_TIMEOUT_S,
        proxy_headers=bool(proxies := trusted_proxies(settings)),
        forwarded_allow_ips=proxies,  # given always: Uvicorn would read a variable of its own
        server_header=False,
        backlog=BACKLOG,
    )


def serve(settings: Settings, listener: socket.socket) -> None:
    """Answer until told to stop."""
    config = configuration(settings)
    if settings.web_workers > 1:
        with _shared_metrics(settings):
            Workers(config, sockets=[listener]).run()
        return
    server = uvicorn.Server(config)
    signal.signal(signal.SIGTERM, _leave)  # Uvicorn raises again what it was asked by, when all is done
    server.run(sockets=[listener])
    if not server.started:
        sys.exit(3)  # uvicorn has said why


def _leave(number: int, frame: FrameType | None) -> None:
    """A stop in good order is exit code 0, as of every other process: 143 reads as if it had been killed."""
    sys.exit(0)


class Workers(Multiprocess):
    """Uvicorn's parent of several workers. One that hangs is found soon, one that starts is given its time."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self.ready: set[object] = set()

    def keep_subprocess_alive(self) -> None:
        self.ready = {each for each in self.processes if each in self.ready or each.is_ready(timeout=0.5)}
        all_are = len(self.ready) == len(self.processes)
        self.config.timeout_worker_healthcheck = WORKER_SILENT_S if all_are else WORKER_STARTS_S
        super().keep_subprocess_alive()


@contextmanager
def _shared_metrics(settings: Settings) -> Iterator[None]:
    """A folder in which the workers add up what they count: prometheus-client's own way, by this variable.

    It maps files that have no room of their own yet: where a disk is full by then, the kernel ends who writes to them.
    So they lie in memory that is free, or nowhere.
    """
    if settings.metrics_token is None:
        yield
        return
    if not _has_room(MEMORY, settings.web_workers * METRICS_BYTES):
        log.warning("%s has no room: /metrics tells of the one worker that is asked, and not of all", MEMORY)
        yield
        return
    with tempfile.TemporaryDirectory(prefix="podium-metrics-", dir=MEMORY) as folder:
        os.environ[SHARED] = folder
        yield


def _has_room(folder: Path, num_bytes: int) -> bool:
    return os.access(folder, os.W_OK) and shutil.disk_usage(folder).free >= num_bytes


def worker() -> FastAPI:
    """What one web process answers with; it ends with the process that started it."""
    end_with_spawner()  # first: on a busy machine the rest takes a minute, and the parent may die in it
    from app.main import create_app  # what answers is loaded by whoever answers

    return create_app()


def inherited(descriptor: int) -> socket.socket:
    """The listening socket that the parent process opened: it outlives a web process that is killed."""
    os.set_inheritable(descriptor, True)  # uvicorn's workers inherit it in turn
    return socket.socket(fileno=descriptor)

"""What web processes count: requests, connections to the database, memory. One scrape answers for all of them.

Several workers share one listening socket, so a scrape reaches any of them: with PROMETHEUS_MULTIPROC_DIR set (which
`podium serve` does, see app.serving) each writes its numbers to a file there, and whoever is asked adds them up.
"""

import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from app import db

SHARED = "PROMETHEUS_MULTIPROC_DIR"
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

OWN = CollectorRegistry()

REQUESTS = Counter("podium_http_requests", "Requests that ended.", ["method", "route", "status"], registry=OWN)
SECONDS = Histogram(
    "podium_http_request_seconds",
    "From a request's arrival to the beginning of its answer, in seconds.",
    ["method", "route"],
    buckets=BUCKETS_S,
    registry=OWN,
)
IN_PROGRESS = Gauge(
    "podium_http_requests_in_progress",
    "Requests that are being answered, live pages and downloads included.",
    multiprocess_mode="livesum",
    registry=OWN,
)
PROCESSES = Gauge("podium_web_processes", "Web processes that run.", multiprocess_mode="livesum", registry=OWN)
MEMORY = Gauge("podium_web_resident_bytes", "Memory of all web processes.", multiprocess_mode="livesum", registry=OWN)
VIEWERS = Gauge("podium_web_live_pages", "Open pages that follow along.", multiprocess_mode="livesum", registry=OWN)
CONNECTIONS = Gauge(
    "podium_web_connections",
    "Database connections of the web processes in use, by pool: of pages, of labelers' requests.",
    ["pool"],
    multiprocess_mode="livesum",
    registry=OWN,
)
POOL_SIZE = Gauge(
    "podium_web_connections_max",
    "Database connections that they may have in use.",
    ["pool"],
    multiprocess_mode="livesum",
    registry=OWN,
)

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
STATM = Path("/proc/self/statm")


@lru_cache(maxsize=4096)
def _children(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    """Found once: looking labels up costs more than counting."""
    return REQUESTS.labels(method, route, str(status)), SECONDS.labels(method, route)


def count_request(method: str, route: str, status: int, waited_s: float) -> None:
    """One request has ended. route: its template, so that ids and what people try make no series of their own."""
    requests, seconds = _children(method, route, status)
    requests.inc()
    seconds.observe(waited_s)


def look_at_process(num_viewers: int) -> None:
    """Note what this process holds just now. num_viewers: live pages that are open here."""
    PROCESSES.set(1)
    VIEWERS.set(num_viewers)
    if STATM.exists():
        MEMORY.set(int(STATM.read_text().split()[1]) * PAGE_BYTES)
    for name, factory in (("pages", db.SessionFactory), ("labelers", db.LoopSessionFactory)):
        engine = factory.kw.get("bind")
        if engine is not None and hasattr(engine.pool, "checkedout"):
            CONNECTIONS.labels(name).set(engine.pool.checkedout())
            POOL_SIZE.labels(name).set(engine.pool.size())


def registry() -> CollectorRegistry:
    """Where a scrape finds the numbers of all web processes of this server."""
    folder = os.environ.get(SHARED)
    if folder is None:
        return OWN
    _forget_the_dead(Path(folder))
    shared = CollectorRegistry()
    MultiProcessCollector(shared, path=folder)  # type: ignore[no-untyped-call]
    return shared


def _forget_the_dead(folder: Path) -> None:
    """What a worker held when it was killed is held no more; what it counted stays counted."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = int(file.stem.rpartition("_")[2])
        if not _is_ours(pid):
            with suppress(FileNotFoundError):  # another worker is asked at the same moment
                mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]


def _is_ours(pid: int) -> bool:
    """Whether a worker has this number, or may have: not where it is nobody's, or that of another user's process."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True

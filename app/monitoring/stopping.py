"""How a web process stops: it says that it is not ready, goes on for a while, then ends what would never end by itself.

SIGTERM asks. From then on /readyz says no, and requests are still taken for as long as a proxy needs to notice
(PODIUM_DRAIN_S). Then the stop is due: live pages end, Uvicorn takes no more requests and finishes those that it has.
"""

import asyncio
import logging
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from time import monotonic
from types import FrameType

log = logging.getLogger(__name__)

SAME_S = 2.0  # a signal that comes again within so long is the same one

_asked = threading.Event()
_due = threading.Event()


def is_asked() -> bool:
    """Whether this process is on its way out: nobody new should be sent to it."""
    return _asked.is_set()


def is_due() -> bool:
    """Whether what would go on for ever has to end now."""
    return _due.is_set()


@contextmanager
def graceful(drain_s: float, end_streams: Callable[[], None]) -> Iterator[None]:
    """Within the block SIGTERM and Ctrl-C go to the server only after drain_s; somebody's second one at once.

    Called where the server's own handlers are in place. Without them, or in another thread, nothing is changed.
    """
    servers_own = {sig: signal.getsignal(sig) for sig in (signal.SIGTERM, signal.SIGINT)}
    if threading.current_thread() is not threading.main_thread() or not all(map(_is_method, servers_own.values())):
        yield
        return
    loop = asyncio.get_running_loop()
    asked_at = -inf
    draining: asyncio.TimerHandle | None = None

    def asked(sig: int, frame: FrameType | None) -> None:
        nonlocal asked_at
        if not _asked.is_set():
            _asked.set()
            asked_at = monotonic()
            loop.call_soon_threadsafe(begin, sig)
        elif _is_somebodys_second(monotonic() - asked_at):
            loop.call_soon_threadsafe(due, sig)

    def begin(sig: int) -> None:
        nonlocal draining
        log.info("stopping: not ready any more, requests are taken for another %g s", drain_s)
        draining = loop.call_later(drain_s, due, sig)

    def due(sig: int) -> None:
        if draining is not None:
            draining.cancel()  # or it would come a second time, which ends requests that run
        _due.set()
        end_streams()
        handler = servers_own[signal.Signals(sig)]
        assert callable(handler)
        handler(sig, None)

    for sig in servers_own:
        signal.signal(sig, asked)
    try:
        yield
    finally:
        for sig, handler in servers_own.items():
            signal.signal(sig, handler)


def _is_somebodys_second(later_s: float) -> bool:
    """Whether a signal so long after the first one is to hurry, and not the first one again on another way.

    systemd and a terminal send it to every process, and a process that has children passes it on: what a worker gets
    is never meant for it alone.
    """
    return later_s > SAME_S and multiprocessing.parent_process() is None


def _is_method(handler: object) -> bool:
    """Whether it is Uvicorn's, and not Python's default for Ctrl-C."""
    return callable(handler) and handler is not signal.default_int_handler

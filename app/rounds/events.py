"""Live pages: one LISTEN connection of this web process, fanned out to everyone who looks.

A viewer costs a waiting coroutine: no thread, no session. What is sent is only "something changed"; the page then asks
for its state, which lies in the database, so a connection that breaks and comes back loses nothing. The connection is
opened for the first viewer and closed after the last.
"""

import asyncio
import contextvars
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from fastapi.responses import StreamingResponse

from app import db
from app.db import EVENTS_CHANNEL
from app.monitoring import stopping

log = logging.getLogger(__name__)

RETRY_S = 1.0  # after the database went away
LEAST_PAUSE_S = 0.5  # between two messages to one page: a trainer reports faster than people read
SIGN_OF_LIFE_S = 15.0  # proxies close what is silent, and a page takes silence for a lost connection (live.js)
BACK_MS = (500, 4000)  # when this process stops, its pages come back one by one and not all in the same moment
LONGEST_STREAM_S = 900.0  # the page then connects again, and whoever may not look any more is refused


@dataclass(eq=False)
class Viewer:
    """One open page. topics: what it shows, e.g. "round:12"."""

    topics: frozenset[str]
    called: asyncio.Event = field(default_factory=asyncio.Event)


class Events:
    """Who looks at what in this process, and the task that listens for them."""

    def __init__(self) -> None:
        self.viewers: set[Viewer] = set()
        self.listening: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def viewing(self, topics: frozenset[str]) -> AsyncIterator[Viewer]:
        """Take part until the block ends. The first one starts the listening, the last one ends it."""
        viewer = Viewer(topics)
        self.viewers.add(viewer)
        if self.listening is None:
            # It outlives the viewer who came first: what it logs is not that request's.
            self.listening = asyncio.create_task(self.listen(), context=contextvars.Context())
        try:
            yield viewer
        finally:
            self.viewers.discard(viewer)
            if not self.viewers and self.listening is not None:
                self.listening.cancel()
                self.listening = None

    async def listen(self) -> None:
        """Pass notifications on for as long as somebody looks. Survives restarts of the database."""
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(**connect_arguments()) as connection:
                    await connection.execute(f"LISTEN {EVENTS_CHANNEL}")
                    self.call_all()  # something may have happened while nobody listened
                    async for notification in connection.notifies():
                        self.call(notification.payload)
            except psycopg.OperationalError as error:
                log.warning("live pages: listening failed, trying again in %s s: %s", RETRY_S, first_line(error))
            await asyncio.sleep(RETRY_S)

    def call(self, topic: str) -> None:
        for viewer in self.viewers:
            if topic in viewer.topics:
                viewer.called.set()

    def call_all(self) -> None:
        for viewer in self.viewers:
            viewer.called.set()


_events: WeakKeyDictionary[asyncio.AbstractEventLoop, Events] = WeakKeyDictionary()


def events_of_this_loop() -> Events:
    """A server has one loop and so one of these; tests run several loops in one process."""
    return _events.setdefault(asyncio.get_running_loop(), Events())


def num_viewers() -> int:
    """Live pages that this process serves now."""
    return sum(len(events.viewers) for events in list(_events.values()))


def live(*topics: str) -> StreamingResponse:
    """A stream of server-sent events: `changed` at once, and whenever one of the topics was notified."""
    return StreamingResponse(
        messages(frozenset(topics)),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


async def messages(topics: frozenset[str]) -> AsyncIterator[str]:
    """What is written to one page. It ends with the connection, after LONGEST_STREAM_S, or when the process stops."""
    loop = asyncio.get_running_loop()
    end = loop.time() + LONGEST_STREAM_S
    async with events_of_this_loop().viewing(topics) as viewer:
        yield "retry: 2000\nevent: changed\ndata:\n\n"  # what happened between the page and this connection
        while loop.time() < end and not stopping.is_due():
            with suppress(TimeoutError):
                await asyncio.wait_for(viewer.called.wait(), SIGN_OF_LIFE_S)
            if stopping.is_due():
                break
            if not viewer.called.is_set():
                yield "event: alive\ndata:\n\n"
                continue
            viewer.called.clear()
            yield "event: changed\ndata:\n\n"
            await asyncio.sleep(LEAST_PAUSE_S)
        if stopping.is_due():
            yield f"retry: {random.randint(*BACK_MS)}\n\n"  # noqa: S311 - no secret


def connect_arguments() -> dict[str, Any]:
    """Where this process's sessions go, in psycopg's words. A URL would not do: SQLAlchemy writes a space as a plus."""
    engine: Any = db.SessionFactory.kw["bind"]
    _, arguments = engine.dialect.create_connect_args(engine.url)
    return {**arguments, "autocommit": True, "connect_timeout": 10}


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

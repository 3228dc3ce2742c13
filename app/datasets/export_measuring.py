"""Parts of files that nobody has read to their end yet: such a file is read first, for nobody, and then answered from.

That happens when the request has given its turn and its connection back: reading takes a connection of its own, and
where everybody holds one and waits for another nobody gets any. However many ask for parts of a file meanwhile, it is
read once: whoever was sent away by a proxy's patience and asks again waits for the same reading.
"""

import asyncio
from collections.abc import Callable
from weakref import WeakKeyDictionary

from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.datasets.export_choices import ExportChoice
from app.datasets.export_files import find_file, whole
from app.datasets.exports import tag_of
from app.datasets.models import ExportFile, Snapshot
from app.db import SessionFactory

Readings = dict[tuple[int, str], asyncio.Task[ExportFile]]  # by snapshot and tag
_readings: WeakKeyDictionary[asyncio.AbstractEventLoop, Readings] = WeakKeyDictionary()


class WhenMeasured(Response):
    """What `answer` makes of the file's length and pieces, once they are known."""

    def __init__(self, snapshot: Snapshot, choice: ExportChoice, answer: Callable[[ExportFile], Response]) -> None:
        super().__init__()
        self.snapshot, self.choice, self.answer = snapshot, choice, answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = self.answer(await measured(self.snapshot, self.choice))
        await response(scope, receive, send)


async def measured(snapshot: Snapshot, choice: ExportChoice) -> ExportFile:
    """What there is to know of the file, by the reading that is under way or by a new one."""
    readings = _readings.setdefault(asyncio.get_running_loop(), {})
    key = (snapshot.id, tag_of(snapshot, choice))

    def forget(reading: asyncio.Task[ExportFile]) -> None:
        del readings[key]
        if not reading.cancelled():
            reading.exception()  # told to those who wait; where nobody does any more it is not to be logged as lost

    if key not in readings:
        readings[key] = asyncio.create_task(read_to_the_end(snapshot, choice))
        readings[key].add_done_callback(forget)
    return await asyncio.shield(readings[key])  # who leaves does not end it for the others


async def read_to_the_end(snapshot: Snapshot, choice: ExportChoice) -> ExportFile:
    async for _ in iterate_in_threadpool(whole(snapshot, choice)):
        pass
    return await run_in_threadpool(noted_file, snapshot, choice)


def noted_file(snapshot: Snapshot, choice: ExportChoice) -> ExportFile:
    with SessionFactory() as session:
        file = find_file(session, snapshot, choice)
    assert file is not None, "reading to the end notes it"
    return file

"""What runs beside a web process for as long as it serves: a look at itself each second, and its way out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from app.monitoring import stopping, web_metrics
from app.rounds.events import events_of_this_loop, num_viewers

LOOK_S = 1.0


@asynccontextmanager
async def watching(drain_s: float) -> AsyncIterator[None]:
    """From the server's start to its end."""
    looking = asyncio.create_task(_look())
    try:
        with stopping.graceful(drain_s, end_streams=events_of_this_loop().call_all):
            yield
    finally:
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking


async def _look() -> None:
    """A scrape reaches one of several processes: the others have written down before what they hold."""
    while True:
        web_metrics.look_at_process(num_viewers())
        await asyncio.sleep(LOOK_S)

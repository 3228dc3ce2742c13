"""A proxy of streams that can do what networks do: cut, hold back, let go in another order, lose the answers."""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from random import Random
from typing import Any

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]
CHUNK_BYTES = 65536
LAST_WORDS_S = 0.1


class Proxy:
    """Listens on a free port of this machine and passes on, each way, what comes. It runs in a thread of its own."""

    def __init__(self, connect: Callable[[], Awaitable[Ends]], seed: int) -> None:
        """connect: opens a connection to whom everything is passed on."""
        self._connect = connect
        self._rng = Random(seed)
        self._loop = asyncio.new_event_loop()
        self._streams: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._spread_s = 0.0
        self._loses_answers = False
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self.port = self._run(self._listen()).result(10)

    def cut(self) -> None:
        """Break every connection that is open, in the middle of whatever it carries."""
        self._run(self._cut()).result(10)

    def hold(self) -> None:
        """From now on nothing is passed on, and nothing is lost."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def release(self, spread_s: float) -> None:
        """Pass on what was held back, each connection at a time of its own within spread_s: in another order."""
        self._spread_s = spread_s
        self._loop.call_soon_threadsafe(self._flowing.set)

    def lose_answers(self, loses: bool) -> None:
        """Whether requests arrive and their answers never do."""
        self._loses_answers = loses

    def close(self) -> None:
        self._run(self._end()).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> "Future[Any]":
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _listen(self) -> int:
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._streams.add(writer)
        try:
            behind_reader, behind_writer = await self._connect()
        except OSError:  # whoever is behind is away: so are we
            self._drop(writer)
            return
        self._streams.add(behind_writer)
        for source, sink, is_answer in ((reader, behind_writer, False), (behind_reader, writer, True)):
            pump = asyncio.create_task(self._pump(source, sink, is_answer=is_answer))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_answer: bool) -> None:
        """Until either side is gone. What was read before is delivered, however late."""
        try:
            while data := await source.read(CHUNK_BYTES):
                if not self._flowing.is_set():
                    await self._flowing.wait()
                    await asyncio.sleep(self._rng.random() * self._spread_s)
                if is_answer and self._loses_answers:
                    continue
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            self._streams.discard(sink)
            with contextlib.suppress(OSError, RuntimeError):
                sink.close()

    def _drop(self, writer: asyncio.StreamWriter) -> None:
        self._streams.discard(writer)
        writer.transport.abort()

    async def _cut(self) -> None:
        for writer in list(self._streams):
            self._drop(writer)

    async def _end(self) -> None:
        self._server.close()
        await self._cut()
        for pump in list(self._pumps):
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        await asyncio.sleep(LAST_WORDS_S)  # what was dropped closes its sockets in the loop's next turns

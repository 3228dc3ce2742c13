"""Live pages: one listening connection fans out to everyone who looks, and finds its way back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from sqlalchemy import Engine, text

from app.monitoring import logs
from app.monitoring.logs import about
from app.rounds import events
from app.rounds.events import Events, connect_arguments, events_of_this_loop, messages

CHANGED = "event: changed\ndata:\n\n"


def notify(engine: Engine, topic: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_notify('podium_events', :topic)"), {"topic": topic})


def listeners(engine: Engine) -> list[int]:
    """The process ids of connections whose last word was LISTEN."""
    with engine.begin() as connection:
        return list(
            connection.scalars(
                text("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN %'")
            )
        )


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not await asyncio.to_thread(holds):
            await asyncio.sleep(0)


async def next_message(stream: AsyncIterator[str]) -> str:
    async with asyncio.timeout(20):
        return await anext(stream)


async def opened(*topics: str) -> AsyncIterator[str]:
    """A stream whose first two messages are read: it was opened, and the listening has begun."""
    stream = messages(frozenset(topics))
    assert CHANGED in await next_message(stream)
    assert await next_message(stream) == CHANGED
    return stream


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LEAST_PAUSE_S", 0.0)
    monkeypatch.setattr(events, "RETRY_S", 0.0)


def run(story: Callable[[], Awaitable[None]]) -> None:
    # In a thread of its own: after a browser test, Playwright's event loop goes on in the main one.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, story()).result()  # type: ignore[arg-type]


def test_a_page_hears_of_its_own_topic_and_of_no_other(engine: Engine) -> None:
    async def story() -> None:
        stream = await opened("round:1")
        notify(engine, "round:2")
        notify(engine, "round:1")
        assert await next_message(stream) == CHANGED
        waiting = asyncio.ensure_future(anext(stream))  # type: ignore[arg-type]
        notify(engine, "round:2")
        other = await opened("round:2")  # by now the first page would have heard
        notify(engine, "round:2")
        assert await next_message(other) == CHANGED
        assert not waiting.done()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    run(story)


def test_many_pages_share_one_connection_which_ends_with_the_last_of_them(engine: Engine) -> None:
    async def story() -> None:
        streams = [messages(frozenset(("round:1",))) for _ in range(50)]
        for stream in streams:
            await next_message(stream)
        await until(lambda: len(listeners(engine)) > 0)
        assert len(listeners(engine)) == 1
        for stream in streams:
            await stream.aclose()  # type: ignore[attr-defined]
        await until(lambda: listeners(engine) == [])

    run(story)


def test_what_the_listening_logs_is_not_the_first_viewers() -> None:
    carried: list[dict[str, object]] = []

    class Noting(Events):
        async def listen(self) -> None:
            carried.append(ids_logged())

    async def story() -> None:
        with about(request="the-first-viewers"):
            async with Noting().viewing(frozenset(("round:1",))):
                await asyncio.sleep(0)
                assert ids_logged() == {"request": "the-first-viewers"}

    run(story)
    assert carried == [{}]


def ids_logged() -> dict[str, object]:
    """What every line that is logged here carries."""
    return dict(logs._about.get())


def test_a_lost_connection_comes_back_and_the_page_is_told_to_look(engine: Engine) -> None:
    async def story() -> None:
        stream = await opened("round:1")
        (pid,) = listeners(engine)
        with psycopg.connect(**connect_arguments()) as connection:
            connection.execute("SELECT pg_terminate_backend(%s)", [pid])
        assert await next_message(stream) == CHANGED  # whatever happened meanwhile
        notify(engine, "round:1")
        assert await next_message(stream) == CHANGED

    run(story)


def test_a_silent_stream_gives_a_sign_of_life_and_ends_after_a_while(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        stream = await opened("round:1")
        monkeypatch.setattr(events, "SIGN_OF_LIFE_S", 0.01)
        assert await next_message(stream) == "event: alive\ndata:\n\n"
        await stream.aclose()  # type: ignore[attr-defined]
        monkeypatch.setattr(events, "LONGEST_STREAM_S", 0.0)
        assert len([message async for message in messages(frozenset(("round:1",)))]) == 1

    run(story)


def test_nobody_looks_and_nothing_listens(engine: Engine) -> None:
    async def story() -> None:
        assert isinstance(events_of_this_loop(), Events)
        assert listeners(engine) == []

    run(story)

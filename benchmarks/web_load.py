"""Labelers as programs: each works through slates over HTTP as the page does, and every request is timed.

A client of our own because a general one costs more CPU than the server it measures; it speaks as much HTTP/1.1 as
Uvicorn answers with: a status, a content length, a body.
"""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

# One cycle: what a labeler's page sends between one slate and the next, and when, as shares of the time on a slate.
DRAFTS_AT, RENEWAL_AT = (0.25, 0.5, 0.75), 0.6
IDLE_S = 3.0  # Uvicorn keeps an idle connection for five
REQUESTS = ("next", "draft", "renewal", "submit")


@dataclass
class Timings:
    """Seconds of each request by what it was, of each cycle's next + submit, and what went wrong."""

    seconds: dict[str, list[float]] = field(
        default_factory=lambda: {"next": [], "draft": [], "renewal": [], "submit": []}
    )
    pairs: list[float] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def take(self) -> "Timings":
        """What was measured so far, as of its own; from here on it is measured anew."""
        taken = Timings(self.seconds, self.pairs, self.acknowledged, self.errors)
        anew = Timings()
        self.seconds, self.pairs, self.acknowledged, self.errors = vars(anew).values()
        return taken


class Connection:
    """One keep-alive connection of one labeler."""

    def __init__(self, port: int, key: str) -> None:
        self.port, self.key = port, key
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None
        self.used_at = 0.0

    async def call(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any, float]:
        """Status, answer, seconds."""
        if self.writer is None or time.perf_counter() - self.used_at > IDLE_S:
            await self.close()  # the server closes connections that idle, perhaps in this very moment
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        assert self.reader is not None
        content = json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        began = time.perf_counter()
        self.writer.write(head.encode() + content)
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        length = next((int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length:")), 0)
        answer = await self.reader.readexactly(length)
        self.used_at = time.perf_counter()
        seconds = self.used_at - began
        return int(lines[0].split()[1]), json.loads(answer) if answer else None, seconds

    async def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            with contextlib.suppress(OSError):
                await self.writer.wait_closed()


async def work(
    port: int, slug: str, key: str, until: float, timings: Timings, rng: random.Random, *, slate_s: float
) -> None:
    """Rank slates until the time is over.  slate_s: seconds spent on each, 0 for a client that never pauses."""
    connection = Connection(port, key)
    try:
        if slate_s:
            await asyncio.sleep(rng.random() * slate_s)  # people do not start together
        while time.perf_counter() < until:
            await cycle(connection, slug, timings, rng, slate_s)
    except (OSError, asyncio.IncompleteReadError) as error:
        timings.errors.append(type(error).__name__)
    finally:
        await connection.close()


async def cycle(connection: Connection, slug: str, timings: Timings, rng: random.Random, slate_s: float) -> None:
    """Lease, three drafts, one renewal, submit."""
    status, answer, next_s = await connection.call("POST", f"/api/v1/projects/{slug}/leases", {"wanted": 1})
    timings.seconds["next"].append(next_s)
    if status != 200 or not answer["leases"]:
        timings.errors.append(f"next {status}" if status != 200 else "no slate was ready")
        await asyncio.sleep(0.5)
        return
    lease = answer["leases"][0]
    path, began = f"/api/v1/leases/{lease['id']}", time.perf_counter()
    ranks = {completion["id"]: rank for rank, completion in enumerate(lease["completions"], start=1)}
    async for what, number in events(began, slate_s * rng.uniform(0.7, 1.3)):
        if what == "draft":
            body = {"revision": number, "content": {"ranks": dict(list(ranks.items())[: number + 1]), "active_s": 1.0}}
            status, _, seconds = await connection.call("PUT", f"{path}/draft", body)
        else:
            status, _, seconds = await connection.call("POST", f"{path}/renewal", {})
        timings.seconds[what].append(seconds)
        if status != 200:
            timings.errors.append(f"{what} {status}")
    ranking = {"ranking_id": str(uuid4()), "ranks": ranks, "active_s": 5.0}
    status, answer, submit_s = await connection.call("POST", f"{path}/ranking", ranking)
    timings.seconds["submit"].append(submit_s)
    if status != 201:
        timings.errors.append(f"submit {status}")
        return
    timings.acknowledged.append(answer["id"])
    timings.pairs.append(next_s + submit_s)


async def events(began: float, duration_s: float) -> AsyncIterator[tuple[str, int]]:
    """The drafts and the renewal, each at its time; then wait for the slate's end."""
    plan = sorted([*((at, "draft", number) for number, at in enumerate(DRAFTS_AT)), (RENEWAL_AT, "renewal", 0)])
    for at, what, number in plan:
        await sleep_until(began + at * duration_s)
        yield what, number
    await sleep_until(began + duration_s)


async def sleep_until(moment: float) -> None:
    if (left := moment - time.perf_counter()) > 0:
        await asyncio.sleep(left)


async def run_clients(
    port: int,
    slug: str,
    keys: list[str],
    *,
    duration_s: float,
    slate_s: float,
    seed: int,
    timings: Timings | None = None,
) -> Timings:
    """All labelers at once for so long; one timing for all, which whoever gives one may take from meanwhile."""
    timings = timings or Timings()
    until = time.perf_counter() + duration_s
    rng = random.Random(seed)
    labelers = [work(port, slug, key, until, timings, random.Random(rng.random()), slate_s=slate_s) for key in keys]
    await asyncio.gather(*labelers)
    return timings

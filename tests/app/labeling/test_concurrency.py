# ruff: noqa: F811 - fixtures are found by name
"""A hundred clients at once, over real connections: some die in the middle of a submit, some let their lease run out.

In the end each slate has exactly the rankings it asked for, and what was acknowledged is there, once.
"""

import asyncio
import ssl
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import db
from app.labeling.models import Ranking, RankingItem, Slate, SlateState
from app.people.models import Account, Membership, Role
from app.people.service import create_key
from app.projects.models import Project
from app.settings import Settings
from tests.app.conftest import accept_guidelines
from tests.app.labeling.conftest import add_slate
from tests.browser.conftest import server, web  # noqa: F401

NUM_CLIENTS, NUM_SLATES, OVERLAP = 100, 50, 3
LEASE_S = 2
LOOK_S = 0.1
SEED = 7
# What becomes of a client that holds a slate, and how often.
FATES = {
    "submits": 0.68,
    "dies while it submits, comes back and sends it again": 0.08,
    "dies while it submits, comes back and goes on": 0.08,
    "lets its lease run out and submits late": 0.08,
    "leaves for good": 0.08,
}


@dataclass
class Books:
    """What clients were told, to be held against what was stored."""

    acknowledged: list[str] = field(default_factory=list)
    sent: set[str] = field(default_factory=set)  # whether or not an answer came
    fates: Counter[str] = field(default_factory=Counter)


class Client:
    """One labeler's program; `die` drops its connection, whatever was under way."""

    def __init__(self, url: str, key: str, rng: Random, books: Books) -> None:
        self.url, self.key, self.rng, self.books = url, key, rng, books
        self.http = self._connect()

    def _connect(self) -> httpx.AsyncClient:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # unused over http, and slow to make by default
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.AsyncClient(base_url=f"{self.url}/api/v1", headers=headers, timeout=60, verify=context)

    async def die(self) -> None:
        await self.http.aclose()
        self.http = self._connect()

    async def work(self, is_over: asyncio.Event) -> None:
        try:
            while not is_over.is_set():
                response = await self.http.post("/projects/everyday/leases", json={"wanted": self.rng.randint(1, 2)})
                assert response.status_code == 200, response.text
                leases = response.json()["leases"]
                if not leases:
                    await pause(is_over, LOOK_S)
                for lease in leases:
                    fate = self.rng.choices(list(FATES), list(FATES.values()))[0]
                    self.books.fates[fate] += 1
                    if fate == "leaves for good":
                        return
                    await self.meet(fate, lease, is_over)
        finally:
            await self.http.aclose()

    async def meet(self, fate: str, lease: dict[str, Any], is_over: asyncio.Event) -> None:
        ids = [completion["id"] for completion in lease["completions"]]
        form = {"ranking_id": str(uuid4()), "ranks": {key: place for place, key in enumerate(ids, start=1)}}
        if fate.startswith("lets"):
            await pause(is_over, LEASE_S * 1.25)
        if fate.startswith("dies"):
            self.books.sent.add(form["ranking_id"])
            submit = asyncio.ensure_future(self.http.post(f"/leases/{lease['id']}/ranking", json=form))
            await asyncio.wait({submit}, timeout=0.02 * self.rng.random())  # somewhere between sent and answered
            submit.cancel()
            await asyncio.gather(submit, return_exceptions=True)
            await self.die()
        if not fate.endswith("goes on"):
            await self.submit(lease, form)

    async def submit(self, lease: dict[str, Any], form: dict[str, Any]) -> None:
        self.books.sent.add(form["ranking_id"])
        response = await self.http.post(f"/leases/{lease['id']}/ranking", json=form)
        # A slate that this client's other self submitted before it died stands; nothing else is refused.
        assert response.status_code in {200, 201} or response.json()["code"] == "already_ranked", response.text
        if response.status_code in {200, 201}:
            assert response.json()["id"] == form["ranking_id"]
            self.books.acknowledged.append(form["ranking_id"])


async def pause(is_over: asyncio.Event, seconds: float) -> None:
    """As a labeler does, unless everything is ranked."""
    await asyncio.wait({asyncio.ensure_future(is_over.wait())}, timeout=seconds)


def num_unfinished() -> int:
    with db.SessionFactory() as session:
        return session.scalar(select(func.count()).where(Slate.state != SlateState.DONE)) or 0


async def rank_everything(clients: list[Client]) -> None:
    is_over = asyncio.Event()
    work = [asyncio.ensure_future(client.work(is_over)) for client in clients]
    while await asyncio.to_thread(num_unfinished):
        broken, left = [each for each in work if each.done() and each.exception()], [e for e in work if not e.done()]
        assert left, "everybody left before the work was done"
        if broken:
            is_over.set()
            await asyncio.gather(*work, return_exceptions=True)
            broken[0].result()
        await asyncio.wait(left, timeout=LOOK_S)
    is_over.set()
    await asyncio.gather(*work)


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Iterator[Settings]:
    """Has the server connect its event loop by itself, to few connections for many clients, as in production."""
    of_other_tests = db.LoopSessionFactory.kw["bind"]
    db.LoopSessionFactory.configure(bind=None)
    yield Settings(home=tmp_path, DATABASE_URL=database_url.replace("+psycopg", ""), public_url=None)
    db.LoopSessionFactory.configure(bind=of_other_tests)


@pytest.fixture
def keys(session: Session, project: Project) -> list[str]:
    """A key for each of as many labelers as there are clients."""
    project.lease_duration_s = LEASE_S
    accounts = [Account(email=f"client{number}@example.org", name=f"Client {number}") for number in range(NUM_CLIENTS)]
    session.add_all(accounts)
    session.flush()
    for account in accounts:
        session.add(Membership(account_id=account.id, project_id=project.id, role=Role.LABELER))
        accept_guidelines(session, account)
    keys = [create_key(session, account, "concurrency") for account in accounts]
    session.commit()
    return keys


@pytest.mark.timeout(120)
def test_a_hundred_clients_of_which_some_die_give_every_slate_its_three_rankings_and_lose_none(
    server: str, session: Session, project: Project, keys: list[str]
) -> None:
    for number in range(NUM_SLATES):
        add_slate(session, project, overlap=OVERLAP, prompt=f"Prompt {number}")
    books = Books()
    clients = [Client(server, key, Random(f"{SEED}/{n}"), books) for n, key in enumerate(keys)]
    with ThreadPoolExecutor(1) as thread:  # of its own: in this one, the browser of other tests has an event loop
        thread.submit(lambda: asyncio.run(rank_everything(clients))).result()

    rankings = session.execute(select(Ranking.id, Ranking.slate_id, Ranking.labeler_id, Ranking.counted)).all()
    counted = [(slate_id, labeler_id) for _, slate_id, labeler_id, is_counted in rankings if is_counted]
    assert Counter(slate_id for slate_id, _ in counted) == dict.fromkeys(session.scalars(select(Slate.id)), OVERLAP)
    assert len(set(counted)) == len(counted)  # three rankings of a slate are of three people
    stored = {ranking_id for ranking_id, _, _, _ in rankings}
    assert {UUID(ranking_id) for ranking_id in books.acknowledged} <= stored <= {UUID(each) for each in books.sent}
    items = Counter(session.scalars(select(RankingItem.ranking_id)))
    assert items == dict.fromkeys(stored, 4)  # whole, and once
    assert books.fates.keys() == FATES.keys()  # each of them happened

"""Labelers under whom the installation breaks: what they sent, what was acknowledged, and who behaves badly.

Each works through the proxy with a key of their own, and does what the ranking page does: leases, drafts, renewals,
and a submit with an id of the client's that is sent again until it is answered. Some drop a connection in the middle
of a request, never read an answer, send twice at once, or come back after their lease has run out.
"""

import json
import socket
import threading
import time
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx

from tests.faults.person import Person

REQUEST_TIMEOUT_S = 3.0
PAUSE_S = 0.5  # between two slates, on average
API = "/api/v1"


@dataclass(frozen=True)
class Sent:
    """A ranking as it left the browser."""

    ranking_id: UUID
    lease_id: UUID
    ranks: dict[UUID, int]  # completion id -> rank, dense


@dataclass(frozen=True)
class Receipt:
    """What a 2xx to a submit said."""

    ranking_id: UUID
    counted: bool
    submitted_at: str


@dataclass
class Ledger:
    """All that the labelers know, which the installation must agree with. Shared by their threads."""

    sent: dict[UUID, Sent] = field(default_factory=dict)
    receipts: dict[UUID, Receipt] = field(default_factory=dict)
    drafts: dict[UUID, tuple[int, dict[str, int]]] = field(default_factory=dict)  # lease -> last one acknowledged
    oddities: list[str] = field(default_factory=list)  # answers that nobody should ever get
    begun_at: float = 0.0  # when the submit began that was acknowledged last; monotonic

    def acknowledge(self, answer: httpx.Response, begun_at: float) -> None:
        """Note a receipt. The same ranking has the same receipt, however often it is asked for."""
        body = answer.json()
        receipt = Receipt(UUID(body["id"]), body["counted"], body["submitted_at"])
        first = self.receipts.setdefault(receipt.ranking_id, receipt)
        if first != receipt:
            self.oddities.append(f"ranking {receipt.ranking_id} has two receipts: {first} and {receipt}")
        self.begun_at = max(self.begun_at, begun_at)


class Labeler(Person):
    """One of them."""

    def __init__(self, address: str, slug: str, key: str, rng: Random, ledger: Ledger, lease_duration_s: float) -> None:
        super().__init__("labeler", address, key, patience_s=REQUEST_TIMEOUT_S, oddities=ledger.oddities)
        self.slug, self.rng, self.ledger, self.lease_duration_s = slug, rng, ledger, lease_duration_s

    def run(self) -> None:
        with self._connected() as self._http:
            while not self.stopping.wait(self.rng.random() * 2 * PAUSE_S):
                leases = self._send("POST", f"/projects/{self.slug}/leases", {"wanted": self._wanted()})
                if leases is not None and leases.status_code == 200 and leases.json()["leases"]:
                    self._rank(leases.json()["leases"][0])

    def _wanted(self) -> int:
        return self.rng.choice((1, 2))

    def _rank(self, lease: dict[str, Any]) -> None:
        self._write_drafts(lease)
        if self.rng.random() < 0.2:
            self._send("POST", f"/leases/{lease['id']}/renewal", None)
        if self.rng.random() < 0.03:
            self.stopping.wait(self.lease_duration_s + 1)  # away from the desk: the lease runs out
        sent = Sent(UUID(int=self.rng.getrandbits(128), version=4), UUID(lease["id"]), self._ranks(lease))
        self.ledger.sent[sent.ranking_id] = sent
        self._submit(sent)

    def _ranks(self, lease: dict[str, Any]) -> dict[UUID, int]:
        """A rank for each completion: 1 to the number of different ones, some tied."""
        drawn = {UUID(completion["id"]): self.rng.randrange(4) for completion in lease["completions"]}
        dense = {value: rank for rank, value in enumerate(sorted(set(drawn.values())), start=1)}
        return {completion_id: dense[value] for completion_id, value in drawn.items()}

    def _write_drafts(self, lease: dict[str, Any]) -> None:
        revision = lease["draft"]["revision"] if lease["draft"] else 0
        for _ in range(self.rng.choice((0, 1, 1, 2))):
            ranks = {str(completion_id): rank for completion_id, rank in self._ranks(lease).items()}
            form = {"revision": revision, "content": {"ranks": ranks}}
            saved = self._send("PUT", f"/leases/{lease['id']}/draft", form)
            if saved is None or saved.status_code != 200:
                return  # the slate was given to somebody else meanwhile, or retired
            revision = saved.json()["revision"]
            self.ledger.drafts[UUID(lease["id"])] = (revision, ranks)

    def _submit(self, sent: Sent) -> None:
        path = f"/leases/{sent.lease_id}/ranking"
        form = {
            "ranking_id": str(sent.ranking_id),
            "ranks": {str(completion_id): rank for completion_id, rank in sent.ranks.items()},
        }
        manner = self.rng.random()
        if manner < 0.05:
            self._rudely(path, form, share=0.5)  # half a request, and gone
        elif manner < 0.10:
            self._rudely(path, form, share=1.0)  # whole, and the answer is never read
        elif manner < 0.15:
            self._twice_at_once(path, form)
        self._send_ranking(path, form)
        if self.rng.random() < 0.1:
            self._send_ranking(path, form)  # a page that was opened again

    def _send_ranking(self, path: str, form: dict[str, Any]) -> None:
        begun_at = time.monotonic()
        answer = self._send("POST", path, form)
        if answer is None:
            return
        if answer.status_code in (200, 201):
            self.ledger.acknowledge(answer, begun_at)
        else:
            self.ledger.oddities.append(f"a submit was answered {answer.status_code}: {answer.text[:300]}")

    def _twice_at_once(self, path: str, form: dict[str, Any]) -> None:
        def send() -> None:
            answer = self._ask_once("POST", f"{API}{path}", json=form)
            if answer is not None and answer.status_code in (200, 201):
                self.ledger.acknowledge(answer, begun_at)

        begun_at = time.monotonic()
        other = threading.Thread(target=send, daemon=True)
        other.start()
        self._send_ranking(path, form)
        other.join(2 * REQUEST_TIMEOUT_S)

    def _rudely(self, path: str, form: dict[str, Any], share: float) -> None:
        """Send a share of the request's bytes and hang up."""
        body = json.dumps(form).encode()
        head = (
            f"POST {API}{path} HTTP/1.1\r\nHost: podium\r\nAuthorization: {self._headers['Authorization']}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        request = head + body
        where = urlsplit(self._address)
        try:
            with socket.create_connection((where.hostname, where.port), timeout=REQUEST_TIMEOUT_S) as connection:
                connection.sendall(request[: int(share * len(request))])
        except OSError:
            pass  # the installation is away just now: it did not even hear us

    def _send(self, method: str, path: str, form: dict[str, Any] | None) -> httpx.Response | None:
        return self._until_answered(self._http, method, f"{API}{path}", json=form)

"""A crowd of simulated labelers at work: each has a key, and ranks over the HTTP API that the ranking page uses."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx

from app.errors import PodiumError
from app.simulation.labelers import NOISE, SimulatedLabeler

REQUEST_TIMEOUT_S = 30.0
PATIENCE_S = 120.0  # without any slate to rank: the sampler fills queues in seconds


class NothingToRank(PodiumError):
    """The project gave no slate to any labeler for a long while."""

    code = "nothing_to_rank"

    def __init__(self, patience_s: float) -> None:
        super().__init__(
            f"no slate came for {patience_s:g} seconds: see that the sampler runs and that the project is not paused"
        )


class APIRefused(PodiumError):
    """The server answered a labeler's request with an error."""

    code = "api_refused"

    def __init__(self, response: httpx.Response) -> None:
        request = response.request
        super().__init__(f"{request.method} {request.url.path} was answered {response.status_code}: {response.text}")


@dataclass(frozen=True)
class Crowd:
    """Simulated labelers of one project.

    url: of the web process.  keys: an API key for each labeler.
    """

    url: str
    slug: str
    keys: Sequence[str]
    noise: float = NOISE
    seed: int = 0

    def rank(self, num_rankings: int, on_ranking: Callable[[], None] = lambda: None) -> int:
        """Rank slates until `num_rankings` are in; returns how many are. Raises NothingToRank, APIRefused."""
        tickets = Tickets(num_rankings)
        self._work(tickets, on_ranking)
        return tickets.num_done

    def rank_while(self, is_wanted: Callable[[], bool]) -> int:
        """Rank whatever is given out for as long as it is wanted; returns how many rankings are in."""
        tickets = Tickets(None, is_wanted)
        self._work(tickets, lambda: None)
        return tickets.num_done

    def _work(self, tickets: "Tickets", on_ranking: Callable[[], None]) -> None:
        with ThreadPoolExecutor(len(self.keys), thread_name_prefix="labeler") as pool:
            shifts = [
                pool.submit(
                    self._shift, key, SimulatedLabeler(self.seed * 1000 + number, self.noise), tickets, on_ranking
                )
                for number, key in enumerate(self.keys)
            ]
            for shift in shifts:
                shift.result()

    def _shift(self, key: str, labeler: SimulatedLabeler, tickets: "Tickets", on_ranking: Callable[[], None]) -> None:
        with LabelerClient(self.url, self.slug, key) as client:
            client.accept_guidelines()
            while tickets.take():
                lease = client.next_lease()
                if lease is None:
                    tickets.give_back()
                    continue
                client.submit(lease, judged(labeler, lease))
                tickets.count()
                on_ranking()


class Tickets:
    """How many rankings are still wanted, shared by the labelers of a crowd."""

    def __init__(self, num_wanted: int | None, is_wanted: Callable[[], bool] = lambda: True) -> None:
        self._num_left, self._is_wanted = num_wanted, is_wanted
        self.num_done = 0
        self._last_at = time.monotonic()
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Whether one more ranking is wanted. Raises NothingToRank when none came for too long."""
        if not self._is_wanted():
            return False
        with self._lock:
            if self._num_left is not None:
                if self._num_left == 0:
                    return False
                self._num_left -= 1
            if time.monotonic() - self._last_at > PATIENCE_S:
                raise NothingToRank(PATIENCE_S)
            return True

    def give_back(self) -> None:
        with self._lock:
            if self._num_left is not None:
                self._num_left += 1

    def count(self) -> None:
        with self._lock:
            self.num_done += 1
            self._last_at = time.monotonic()


class LabelerClient:
    """One labeler's side of the labeling API."""

    def __init__(self, url: str, slug: str, key: str) -> None:
        self._slug = slug
        self._http = httpx.Client(
            base_url=f"{url}/api/v1", headers={"Authorization": f"Bearer {key}"}, timeout=REQUEST_TIMEOUT_S
        )

    def __enter__(self) -> "LabelerClient":
        return self

    def __exit__(self, *error: object) -> None:
        self._http.close()

    def accept_guidelines(self) -> None:
        """Accept the newest guidelines, as a person does before their first slate."""
        path = f"/projects/{self._slug}/guidelines"
        version = self._answer(self._http.get(path))["version"]
        self._post(f"{path}/{version}/acceptance", {})

    def next_lease(self) -> dict[str, Any] | None:
        """The slate to rank now; None after a short wait when none is free."""
        answer = self._post(f"/projects/{self._slug}/leases", {"wanted": 1})
        if answer["leases"]:
            lease: dict[str, Any] = answer["leases"][0]
            return lease
        time.sleep(min(float(answer["retry_after_s"]), 0.5))
        return None

    def submit(self, lease: dict[str, Any], form: dict[str, Any]) -> dict[str, Any]:
        """Send the ranking; returns the receipt."""
        return self._post(f"/leases/{lease['id']}/ranking", form)

    def _post(self, path: str, form: dict[str, Any]) -> dict[str, Any]:
        return self._answer(self._http.post(path, json=form))

    def _answer(self, response: httpx.Response) -> dict[str, Any]:
        if response.is_error:
            raise APIRefused(response)
        answer: dict[str, Any] = response.json()
        return answer


def judged(labeler: SimulatedLabeler, lease: dict[str, Any]) -> dict[str, Any]:
    """The form that the labeler would send for a leased slate: they see the texts, and nothing else."""
    prompt = shown_text(lease["prompt"])
    ids = [completion["id"] for completion in lease["completions"]]
    judgement = labeler.judge(prompt, [completion["text"] for completion in lease["completions"]])
    form: dict[str, Any] = {
        "ranking_id": str(uuid4()),
        "ranks": dict(zip(ids, judgement.ranks, strict=True)),
        "active_s": 0.0,
    }
    if lease["asks_full_form"]:
        form["qualities"] = dict(zip(ids, judgement.qualities, strict=True))
    if lease["asks_safety"]:
        form["is_safe"] = dict.fromkeys(ids, True)  # their taste knows nothing of danger
    return form


def shown_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """A prompt as a simulated labeler reads it: its turns, one after another."""
    return "\n".join(message["content"] for message in messages)

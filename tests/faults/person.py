"""What people at work have in common: a thread of their own, and a web that is away now and then."""

import threading
from typing import Any

import httpx

RETRY_S = 0.3
IN_PASSING = (429, 502, 503, 504)  # said while something restarts: the page tries again


class Person(threading.Thread):
    """Somebody at work, with a key of their own, until they are told to stop. What they do is their `run`."""

    def __init__(self, name: str, address: str, key: str, *, patience_s: float, oddities: list[str]) -> None:
        """oddities: where answers are noted that nobody should ever get."""
        super().__init__(name=name, daemon=True)
        self.stopping = threading.Event()
        self._address, self._patience_s, self._oddities = address, patience_s, oddities
        self._headers = {"Authorization": f"Bearer {key}"}

    def stop(self) -> None:
        self.stopping.set()

    def _connected(self) -> httpx.Client:
        return httpx.Client(base_url=self._address, headers=self._headers, timeout=self._patience_s)

    def _ask(self, http: httpx.Client, method: str, path: str, **content: Any) -> httpx.Response | None:
        """The answer; None where there was none, or none that says whether it was done."""
        try:
            answer = http.request(method, path, **content)
        except httpx.HTTPError:
            return None
        if answer.status_code in IN_PASSING:
            return None
        if answer.status_code >= 500:
            self._note(method, path, answer)
            return None
        return answer

    def _ask_once(self, method: str, path: str, **content: Any) -> httpx.Response | None:
        """The same, over a connection of its own."""
        with self._connected() as http:
            return self._ask(http, method, path, **content)

    def _until_answered(self, http: httpx.Client, method: str, path: str, **content: Any) -> httpx.Response | None:
        """The answer, however often it takes; None when the work ends before there is one."""
        while True:
            answer = self._ask(http, method, path, **content)
            if answer is not None or self.stopping.wait(RETRY_S):
                return answer

    def _note(self, method: str, path: str, answer: httpx.Response) -> None:
        self._oddities.append(f"{method} {path} was answered {answer.status_code}: {answer.text[:2000]}")

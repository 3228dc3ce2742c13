"""Real web processes that are asked to stop: they finish what they began, and send nobody away empty-handed."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from app.monitoring import stopping
from app.prompts.models import Split
from tests.app.conftest import Person
from tests.app.loop import make_prompts, make_slate
from tests.app.monitoring.test_metrics import TOKEN, numbers, of
from tests.faults.processes import children_of, command_of, is_running, wait_for


class Web:
    """`podium serve` as an operator runs it."""

    def __init__(self, process: "subprocess.Popen[str]", address: str, log: Path) -> None:
        self.process, self.address, self.log = process, address, log

    def get(self, path: str, **options: Any) -> httpx.Response:
        """Over a connection of its own, so that any of several workers may answer."""
        return httpx.get(self.address + path, timeout=20, **options)

    def says(self, path: str) -> str:
        try:
            return self.get(path).text.strip()
        except httpx.TransportError:
            return "gone"

    def ask_to_stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)


@pytest.fixture
def serve(engine: Engine, tmp_path: Path) -> Iterator[Callable[..., Web]]:
    started: list[Web] = []

    def serve(**settings: str) -> Web:
        url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        environment = {**os.environ, "DATABASE_URL": url, "PODIUM_HOME": str(tmp_path), "PYTHONUNBUFFERED": "1"}
        log = tmp_path / f"web{len(started)}.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", "serve", "--port", "0"],
                env={**environment, "PODIUM_LOG_FORMAT": "json", **settings},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert process.stdout is not None
        address = process.stdout.readline().removeprefix("Podium is at ").strip()
        assert address, log.read_text()
        started.append(Web(process, address, log))
        wait_for(lambda: started[-1].says("/readyz") == "ready", f"the web process, whose log is {log}")
        return started[-1]

    yield serve
    for web in started:
        web.process.kill()
        web.process.wait()
        assert web.process.stdout is not None
        web.process.stdout.close()


@contextmanager
def locked(engine: Engine, table: str) -> Iterator[None]:
    """Nobody writes to the table while the block lasts."""
    with engine.connect() as connection:
        connection.execute(text(f"LOCK TABLE {table} IN EXCLUSIVE MODE"))
        yield


def is_waiting(engine: Engine) -> bool:
    with engine.connect() as connection:
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        return bool(connection.scalar(text(waiting)))


def test_a_request_that_runs_when_the_stop_comes_is_answered(
    serve: Callable[..., Web], session: Session, engine: Engine, labeler: Person, project: Any
) -> None:
    (prompt,) = make_prompts(session, project, Split.TRAIN, 1)
    slate = make_slate(session, prompt)
    session.commit()
    lease = labeler.post("/api/v1/projects/everyday/leases", json={"wanted": 1}).json()["leases"][0]
    web = serve()
    ranks = {str(completion.id): place for place, completion in enumerate(slate.completions, start=1)}
    answers: list[httpx.Response] = []

    def submit() -> None:
        answers.append(
            httpx.post(
                f"{web.address}/api/v1/leases/{lease['id']}/ranking",
                json={"ranking_id": str(uuid4()), "ranks": ranks},
                cookies=dict(labeler.cookies),
                headers={"x-csrf-token": labeler.csrf_token or ""},
                timeout=30,
            )
        )

    with locked(engine, "ranking"):
        submitting = threading.Thread(target=submit)
        submitting.start()
        wait_for(lambda: is_waiting(engine), "the submit to wait")
        web.ask_to_stop()
        wait_for(lambda: web.says("/healthz") == "gone", "the process to take no more")
        assert web.process.poll() is None
    submitting.join(30)
    assert [answer.status_code for answer in answers] == [201]
    assert session.scalar(text("SELECT count(*) FROM ranking")) == 1
    assert web.process.wait(20) == 0


def test_live_pages_are_told_when_to_come_back_and_a_proxy_is_told_before(
    serve: Callable[..., Web], researcher: Person, project: Any
) -> None:
    web = serve(PODIUM_DRAIN_S="1.5")
    with httpx.stream(
        "GET", f"{web.address}/projects/everyday/events", cookies=dict(researcher.cookies), timeout=20
    ) as live:
        lines = live.iter_lines()
        assert next(lines) == "retry: 2000"
        web.ask_to_stop()
        wait_for(lambda: web.says("/readyz") == "stopping", "the process to say that it is not ready")
        assert web.says("/healthz") == "alive"
        assert web.get("/sign-in").status_code == 200
        last = [line for line in lines if line][-1]  # the stream ends by itself, and in good order
    assert last.startswith("retry: ")
    web.process.wait(10)
    assert "Cancel" not in web.log.read_text()


def twice(web: Web, pids: list[int]) -> None:
    """What systemd does with a service: each of its processes is asked, and our own then ask their children."""
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    wait_for(lambda: web.says("/readyz") in ("stopping", "gone"), "the process to be asked")
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def test_the_same_signal_on_two_ways_does_not_cut_the_time_for_a_proxy_short(serve: Callable[..., Web]) -> None:
    web = serve(PODIUM_DRAIN_S="300")
    twice(web, [web.process.pid])
    for _ in range(3):
        assert web.says("/readyz") == "stopping"
        assert web.get("/sign-in").status_code == 200


def test_workers_take_no_second_signal(serve: Callable[..., Web]) -> None:
    web = serve(PODIUM_WEB_WORKERS="2", PODIUM_DRAIN_S="300")
    workers = workers_of(web)
    try:
        twice(web, [*workers, web.process.pid])
        # The parent has said its own by now: it waits for them to end.
        wait_for(lambda: web.log.read_text().count("Waiting for child") >= 1, "the parent to ask its workers too")
        assert web.says("/readyz") == "stopping"
        assert all(is_running(pid) for pid in workers)
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("drain_s", [0.0, 300.0])
def test_a_second_signal_by_hand_ends_it_at_once_and_only_once(monkeypatch: pytest.MonkeyPatch, drain_s: float) -> None:
    """The server hears of it once: told again of a Ctrl-C, it would cut off the requests that run."""
    heard: list[int] = []
    ended: list[bool] = []
    monkeypatch.setattr(stopping, "_asked", threading.Event())
    monkeypatch.setattr(stopping, "_due", threading.Event())
    monkeypatch.setattr(stopping, "SAME_S", -1.0)

    async def story() -> None:
        with stopping.graceful(drain_s, end_streams=lambda: ended.append(True)):
            signal.raise_signal(signal.SIGINT)
            if drain_s:
                signal.raise_signal(signal.SIGINT)
            while not heard:
                await asyncio.sleep(0)
            for _ in range(10):
                await asyncio.sleep(0)
            timers = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
            assert [timer for timer in timers if not timer.cancelled()] == []

    before = {sig: signal.signal(sig, lambda sig, frame: heard.append(sig)) for sig in (signal.SIGINT, signal.SIGTERM)}
    of_a_browser = asyncio._get_running_loop()  # of another test: signals come to this thread alone
    asyncio._set_running_loop(None)
    try:
        asyncio.run(story())
    finally:
        asyncio._set_running_loop(of_a_browser)
        for sig, handler in before.items():
            signal.signal(sig, handler)
    assert (heard, ended) == ([signal.SIGINT], [True])


def workers_of(web: Web) -> list[int]:
    return [pid for pid in children_of(web.process.pid) if "spawn_main" in command_of(pid)]


def test_a_scrape_of_any_worker_tells_what_all_of_them_counted_and_none_outlives_their_parent(
    serve: Callable[..., Web],
) -> None:
    web = serve(PODIUM_WEB_WORKERS="2", PODIUM_METRICS_TOKEN=TOKEN, PODIUM_POOL_SIZE="4")

    def scrape() -> Any:
        return numbers(web.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"}).text)

    wait_for(lambda: of(scrape(), "podium_web_processes") == 2, "both workers")
    for _ in range(12):
        assert web.get("/sign-in").status_code == 200
    for _ in range(4):
        told = scrape()
        assert of(told, "podium_http_requests_total", method="GET", route="/sign-in", status="200") == 12
        assert of(told, "podium_web_connections_max", pool="pages") == 2 * 2
    workers = workers_of(web)
    assert len(workers) == 2
    web.process.kill()
    wait_for(lambda: not any(is_running(pid) for pid in workers), "the workers to end with their parent")

"""`podium up` runs everything, starts again what dies, and leaves nothing behind however it ends."""

import contextlib
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from app import embedded_postgres
from app.db import driver_url
from app.people.models import Membership, Role
from app.people.service import create_account, create_key
from app.projects.service import get_project
from tests.faults.processes import children_of, command_of, is_running, wait_for


@dataclass
class Installation:
    """A running `podium up`."""

    home: Path
    process: "subprocess.Popen[str]"
    lines: "queue.Queue[str]"
    address: str = ""

    def line(self, beginning: str) -> str:
        """The next line it prints that begins so."""
        while True:
            line = self.lines.get(timeout=120)
            assert line is not None, "podium up ended"
            if line.startswith(beginning):
                return line

    def child(self, words: str) -> int:
        """The process id of the child whose command has these words."""
        return next(pid for pid in children_of(self.process.pid) if words in command_of(pid))

    def answers(self, path: str = "/readyz") -> bool:
        try:
            return httpx.get(self.address + path, timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    @property
    def postmaster(self) -> int:
        return int((self.home / "postgres" / "data" / "postmaster.pid").read_text().split()[0])


@pytest.fixture
def installation() -> Iterator[Installation]:
    home = Path(tempfile.mkdtemp(prefix="podium up "))
    kept = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "up", "--port", "0"],
        env={**kept, "PODIUM_HOME": str(home), "PODIUM_DEVICE": "cpu", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=lambda: [lines.put(line.strip()) for line in process.stdout or ()])
    reader.start()
    running = Installation(home, process, lines)
    try:
        running.address = running.line("Podium is at ").removeprefix("Podium is at ")
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        process.kill()
        process.wait()
        reader.join()
        assert process.stdout is not None
        process.stdout.close()
        embedded_postgres.stop(home / "postgres")
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def database(installation: Installation) -> Iterator[Session]:
    engine = create_engine(driver_url(embedded_postgres.start(installation.home / "postgres")))
    with Session(engine) as session:
        yield session
    engine.dispose()


def api_key(installation: Installation) -> str:
    """A key of somebody who may rank in the starter project."""
    with database(installation) as session:
        account = create_account(session, email="lena@example.org", name="Lena", password=None)
        project = get_project(session, "starter")
        session.add(Membership(account_id=account.id, project_id=project.id, role=Role.LABELER))
        key = create_key(session, account, "tests")
        session.commit()
    return key


def rank_one(installation: Installation, key: str) -> str:
    """Rank the next slate over HTTP; the id of the ranking that was acknowledged."""
    with httpx.Client(
        base_url=f"{installation.address}/api/v1", headers={"Authorization": f"Bearer {key}"}, timeout=60
    ) as client:
        leases = []

        def leased() -> bool:
            leases[:] = client.post("/projects/starter/leases", json={"wanted": 1}).raise_for_status().json()["leases"]
            return bool(leases)

        wait_for(leased, "a slate to rank")
        ranking_id = str(uuid4())
        completions = leases[0]["completions"]
        ranks = {completion["id"]: place for place, completion in enumerate(completions, start=1)}
        form = {"ranking_id": ranking_id, "ranks": ranks}
        response = client.post(f"/leases/{leases[0]['id']}/ranking", json=form)
        assert response.status_code == 201, response.text
    return ranking_id


def test_everything_starts_and_a_stop_leaves_nothing_running(installation: Installation) -> None:
    link = installation.line("Open this link once").rpartition(" ")[2]
    assert link.startswith(installation.address + "/invitations/")
    wait_for(lambda: installation.answers("/sign-in"), "the sign-in page")
    assert httpx.get(link, timeout=10).status_code == 200
    rank_one(installation, api_key(installation))
    children, postmaster = children_of(installation.process.pid), installation.postmaster
    assert len(children) == 3
    installation.process.send_signal(signal.SIGTERM)
    assert installation.process.wait(60) == 0
    assert not any(is_running(pid) for pid in (*children, postmaster))


def test_what_dies_is_started_again_and_what_was_acknowledged_is_kept(installation: Installation) -> None:
    wait_for(installation.answers, "the web process")
    key = api_key(installation)
    acknowledged = [rank_one(installation, key)]
    for name, words in (("web", "serve"), ("sampler", "trainer.sampler"), ("trainer", "trainer.worker")):
        os.kill(installation.child(words), signal.SIGKILL)
        installation.line(f"{name} ended (killed by SIGKILL)")
    wait_for(installation.answers, "the web process to come back")
    acknowledged.append(rank_one(installation, key))
    os.kill(installation.postmaster, signal.SIGKILL)
    installation.line("the database ended")
    wait_for(installation.answers, "the database to come back")
    acknowledged.append(rank_one(installation, key))
    with database(installation) as session:
        stored = {str(id) for (id,) in session.execute(text("SELECT id FROM ranking"))}
    assert stored == set(acknowledged)
    children = children_of(installation.process.pid)
    installation.process.kill()
    wait_for(lambda: not any(is_running(pid) for pid in children), "the children to end with their parent")

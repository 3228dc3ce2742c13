# ruff: noqa: F811 - fixtures are found by name
"""`podium up` runs everything, starts again what dies, and leaves nothing behind however it ends."""

import contextlib
import os
import signal
from collections.abc import Iterator
from uuid import uuid4

import httpx
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from app.db import clock, driver_url
from app.people.models import Membership, Role
from app.people.service import create_account, create_key
from app.projects.service import get_project
from app.quality.guidelines import accept
from tests.faults.processes import children_of, is_running, wait_for
from tests.installation import Installation, installation  # noqa: F401


@contextlib.contextmanager
def database(installation: Installation) -> Iterator[Session]:
    engine = create_engine(driver_url(installation.database_url))
    with Session(engine) as session:
        yield session
    engine.dispose()


def api_key(installation: Installation) -> str:
    """A key of somebody who may rank in the starter project."""
    with database(installation) as session:
        account = create_account(session, email="lena@example.org", name="Lena", password=None)
        project = get_project(session, "starter")
        session.add(Membership(account_id=account.id, project_id=project.id, role=Role.LABELER))
        accept(session, account, project, version=1, now=clock(session))
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

"""A whole installation of its own for faults to happen to: real processes, a real Postgres, people at work.

    labelers ──proxy──► podium serve (2 workers) ─┐
                        sampler, two trainers     ├──proxy──► Postgres
                        and their recipes        ─┘

Web, sampler and trainers are children under the supervision that `podium up` uses; Postgres is started again as it
does. Both proxies are the network. Artifacts and the database lie on disks of their own where this user may mount
them, so that each can be filled.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
from psycopg.rows import dict_row

from app import embedded_postgres, serving
from app.settings import Settings
from app.supervision import FIRST_PAUSE_S, Child
from tests.faults.administrator import Administrator
from tests.faults.labelers import Labeler, Ledger
from tests.faults.person import Person
from tests.faults.processes import children_of, command_of, is_running
from tests.faults.project import LEASE_DURATION_S, settle_in
from tests.faults.proxy import Ends, Proxy

SLUG = "faults"
NUM_LABELERS = 6
LOOK_S = 0.1
PATIENCE_S = 240.0  # what has not recovered after this has not recovered; seconds where nothing else runs
LOCK_TIMEOUT_S = 1
LEAVE_S = 20.0  # in the end, for all the people together, and then for all the processes
ARTIFACTS_MB, POSTGRES_MB = 48, 400


class NeverCame(Exception):
    """What always comes did not: an earlier fault has left something broken."""


class World:
    """The running installation, and the handles by which it is disturbed and looked at."""

    def __init__(self, policy: Path, seed: int) -> None:
        """policy: the folder of a tiny policy that the project starts from."""
        self.policy, self.seed = policy, seed
        self.home = Path(tempfile.mkdtemp(prefix="podium faults "))
        self.ledger = Ledger()
        self.verified: set[int] = set()  # stages whose result was looked at
        self.postgres_may_run = True
        self._ending = threading.Event()
        self._ends = contextlib.ExitStack()

    def __enter__(self) -> "World":
        with self._ends:
            self._build()
            self._ends = self._ends.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._ends.close()

    # Building

    def _build(self) -> None:
        self._ends.callback(shutil.rmtree, self.home, ignore_errors=True)
        self.artifacts, self.postgres = self.home / "artifacts", self.home / "postgres"
        self.has_disks = all(
            [self._mount(self.artifacts, ARTIFACTS_MB), self._mount(self.postgres, POSTGRES_MB)]  # both are tried
        )
        self.url = embedded_postgres.start(self.postgres)
        self._ends.callback(embedded_postgres.stop, self.postgres)
        keys, admin_key = settle_in(self.url, self.policy, SLUG, NUM_LABELERS)
        self.database = Proxy(self._to_postgres, self.seed)
        self._ends.callback(self.database.close)
        listener = self._ends.enter_context(serving.listen(Settings(home=self.home, host="127.0.0.1", port=0)))
        self.web_port: int = listener.getsockname()[1]
        self.browsers = Proxy(self._to_web, self.seed + 1)
        self._ends.callback(self.browsers.close)
        self.address = f"http://127.0.0.1:{self.browsers.port}"
        rng = Random(f"{self.seed}/administrator")
        self.administrator = Administrator(self.address, SLUG, admin_key, self.url, rng)
        labelers = [self._labeler(number, key) for number, key in enumerate(keys)]
        self.people: list[Person] = [*labelers, self.administrator]
        self.children = self._children(listener)
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._supervisor.start()
        self._ends.callback(self._stop)
        for person in self.people:
            person.start()

    def _mount(self, folder: Path, size_mb: int) -> bool:
        """Give the folder a small disk of its own; whether this user may."""
        folder.mkdir()
        if os.geteuid() != 0:
            return False
        options = f"size={size_mb}m,mode=0755"
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "podium-faults", folder], capture_output=True)
        if mounted.returncode != 0:
            return False
        self._ends.callback(subprocess.run, ["umount", "--lazy", folder], check=False)
        return True

    def _children(self, listener: socket.socket) -> dict[str, Child]:
        environment = {
            "DATABASE_URL": f"postgresql://postgres@127.0.0.1:{self.database.port}/postgres",
            "PODIUM_HOME": str(self.home),
            "PODIUM_ARTIFACTS": str(self.artifacts),
            "PODIUM_DEVICE": "cpu",
            "PODIUM_THREADS": "1",
            "PODIUM_WEB_WORKERS": "2",
            "PODIUM_POOL_SIZE": "6",
            "PYTHONUNBUFFERED": "1",
        }
        descriptor = listener.fileno()
        commands = {
            "web": ["-m", "app.cli", "serve", "--listener", str(descriptor)],
            "sampler": ["-m", "trainer.sampler"],
            "trainer": ["-m", "trainer.worker"],
            "other trainer": ["-m", "trainer.worker"],
        }
        return {
            name: Child(
                name,
                [sys.executable, *command],
                environment,
                self.home / "logs" / f"{name}.log",
                pass_fds=(descriptor,) if name == "web" else (),
            )
            for name, command in commands.items()
        }

    def _labeler(self, number: int, key: str) -> Labeler:
        rng = Random(f"{self.seed}/labeler/{number}")
        return Labeler(self.address, SLUG, key, rng, self.ledger, LEASE_DURATION_S)

    async def _to_postgres(self) -> Ends:
        socket_folder = parse_qs(urlsplit(self.url).query)["host"][0]
        return await asyncio.open_unix_connection(f"{socket_folder}/.s.PGSQL.5432")

    async def _to_web(self) -> Ends:
        return await asyncio.open_connection("127.0.0.1", self.web_port)

    # Supervision, as `podium up` does it

    def _supervise(self) -> None:
        while not self._ending.wait(LOOK_S):
            for child in self.children.values():
                child.pause_s = FIRST_PAUSE_S  # hundreds of deaths in a row are our doing
                child.look_after(time.monotonic())
            if self.postgres_may_run and not self.is_postgres_running():
                with contextlib.suppress(embedded_postgres.PostgresDidNotStart, OSError):  # full disk, last backends
                    embedded_postgres.start(self.postgres)

    def _stop(self) -> None:
        for person in self.people:
            person.stop()
        self._ending.set()
        self._supervisor.join(30)
        all_by = time.monotonic() + LEAVE_S
        for person in self.people:
            person.join(max(0.0, all_by - time.monotonic()))
        with contextlib.suppress(embedded_postgres.PostgresDidNotStart):
            embedded_postgres.start(self.postgres)
        for child in self.children.values():
            child.ask_to_stop()
        all_by = time.monotonic() + LEAVE_S
        for child in self.children.values():
            child.wait_or_kill(max(0.0, all_by - time.monotonic()))

    # Handles

    def pid(self, name: str) -> int | None:
        process = self.children[name].process
        return process.pid if process is not None and process.poll() is None else None

    def pids(self) -> list[int]:
        """The children that live now."""
        return [pid for name in self.children if (pid := self.pid(name)) is not None]

    def web_workers(self) -> list[int]:
        supervisor = self.pid("web")
        return [] if supervisor is None else [pid for pid in children_of(supervisor) if "spawn_main" in command_of(pid)]

    def trainers(self) -> list[int]:
        return [pid for name in ("trainer", "other trainer") if (pid := self.pid(name)) is not None]

    def recipe(self) -> tuple[int, int] | None:
        """The recipe that runs and the trainer that started it."""
        for trainer in self.trainers():
            for pid in children_of(trainer):
                if "trainer.recipes" in command_of(pid):
                    return pid, trainer
        return None

    def running_recipe(self) -> tuple[int, int]:
        """The same, once there is one in the middle of its steps."""
        found: list[tuple[int, int]] = []

        def runs() -> bool:
            found[:] = [pair] if (pair := self.recipe()) else []
            return bool(found) and self.has_steps()

        if until(runs) is None:
            raise NeverCame(f"in {PATIENCE_S:.0f} s no recipe ran")
        return found[0]

    def has_steps(self) -> bool:
        """Whether the stage that runs has measured something."""
        rows = self.ask("SELECT folder FROM stage WHERE state = 'running'")
        files = [self.artifacts / row["folder"] / "metrics.jsonl" for row in rows]
        return any(file.exists() and file.stat().st_size > 0 for file in files)

    def postmaster(self) -> int | None:
        try:
            return int((self.postgres / "data" / "postmaster.pid").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return None

    def is_postgres_running(self) -> bool:
        pid = self.postmaster()
        return pid is not None and is_running(pid)

    def hasten(self, pid: int) -> bool:
        """Let the deadlines of what a process has claimed come now, and not in half a minute or a whole one.

        False where that cannot be said: the database is away, or the process has its claims locked.
        """
        overdue = "UPDATE {} SET deadline = clock_timestamp() WHERE state = '{}' AND owner LIKE %s"
        owners = f"%:{pid}-%"
        return all(
            [
                self.tell(overdue.format("stage", "running"), owners),
                self.tell(overdue.format("slate", "sampling"), owners),
            ]
        )

    def hasten_the_dead(self) -> None:
        """The same for whoever has died. Their claims would run out anyway; nobody wants to watch that."""
        owners = self.ask(
            "SELECT owner FROM stage WHERE state = 'running' AND deadline > clock_timestamp()"
            " UNION SELECT owner FROM slate WHERE state = 'sampling' AND deadline > clock_timestamp()"
        )
        for pid in {int(row["owner"].rpartition(":")[2].partition("-")[0]) for row in owners}:
            if not is_running(pid):
                self.hasten(pid)

    # What says that it works

    def moment(self) -> datetime | None:
        """The database's time; None while it is away."""
        rows = self.ask("SELECT clock_timestamp() AS now")
        return rows[0]["now"] if rows else None

    def num_beating(self, since: datetime | None) -> int:
        """How many samplers and trainers that live now have been heard of since."""
        rows = self.ask("SELECT owner FROM heartbeat WHERE beat_at > %s", since)
        living = set(self.pids())
        return sum(int(row["owner"].rpartition(":")[2].partition("-")[0]) in living for row in rows)

    def is_round_active(self) -> bool:
        return bool(self.ask("SELECT FROM round WHERE state NOT IN ('succeeded', 'cancelled')"))

    def progress(self) -> list[dict[str, Any]]:
        """What changes when a round goes on; nothing while the database is away."""
        return self.ask(
            "SELECT (SELECT count(*) FROM metric) AS num_metrics, (SELECT count(*) FROM stage_event"
            " WHERE phase IN ('storing', 'ended')) AS num_ends, (SELECT max(id) FROM round) AS round"
        )

    # Looking from outside: past the proxies, in plain SQL

    @contextlib.contextmanager
    def connection(self) -> Iterator[psycopg.Connection[dict[str, Any]]]:
        with psycopg.connect(self.url, row_factory=dict_row, connect_timeout=5) as connection:
            yield connection

    def ask(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """The rows that the database answers with; none while it is away."""
        try:
            with self.connection() as connection:
                return connection.execute(query, values or None).fetchall()  # type: ignore[call-overload,no-any-return]
        except psycopg.OperationalError:
            return []

    def tell(self, statement: str, *values: Any) -> bool:
        """Whether it was done. It waits for no lock: whoever holds one may be standing still by our own doing."""
        try:
            with self.connection() as connection:
                connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'")
                connection.execute(statement, values or None)  # type: ignore[call-overload]
        except psycopg.OperationalError:
            return False
        return True

    def logs(self, num_lines: int = 40) -> str:
        """The last lines that each process printed."""
        parts = []
        for log in sorted((self.home / "logs").glob("*.log")):
            lines = log.read_text(errors="replace").splitlines()[-num_lines:]
            parts.append("\n".join([f"== {log.name}", *lines]))
        return "\n".join(parts)


def kill(pid: int | None) -> None:
    """kill -9, if it is still there to be killed."""
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def until(happened: Callable[[], bool], patience_s: float = PATIENCE_S) -> float | None:
    """Wait for it; how many seconds that took, None if it never came."""
    begun_at = time.monotonic()
    while not happened():
        if time.monotonic() - begun_at > patience_s:
            return None
        time.sleep(LOOK_S)
    return time.monotonic() - begun_at

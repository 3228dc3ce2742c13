"""A web product of its own for a load test: real processes, a Postgres that syncs, and slates ready to rank."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psycopg
from sqlalchemy import Connection, text

from app import db, embedded_postgres, migrate
from app.people.models import Account, APIKey, Membership, Role
from app.people.passwords import new_token, token_hash
from app.projects.models import Project
from app.prompts.models import Prompt, PromptKind, Split, Use

SLUG = "load"
K, WORDS = 6, 60  # of a slate, and of each completion
NUM_PROMPTS = 500
SLATES = """
INSERT INTO slate (id, project_id, prompt_id, kind, state, k, overlap, ready_at, created_at, free_from)
SELECT gen_random_uuid(), :project, prompts[1 + n % array_length(prompts, 1)], 'training', 'ready', :k, :overlap, now(),
       now() - n * interval '1 millisecond', now() - n * interval '1 millisecond'
FROM generate_series(1, :slates) AS n, (SELECT array_agg(id) AS prompts FROM prompt WHERE project_id = :project) AS p
"""
COMPLETIONS = """
INSERT INTO completion (id, slate_id, position, text, source)
SELECT gen_random_uuid(), slate.id, place, place || repeat(' word', :words), 'imported'
FROM slate, generate_series(0, :k - 1) AS place
WHERE project_id = :project
"""
# What must never be: a slate with more rankings that count than it asked for, or two of one person.
DUPLICATES = """
SELECT count(*) FROM (
    SELECT slate_id FROM ranking WHERE counted AND retracted_at IS NULL GROUP BY slate_id
    HAVING count(*) > (SELECT overlap FROM slate WHERE slate.id = slate_id) OR count(*) > count(DISTINCT labeler_id)
) AS wrong
"""


@dataclass(frozen=True)
class Server:
    """A running web product. keys: one for each labeler.  home: its folder."""

    port: int
    keys: list[str]
    url: str
    home: Path
    process: "subprocess.Popen[str]"

    def resident_mb(self) -> float:
        """Memory of the web processes, in MB: proportional, so that shared pages count once."""
        return sum(proportional_kb(pid) for pid in family(self.process.pid)) / 1024

    def cpu_s(self) -> dict[str, float]:
        """Seconds of a core that the web processes and Postgres have used so far."""
        return {"web": family_cpu_s(self.process.pid), "postgres": family_cpu_s(self.postmaster())}

    def postmaster(self) -> int:
        """The process that started all others of Postgres."""
        with psycopg.connect(self.url) as connection:
            return int(process_stat(connection.info.backend_pid)[1])

    def connections(self) -> int:
        """Connections that the web processes hold to the database."""
        return self._count("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'podium-web%'")

    def rankings(self) -> int:
        return self._count("SELECT count(*) FROM ranking")

    def duplicates(self) -> int:
        return self._count(DUPLICATES)

    def _count(self, query: str) -> int:
        with psycopg.connect(self.url) as connection:
            row = connection.execute(query).fetchone()  # type: ignore[call-overload]
        assert row is not None
        return int(row[0])


@contextlib.contextmanager
def serve(*, num_slates: int, num_labelers: int, overlap: int, workers: int) -> Iterator[Server]:
    """Start everything, fill it, and leave nothing behind."""
    home = Path(tempfile.mkdtemp(prefix="podium-load-"))
    process: subprocess.Popen[str] | None = None
    try:
        url = embedded_postgres.start(home / "postgres")
        engine = db.connect(url, application="podium-load")
        migrate.upgrade(engine)
        with engine.begin() as connection:
            keys = fill(connection, num_slates=num_slates, num_labelers=num_labelers, overlap=overlap)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))
            connection.execute(text("CHECKPOINT"))  # what was filled is on disk before anyone works
        engine.dispose()
        environment = {
            **os.environ,
            "DATABASE_URL": url,
            "PODIUM_HOME": str(home),
            "PODIUM_WEB_WORKERS": str(workers),
            "PODIUM_LOG_LEVEL": "warning",
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "serve", "--port", "0"],
            env={**environment, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        first_line = process.stdout.readline()
        yield Server(int(first_line.rsplit(":", 1)[1]), keys, url, home, process)
    finally:
        if process is not None:
            process.terminate()
            process.wait(30)
        embedded_postgres.stop(home / "postgres")
        shutil.rmtree(home, ignore_errors=True)


def fill(connection: Connection, *, num_slates: int, num_labelers: int, overlap: int) -> list[str]:
    """A project with slates that are ready, and labelers with a key each; returns the keys."""
    with db.SessionFactory(bind=connection, join_transaction_mode="create_savepoint") as session:
        project = Project(slug=SLUG, name="Load", overlap=overlap, queue_target=0)
        session.add(project)
        session.flush()
        session.add_all(
            Prompt(
                project_id=project.id,
                messages=[{"role": "user", "content": f"Prompt {number}: " + "word " * 40}],
                text_hash=number.to_bytes(4, "big"),
                group_key=str(number),
                split=Split.TRAIN,
                use=Use.RANK,
                kind=PromptKind.PLAIN,
            )
            for number in range(NUM_PROMPTS)
        )
        keys = [new_token() for _ in range(num_labelers)]
        accounts = [Account(email=f"{number}@load.test", name=f"Labeler {number}") for number in range(num_labelers)]
        session.add_all(accounts)
        session.flush()
        now = db.clock(session)
        for account, key in zip(accounts, keys, strict=True):
            session.add(Membership(account_id=account.id, project_id=project.id, role=Role.LABELER))
            session.add(
                APIKey(
                    account_id=account.id,
                    name="load",
                    prefix=key[:6],
                    secret_hash=token_hash(key),
                    last_used_at=now + timedelta(hours=1),
                )
            )
        session.flush()
        numbers = {"project": project.id, "k": K, "overlap": overlap, "slates": num_slates, "words": WORDS}
        session.execute(text(SLATES), numbers)
        session.execute(text(COMPLETIONS), numbers)
        session.commit()
    return keys


def proportional_kb(pid: int) -> int:
    """None of a process that has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return 0


def family(pid: int) -> list[int]:
    """A process and all that it has started."""
    pids = [pid]
    for parent in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            pids.extend(map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split()))
    return pids


def family_cpu_s(pid: int) -> float:
    """Seconds of a core used by a process, by those it has started, and by those of them that have ended."""
    ticks = sum(int(field) for pid in family(pid) for field in process_stat(pid)[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def process_stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on (proc(5)): the state, the parent's id, …; none once it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []

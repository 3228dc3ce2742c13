"""How fast a snapshot becomes a file, and how much memory that takes.

    python -m benchmarks.datasets                             5,200 rankings, 100,000 comparisons
    python -m benchmarks.datasets --rankings 52000 --write    a million comparisons

Slates of 4 to 9 completions of about 250 characters, a third of the rankings on slates that three people ranked. All is
made in SQL, in a folder that is deleted afterwards. Each format is written through `export_chunks` in a process of its
own, which counts its memory from before the first byte; pairs and kwise over HTTP too, from a web process of its own.
Prints a table; --write appends it to results/datasets.md.
"""

import argparse
import datetime
import gc
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from app import db, embedded_postgres, migrate
from app.datasets.export_choices import ExportChoice
from app.datasets.exports import export_chunks
from app.datasets.models import Snapshot
from app.datasets.snapshots import create_snapshot
from app.people.models import Account, APIKey
from app.people.passwords import new_token, token_hash
from app.projects.models import Project
from benchmarks import agreement
from benchmarks.resident import reset_peak, resident_mb
from benchmarks.web_server import family_cpu_s

RESULTS = Path(__file__).parent / "results" / "datasets.md"
FIGURE, MOST_MB = 100_000, 200  # comparisons a second, and MB resident, that exports are to reach
FORMATS = ("kwise", "pairs", "hh", "stiennon", "kto", "prompts")
HTTP_FORMATS = ("kwise", "pairs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rankings", type=int, default=5_200)
    parser.add_argument("--labelers", type=int, default=50)
    parser.add_argument("--write", action="store_true", help=f"append to {RESULTS.name}")
    parser.add_argument("--measure", nargs=2, metavar=("FORMAT", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measured(*arguments.measure)))
        return
    with world(arguments.rankings, arguments.labelers) as (url, freeze_s):
        told = report(arguments, freeze_s, *measurements(url))
    print(told)
    if arguments.write:
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(told + "\n")


@contextmanager
def world(num_rankings: int, num_labelers: int) -> Iterator[tuple[str, float]]:
    """A database with one project and one snapshot of so many rankings: its URL, and how long freezing took."""
    folder = Path(tempfile.mkdtemp(prefix="podium-datasets-"))
    try:
        url = embedded_postgres.start(folder, fsync=False)
        engine = db.connect(url)
        migrate.upgrade(engine)
        agreement.make(engine, num_rankings, shared=1 / 3, num_labelers=num_labelers)
        freeze_s = freeze(engine)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("ANALYZE"))  # as the server does by itself a minute later
        engine.dispose()
        yield url, freeze_s
    finally:
        embedded_postgres.stop(folder)
        shutil.rmtree(folder, ignore_errors=True)


def freeze(engine: Engine) -> float:
    start = time.perf_counter()
    with Session(engine) as session, session.begin():
        project = session.get_one(Project, 1)
        create_snapshot(session, project, name="all", account=None, now=datetime.datetime.now(tz=datetime.UTC))
    return time.perf_counter() - start


def measurements(url: str) -> tuple[int, list[dict[str, Any]]]:
    """The number of comparisons, and one row a format, file and way."""
    rows = [in_a_process(url, format, file) for format in FORMATS for file in ("jsonl", "parquet")]
    db.connect(url)
    with db.SessionFactory.begin() as session:
        num = session.get_one(Snapshot, 1).num_comparisons
    with served(url) as (address, key, process):
        rows += [over_http(address, key, process, format) for format in HTTP_FORMATS]
    db.SessionFactory.kw["bind"].dispose()
    return num, rows


def in_a_process(url: str, format: str, file: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.datasets", "--measure", format, file]
    done = subprocess.run(command, env=os.environ | {"DATABASE_URL": url}, check=True, capture_output=True, text=True)
    row: dict[str, Any] = json.loads(done.stdout)
    return row


def measured(format: Any, file: Any) -> dict[str, Any]:
    """Write the whole file to nowhere, in this process."""
    db.connect(os.environ["DATABASE_URL"])
    with db.SessionFactory() as session:
        snapshot = session.get_one(Snapshot, 1)
    gc.collect()
    gc.freeze()  # as a web process does when it has started
    reset_peak()
    start, cpu = time.perf_counter(), time.process_time()
    num_bytes = sum(map(len, export_chunks(snapshot, ExportChoice(format=format, file=file))))
    took, worked = time.perf_counter() - start, time.process_time() - cpu
    peak = resident_mb("VmHWM")
    return {"what": f"{format}, {file}", "seconds": took, "cpu_s": worked, "num_bytes": num_bytes, "peak_mb": peak}


@contextmanager
def served(url: str) -> Iterator[tuple[str, str, "subprocess.Popen[str]"]]:
    """A web process of its own, and the key of a site admin."""
    key = new_token()
    with db.SessionFactory.begin() as session:
        account = Account(email="bench@example.org", name="Bench", is_site_admin=True)
        session.add(account)
        session.flush()
        session.add(APIKey(account_id=account.id, name="bench", prefix="bench", secret_hash=token_hash(key)))
    port = 18_731
    environment = os.environ | {"DATABASE_URL": url, "PODIUM_HOME": tempfile.mkdtemp(prefix="podium-home-")}
    command = [sys.executable, "-m", "uvicorn", "--factory", "app.main:create_app", "--port", str(port)]
    with subprocess.Popen([*command, "--log-level", "warning"], env=environment, text=True) as process:
        address = f"http://127.0.0.1:{port}"
        try:
            wait_for(address)
            yield address, key, process
        finally:
            process.terminate()
            shutil.rmtree(environment["PODIUM_HOME"], ignore_errors=True)


def wait_for(address: str) -> None:
    for _ in range(300):
        try:
            httpx.get(f"{address}/healthz")
            return
        except httpx.TransportError:
            time.sleep(0.1)
    raise RuntimeError("the web process did not start")


def over_http(address: str, key: str, process: "subprocess.Popen[str]", format: str) -> dict[str, Any]:
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    num_bytes, cpu, start = 0, family_cpu_s(process.pid), time.perf_counter()
    headers = {"Authorization": f"Bearer {key}"}
    where = f"{address}/api/v1/projects/many/snapshots/1/export?format={format}"
    with httpx.stream("GET", where, headers=headers, timeout=60) as answer:
        for chunk in answer.raise_for_status().iter_raw():
            num_bytes += len(chunk)
    took, worked = time.perf_counter() - start, family_cpu_s(process.pid) - cpu
    peak = resident_mb("VmHWM", process.pid)
    what = f"{format}, jsonl, over HTTP"
    return {"what": what, "seconds": took, "cpu_s": worked, "num_bytes": num_bytes, "peak_mb": peak}


def report(arguments: argparse.Namespace, freeze_s: float, num: int, rows: list[dict[str, Any]]) -> str:
    day = datetime.datetime.now(tz=datetime.UTC).date()
    lines = [
        f"| {row['what']} | {num / row['seconds']:,.0f} | {num / row['seconds'] / FIGURE:.1f} ×"
        f" | {row['seconds']:.1f} s | {row['cpu_s']:.1f} s | {row['num_bytes'] / 2**20:,.0f} MB"
        f" | {row['peak_mb']:,.0f} MB |"
        for row in rows
    ]
    return "\n".join(
        [
            f"## {arguments.rankings:,} rankings, {num:,} comparisons",
            "",
            f"{day}, {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; freezing, with"
            f" agreement and hash: {freeze_s:.1f} s. To be reached: {FIGURE:,} comparisons/s, {MOST_MB} MB.",
            "",
            "| export | comparisons/s | to the figure | time | of a core, in this process | size | peak resident |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    main()

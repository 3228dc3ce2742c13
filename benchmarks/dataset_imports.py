"""The pace and the memory of imports, at a million comparisons.

    python -m benchmarks.dataset_imports                    a twentieth of it: a minute on two free cores
    python -m benchmarks.dataset_imports --comparisons 1000000 --write

Two files are made up and imported, each into a database of its own that is deleted afterwards (about 6 GB at a
million): K-way rankings, K from 4 to 9; and TRL pairs, four to a prompt; rows of about 1 kB. In between the first file
comes once more with its lines the other way round, which must change nothing. The Postgres is the embedded one with
fsync, on the same machine. Prints a table; --write appends it to results/datasets.md.
"""

import argparse
import datetime
import json
import os
import platform
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session

from app import db, embedded_postgres, migrate
from app.datasets.imports import import_file
from app.projects.models import Project
from benchmarks.resident import reset_peak, resident_mb

RESULTS = Path(__file__).parent / "results" / "datasets.md"
COLUMNS = (
    *("file", "rows", "bytes a row", "new comparisons", "seconds", "rows/s", "comparisons/s"),
    *("CPU s, Python + Postgres", "peak MB", "added MB"),
)
SIZES = range(4, 10)  # K
PAIRS_A_RANKING = sum(k * (k - 1) // 2 for k in SIZES) / len(SIZES)
WORDS = ("the", "a", "of", "to", "and", "in", "is", "it", "you", "that", "he", "was", "for", "on", "are", "with", "as")
TEXT = " ".join(random.Random(2).choices(WORDS, k=100_000))  # cut at random: texts of words, made quickly


@dataclass(frozen=True)
class Measured:
    """One import. cpu_s: of this process and of Postgres's, who wait for each other: the time on a machine without
    other work. resident_mb: its peak, and by how much that is above what the process held before.
    """

    name: str
    rows: int
    comparisons: int
    num_bytes: int
    seconds: float
    cpu_s: tuple[float, float]
    resident_mb: float
    added_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=50_000)
    parser.add_argument("--pairs", type=int, help="of TRL, if others than the comparisons")
    parser.add_argument("--write", action="store_true", help=f"append to {RESULTS.name}")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="podium-imports-"))
    try:
        server = embedded_postgres.start(folder / "postgres")
        measured = []
        for one in measure_all(server, folder, arguments.comparisons, arguments.pairs or arguments.comparisons):
            print(one, flush=True)  # the next one takes minutes
            measured.append(one)
    finally:
        embedded_postgres.stop(folder / "postgres")
        shutil.rmtree(folder, ignore_errors=True)
    told = report(measured)
    print(told)
    if arguments.write:
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(told + "\n")


def measure_all(server: str, folder: Path, num_comparisons: int, num_pairs: int) -> Iterator[Measured]:
    kwise = folder / "kwise.jsonl"
    backwards = folder / "backwards.jsonl"
    write(kwise, kwise_records(int(num_comparisons / PAIRS_A_RANKING)))
    backwards.write_bytes(b"".join(reversed(kwise.read_bytes().splitlines(keepends=True))))
    engine = fresh_database(server, "kwise")
    yield measure(engine, "kwise, K 4 to 9", kwise)
    yield measure(engine, "the same, backwards", backwards)
    engine.dispose()
    pairs = folder / "pairs.jsonl"
    write(pairs, pair_records(num_pairs))
    engine = fresh_database(server, "pairs")
    yield measure(engine, "TRL pairs", pairs)
    engine.dispose()


def write(path: Path, records: Iterator[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(record)}\n" for record in records)


def sentence(rng: random.Random, num_words: int) -> str:
    start = rng.randrange(len(TEXT) - 6 * num_words)
    return TEXT[start : start + 5 * num_words]


def kwise_records(num: int) -> Iterator[dict[str, Any]]:
    rng = random.Random(0)
    for number in range(num):
        k = SIZES[number % len(SIZES)]
        ranks = rng.sample(range(1, k + 1), k)
        completions = [{"text": f"{place} {sentence(rng, 24)}", "rank": rank} for place, rank in enumerate(ranks)]
        prompt = f"{number // 2} {sentence(rng, 20)}"
        yield {"id": f"s{number}", "prompt": prompt, "labeler": f"w{number % 200}", "completions": completions}


def pair_records(num: int) -> Iterator[dict[str, Any]]:
    rng = random.Random(1)
    prompt = ""
    for number in range(num):
        if number % 4 == 0:
            prompt = f"{number} {sentence(rng, 60)}"
        yield {"prompt": prompt, "chosen": f"{number} {sentence(rng, 90)}", "rejected": sentence(rng, 90)}


def fresh_database(server: str, name: str) -> Engine:
    admin = create_engine(db.driver_url(server), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    admin.dispose()
    engine = create_engine(admin.url.set(database=name))
    migrate.upgrade(engine)
    return engine


def measure(engine: Engine, name: str, path: Path) -> Measured:
    with Session(engine) as session, session.begin(), path.open("rb") as file:
        project = session.query(Project).first() or Project(slug="p", name="P", flags=[])
        session.add(project)
        session.flush()
        backend = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
        before, cpu_before = resident_mb("VmRSS"), (time.process_time(), cpu_of(backend))
        reset_peak()
        began = time.perf_counter()
        now = db.clock(session)
        counts = import_file(session, project, "rankings", file, path.name, now=now).report["counts"]
        session.commit()
        seconds = time.perf_counter() - began
        cpu_s = time.process_time() - cpu_before[0], cpu_of(backend) - cpu_before[1]
    comparisons = counts.get("comparisons", 0)
    peak = resident_mb("VmHWM")
    return Measured(name, counts["lines"], comparisons, path.stat().st_size, seconds, cpu_s, peak, peak - before)


def cpu_of(process: int) -> float:
    """Seconds that a process has computed, as Linux counts them."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report(measured: list[Measured]) -> str:
    lines = [
        f"## Imports, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        "",
        f"`python -m benchmarks.dataset_imports`, {os.cpu_count()} cores ({platform.machine()}), Python"
        f" {platform.python_version()}, embedded Postgres with fsync on the same machine, load"
        f" {os.getloadavg()[2]:.1f} by other work.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "| --- " * len(COLUMNS) + "|",
    ]
    for one in measured:
        pace = f"{one.rows / one.seconds:,.0f} | {one.comparisons / one.seconds:,.0f}"
        lines.append(
            f"| {one.name} | {one.rows:,} | {one.num_bytes / one.rows:,.0f} | {one.comparisons:,} | {one.seconds:,.0f}"
            f" | {pace} | {one.cpu_s[0]:,.0f} + {one.cpu_s[1]:,.0f} | {one.resident_mb:,.0f} | {one.added_mb:,.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()

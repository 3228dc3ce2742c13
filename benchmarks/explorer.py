"""How long the datasets page counts what a filter selects, in a project of a million rankings.

    python -m benchmarks.explorer                       50,000 rankings
    python -m benchmarks.explorer --rankings 1000000 --write

A third of the rankings are on slates that three people rank. Everything is made in SQL, in a folder that is deleted
afterwards (about 4 GB a million rankings); half a year, 500 labelers, three splits, ten policy versions, four kinds of
slates, two per cent of completions flagged, a tenth of rankings with ties. Each filter is counted through the function
that the page and the API call, with its three examples and their texts, in a session of its own; the worst of the
times is told beside the median. Prints a table; --write appends it to results/explorer.md.
"""

import argparse
import datetime
import os
import platform
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session

from app import db, embedded_postgres, migrate
from app.datasets.filters import SnapshotFilter, filter_of, selected
from app.datasets.previews import preview
from app.labeling.models import Ranking
from app.projects.models import Project
from benchmarks import agreement

RESULTS = Path(__file__).parent / "results" / "explorer.md"
TIMES = 10
SHARED = 1 / 3
TODAY = datetime.datetime.now(tz=datetime.UTC).date()

# What the rankings of benchmarks.agreement do not differ by; then the facts, as the migration fills them.
VARY = """
INSERT INTO policy_version (project_id, number, state, recipe, source)
SELECT 1, number, 'retired', 'imported', 'x' FROM generate_series(3, 10) AS number;
UPDATE prompt
SET split = CASE WHEN mod(id, 20) < 13 THEN 'train' WHEN mod(id, 20) < 15 THEN 'validation' ELSE 'test' END;
UPDATE slate
SET kind = CASE mod(prompt_id, 10) WHEN 0 THEN 'conversation' WHEN 1 THEN 'imported' WHEN 2 THEN 'gold' ELSE 'training'
           END,
    asked_by = CASE WHEN mod(prompt_id, 7) = 0 THEN 'disagreement' WHEN mod(prompt_id, 7) < 3 THEN 'random' END;
UPDATE completion SET policy_version_id = 1 + mod(prompt_id / 11, 10) FROM slate WHERE slate.id = completion.slate_id;
UPDATE ranking_item SET rank = rank - 1 WHERE mod(hashtext(ranking_id::text), 10) = 0 AND rank > 1;
SELECT fill_ranking_facts()
"""

FILTERS: dict[str, SnapshotFilter] = {
    "everything that fits": filter_of(),
    "the train split": filter_of(splits=["train"]),
    "train split, K 4 to 6, agreement from 0.6": filter_of(splits=["train"], min_k=4, max_k=6, min_agreement=0.6),
    "one policy version": filter_of(policy_versions=[7]),
    "a week": filter_of(since=f"{TODAY - datetime.timedelta(days=30)}", until=f"{TODAY - datetime.timedelta(days=23)}"),
    "one labeler": filter_of(labelers=["labeler-7"]),
    "flagged, test split": filter_of(flags=["Hallucination"], splits=["test"]),
    "no flag, no ties, plain prompts": filter_of(
        without_flags=["Hallucination"], ties="without", prompt_kinds=["plain"]
    ),
    "the held-out tenth of the labelers": filter_of(labeler_groups=["held_out"]),
    "gold slates": filter_of(kinds=["gold"]),
    "shared slates that agree below one half": filter_of(is_shared=True, max_agreement=0.5),
    "asked by disagreement, imported or a conversation": filter_of(
        asked_by=["disagreement"], kinds=["imported", "conversation"]
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rankings", type=int, default=50_000, help=f"at most {agreement.LARGEST:,}")
    parser.add_argument("--labelers", type=int, default=500)
    parser.add_argument("--write", action="store_true", help=f"append to {RESULTS.name}")
    arguments = parser.parse_args()
    if not 1_000 <= arguments.rankings <= agreement.LARGEST:
        parser.error(f"--rankings must be from 1,000 to {agreement.LARGEST:,}")
    folder = Path(tempfile.mkdtemp(prefix="podium-explorer-"))
    try:
        engine = db.connect(embedded_postgres.start(folder, fsync=False))
        migrate.upgrade(engine)
        agreement.make(engine, arguments.rankings, shared=SHARED, num_labelers=arguments.labelers)
        filled_s = vary(engine)
        lines = [line_of(engine, name, filter) for name, filter in FILTERS.items()]
        engine.dispose()
    finally:
        embedded_postgres.stop(folder)
        shutil.rmtree(folder, ignore_errors=True)
    told = report(arguments, filled_s, lines)
    print(told)
    if arguments.write:
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(told + "\n")


def vary(engine: Engine) -> float:
    """Make the rankings differ, and fill what they are chosen by; returns the seconds of the latter."""
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # rankings are append-only elsewhere
        *changes, fill = (statement for statement in VARY.split(";\n") if statement.strip())
        for statement in changes:
            connection.exec_driver_sql(statement)
    start = time.perf_counter()
    with engine.begin() as connection:
        connection.exec_driver_sql(fill)
    took = time.perf_counter() - start
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    return took


def line_of(engine: Engine, name: str, filter: SnapshotFilter) -> str:
    seconds: list[float] = []
    found: Any = None
    for _ in range(TIMES):
        with Session(engine) as session:
            project = session.get_one(Project, 1)
            start = time.perf_counter()
            found = preview(session, project, filter)
            seconds.append(time.perf_counter() - start)
    with Session(engine) as session:
        exact = exactly(session, filter)
    told = f"{found.num_rankings:,} ± {found.margin:,}" if found.is_estimate else f"{found.num_rankings:,}"
    return f"| {name} | {told} | {exact:,} | {1e3 * statistics.median(seconds):.0f} ms | {1e3 * max(seconds):.0f} ms |"


def exactly(session: Session, filter: SnapshotFilter) -> int:
    """How many rankings a snapshot would take: what an estimate is held against."""
    query = select(func.count(Ranking.id)).where(*selected(session, session.get_one(Project, 1), filter))
    return session.scalars(query).one()


def report(arguments: argparse.Namespace, filled_s: float, lines: list[str]) -> str:
    machine = f"{TODAY}, {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end"
    return "\n".join(
        [
            f"## {arguments.rankings:,} rankings",
            "",
            f"{machine}; {arguments.labelers} labelers, 180 days; filling what rankings are chosen by, as the migration"
            f" does, took {filled_s:.0f} s.",
            "",
            f"| filter | counted | in truth | median of {TIMES} | slowest |",
            "| --- | --- | --- | --- | --- |",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    main()

"""How long the datasets page counts what a filter selects, in a project of a million rankings.

    python -m benchmarks.explorer                       50,000 rankings
    python -m benchmarks.explorer --rankings 1000000 --write

Ten thousand rankings are made whole, in SQL, a third of them on slates that three people rank. The others are made as
what filters read of a ranking alone (`ranking_facts`), in no order of time: that is all that counts are made from. Half
a year, 500 labelers, three splits, ten policy versions, four kinds of slates, two per cent of completions flagged, a
tenth of rankings with ties. Each filter is counted through the function that the page and the API call, with its
examples and their texts, in a session of its own; the worst of the times is told beside the median, and so is the work
of one core of Postgres, which is the same whatever else the machine does. Then two snapshots
of nine tenths of the rankings are compared, and rankings are submitted to slates that one person had ranked, with the
triggers that keep what filters read and without. The folder (1 GB a million) is deleted afterwards. Prints tables;
--write appends them to results/explorer.md.
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
from app.datasets import comparison
from app.datasets.facts import RankingFacts
from app.datasets.filters import SnapshotFilter, chosen_facts, filter_of
from app.datasets.models import Snapshot
from app.datasets.previews import preview
from app.projects.models import Project
from benchmarks import agreement

RESULTS = Path(__file__).parent / "results" / "explorer.md"
TIMES = 10
SHARED = 1 / 3
WHOLE = 10_000
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
UPDATE ranking SET submitted_at = now() - random() * interval '1 day';
SELECT fill_ranking_facts()
"""

# Older than those that are whole, so that these are the examples. Numbers below {shared} share a slate by threes.
ADD = """
SELECT setseed(0.5);
INSERT INTO ranking_facts (
    ranking_id, project_id, slate_id, labeler_id, submitted_at, kind, split, prompt_kind, asked_by, k, num_comparisons,
    has_ties, is_imported, is_shared, is_adjudicated, is_sampled, agreement, policy_versions, flags
)
SELECT gen_random_uuid(), 1, slate_id, 1 + floor(random() * {labelers}),
       now() - interval '1 day' * (1 + 180 * random()),
       CASE mod(prompt, 10) WHEN 0 THEN 'conversation' WHEN 1 THEN 'imported' WHEN 2 THEN 'gold' ELSE 'training' END,
       CASE WHEN mod(prompt, 20) < 13 THEN 'train' WHEN mod(prompt, 20) < 15 THEN 'validation' ELSE 'test' END,
       CASE WHEN mod(prompt, 3) = 0 THEN 'plain' ELSE 'imported' END,
       CASE WHEN mod(prompt, 7) = 0 THEN 'disagreement' WHEN mod(prompt, 7) < 3 THEN 'random' END,
       k, k * (k - 1) / 2 - has_ties::int, has_ties, mod(prompt, 10) = 1, number < {shared}, mod(prompt, 50) = 0,
       mod(get_byte(uuid_send(slate_id), 15), 16) = 0,
       CASE WHEN number < {shared} AND mod(prompt, 10) <> 2 THEN 0.4 + 0.6 * random() END,
       ARRAY[1 + mod(prompt / 11, 10)], CASE WHEN random() < 0.12 THEN ARRAY['Hallucination'] ELSE '{{}}' END
FROM (
    SELECT number, prompt, md5(prompt::text)::uuid AS slate_id, 4 + mod(abs(hashtext(prompt::text)), 6) AS k,
           random() < 0.1 AS has_ties
    FROM (SELECT number, CASE WHEN number < {shared} THEN number / 3 ELSE number END AS prompt
          FROM generate_series(1, {num}) AS number) AS numbered
) AS made
"""

# The first leaves out the first tenth of the rankings, the second the last tenth.
SNAPSHOTS = """
INSERT INTO snapshot (project_id, name, filter, num_rankings, num_comparisons, counts, sha256, exporter_version)
SELECT 1, 'snapshot ' || nth, '{{}}', {num} * 9 / 10, 0,
       '{{"kind": {{}}, "split": {{}}, "k": {{}}, "policy_version": {{}}}}', 'ab', 3
FROM generate_series(1, 2) AS nth;
INSERT INTO snapshot_ranking (snapshot_id, position, ranking_id, pseudonym)
SELECT nth, position, ranking_id, 'labeler-' || labeler_id FROM (
    SELECT ranking_id, labeler_id, row_number() OVER (ORDER BY submitted_at, ranking_id) AS position FROM ranking_facts
) AS placed JOIN generate_series(1, 2) AS nth
    ON CASE nth WHEN 1 THEN position > {num} / 10 ELSE position <= {num} * 9 / 10 END
"""

# A second person ranks a slate as the first one did: what a submit stores, in one statement as there.
ONCE_RANKED = """
SELECT ranking_id FROM ranking_facts JOIN ranking ON ranking.id = ranking_id
WHERE NOT is_shared AND kind = 'training' AND ranking.labeler_id <= 100
ORDER BY ranking_id LIMIT :num OFFSET :skipped
"""
SUBMIT = """
WITH stored AS (
    INSERT INTO ranking (id, project_id, slate_id, labeler_id, slot, counted, order_shown, active_s, submitted_at)
    SELECT gen_random_uuid(), project_id, slate_id, mod(labeler_id, 100) + 101, 2, true, order_shown, 20, now()
    FROM ranking WHERE id = :id
    RETURNING id, slate_id
)
INSERT INTO ranking_item (ranking_id, completion_id, slate_id, rank)
SELECT stored.id, item.completion_id, stored.slate_id, item.rank
FROM stored, ranking_item AS item WHERE item.ranking_id = :id
"""
SUBMITS = 200

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
    if not 2 * WHOLE <= arguments.rankings <= agreement.LARGEST:
        parser.error(f"--rankings must be from {2 * WHOLE:,} to {agreement.LARGEST:,}")
    folder = Path(tempfile.mkdtemp(prefix="podium-explorer-"))
    try:
        engine = db.connect(embedded_postgres.start(folder, fsync=False))
        migrate.upgrade(engine)
        agreement.make(engine, WHOLE, shared=SHARED, num_labelers=arguments.labelers)
        filled_s = vary(engine)
        add(engine, arguments.rankings - WHOLE, arguments.labelers)
        lines = [line_of(engine, name, filter) for name, filter in FILTERS.items()]
        others = [*compared(engine, arguments.rankings), *submitted(engine)]
        engine.dispose()
    finally:
        embedded_postgres.stop(folder)
        shutil.rmtree(folder, ignore_errors=True)
    told = report(arguments, filled_s, lines, others)
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
    return time.perf_counter() - start


def add(engine: Engine, num: int, labelers: int) -> None:
    """What filters read of so many rankings more."""
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # their rankings are not there
        for statement in ADD.format(num=num, shared=round(num * SHARED), labelers=labelers).split(";\n"):
            connection.exec_driver_sql(statement)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


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
        work_s = worked(session, filter)
    told = f"{found.num_rankings:,} ± {found.margin:,}" if found.is_estimate else f"{found.num_rankings:,}"
    return f"| {name} | {told} | {exact:,} | {1e3 * work_s:.0f} ms | {in_ms(seconds)} |"


def worked(session: Session, filter: SnapshotFilter) -> float:
    """Seconds of one core that Postgres works for a count, by itself: what other programs do does not lengthen it."""
    session.execute(text("SET LOCAL max_parallel_workers_per_gather = 0"))
    backend = session.scalars(text("SELECT pg_backend_pid()")).one()
    project = session.get_one(Project, 1)
    before = processor_s(backend)
    for _ in range(TIMES):
        preview(session, project, filter)
    return (processor_s(backend) - before) / TIMES


def processor_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime, proc(5)


def compared(engine: Engine, num: int) -> list[str]:
    """A line for two large snapshots side by side, each time counted anew."""
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # keys hold by construction
        for statement in SNAPSHOTS.format(num=num).split(";\n"):
            connection.exec_driver_sql(statement)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE snapshot_ranking"))
    seconds = []
    for _ in range(3):
        comparison.forget()
        with Session(engine) as session:
            one, other = (session.get_one(Snapshot, nth) for nth in (1, 2))
            start = time.perf_counter()
            found = comparison.compare(session, one, other)
            seconds.append(time.perf_counter() - start)
            assert found.numbers.added == found.numbers.removed == num // 10
    return [f"| two snapshots of {num * 9 // 10:,} rankings side by side, the first time | {in_ms(seconds)} |"]


def submitted(engine: Engine) -> list[str]:
    """Lines for storing a ranking on a slate that somebody ranked before, with and without what filters read."""
    lines = []
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for part, (words, state) in enumerate((("without", "DISABLE"), ("with", "ENABLE"))):
            connection.execute(text(f"ALTER TABLE ranking_item {state} TRIGGER facts_of_items"))
            wanted = {"num": SUBMITS, "skipped": part * SUBMITS}
            seconds = []
            for ranking_id in connection.scalars(text(ONCE_RANKED), wanted).all():
                start = time.perf_counter()
                connection.execute(text(SUBMIT), {"id": ranking_id})
                seconds.append(time.perf_counter() - start)
            lines.append(f"| storing a second ranking of a slate, {words} what filters read | {in_ms(seconds, 2)} |")
    return lines


def in_ms(seconds: list[float], digits: int = 0) -> str:
    return f"{1e3 * statistics.median(seconds):.{digits}f} ms | {1e3 * max(seconds):.{digits}f} ms"


def exactly(session: Session, filter: SnapshotFilter) -> int:
    """How many rankings there are in truth: what an estimate is held against."""
    chosen = chosen_facts(session, session.get_one(Project, 1), filter)
    return session.scalars(select(func.count(RankingFacts.ranking_id)).where(*chosen)).one()


def report(arguments: argparse.Namespace, filled_s: float, lines: list[str], others: list[str]) -> str:
    machine = f"{TODAY}, {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end"
    return "\n".join(
        [
            f"## {arguments.rankings:,} rankings",
            "",
            f"{machine}; {arguments.labelers} labelers, 180 days. Filling what {WHOLE:,} rankings are chosen by, as the"
            f" migration does, took {filled_s:.1f} s.",
            "",
            f"| filter | counted | in truth | work of one core | median of {TIMES} | slowest |",
            "| --- | --- | --- | --- | --- | --- |",
            *lines,
            "",
            "| what | median | slowest |",
            "| --- | --- | --- |",
            *others,
            "",
        ]
    )


if __name__ == "__main__":
    main()

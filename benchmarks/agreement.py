"""How long the quality page computes: a project with many rankings in a real Postgres, read and reported.

    python -m benchmarks.agreement                         100,000 rankings, a third of them on shared slates
    python -m benchmarks.agreement --rankings 1000000 --shared 1.0

Slates have 4 to 9 completions; shared ones are ranked by three of the labelers. Everything is made in SQL, in a folder
that is deleted afterwards (about 4 GB a million rankings). Prints a table; --write appends it to results/agreement.md.
"""

import argparse
import datetime
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from app import db, embedded_postgres, migrate
from app.projects.models import Project
from app.quality import adjudication
from app.quality.agreement import make_blocks
from app.quality.judgements import Filter, make_digests, read_judgements
from app.quality.pairs import agreements, pairs_of
from app.quality.reports import Between, quality_report
from benchmarks.resident import resident_mb

RESULTS = Path(__file__).parent / "results" / "agreement.md"
LARGEST = 2_000_000
OVERLAP = 3

# {num} slates from number {first} on, each ranked by {overlap} labelers; K, texts, orders and ranks are drawn.
MAKE = """
SELECT setseed(0.5);
CREATE TEMPORARY TABLE wanted ON COMMIT DROP AS
SELECT number, gen_random_uuid() AS slate_id, 4 + floor(random() * 6)::int AS k
FROM generate_series({first}, {first} + {num} - 1) AS number;
INSERT INTO prompt (project_id, messages, text_hash, group_key, split, use, kind)
SELECT 1, '[{{"role": "user", "content": "How do I do this?"}}]', number::text::bytea, number::text, 'train', 'rank',
       CASE WHEN mod(number, 3) = 0 THEN 'plain' ELSE 'imported' END
FROM wanted;
ANALYZE wanted, prompt;
INSERT INTO slate (id, project_id, prompt_id, kind, state, k, overlap)
SELECT slate_id, 1, prompt.id, 'training', 'done', k, {overlap}
FROM wanted JOIN prompt ON prompt.group_key = number::text;
INSERT INTO completion
    (id, slate_id, position, text, source, policy_version_id, seed, temperature, top_p, finish_reason)
SELECT gen_random_uuid(), slate_id, place, repeat('a few words ', 20), 'policy', 1 + mod(place, 2), 1, 1, 1, 'stop'
FROM wanted, generate_series(0, k - 1) AS place;
ANALYZE completion;
CREATE TEMPORARY TABLE made ON COMMIT DROP AS
SELECT gen_random_uuid() AS id, slate_id, mod(number + slot * 7, {labelers}) + 1 AS labeler_id, slot + 1 AS slot,
       (SELECT array_agg(completion.id ORDER BY random()) FROM completion WHERE completion.slate_id = wanted.slate_id
       ) AS order_shown
FROM wanted, generate_series(0, {overlap} - 1) AS slot;
ANALYZE made;
INSERT INTO ranking (id, project_id, slate_id, labeler_id, slot, counted, order_shown, active_s, submitted_at)
SELECT id, 1, slate_id, labeler_id, slot, true, order_shown, 20 + 40 * random(), now() - random() * interval '180 days'
FROM made;
INSERT INTO ranking_item (ranking_id, completion_id, slate_id, rank, flags)
SELECT made.id, completion.id, made.slate_id,
       row_number() OVER (PARTITION BY made.id ORDER BY completion.position + 4 * random()),
       CASE WHEN random() < 0.02 THEN '["Hallucination"]' ELSE '[]' END::jsonb
FROM made JOIN completion ON completion.slate_id = made.slate_id;
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rankings", type=int, default=100_000, help=f"at most {LARGEST:,}")
    parser.add_argument("--shared", type=float, default=1 / 3, help="share of the rankings on slates that three rank")
    parser.add_argument("--labelers", type=int, default=50)
    parser.add_argument("--write", action="store_true", help=f"append to {RESULTS.name}")
    arguments = parser.parse_args()
    if not 1_000 <= arguments.rankings <= LARGEST:
        parser.error(f"--rankings must be from 1,000 to {LARGEST:,}")
    folder = Path(tempfile.mkdtemp(prefix="podium-agreement-"))
    try:
        engine = db.connect(embedded_postgres.start(folder, fsync=False))
        migrate.upgrade(engine)
        make(engine, arguments.rankings, arguments.shared, arguments.labelers)
        lines = [f"| {what} | {seconds:.2f} s |" for what, seconds in measure(engine)]
        engine.dispose()
    finally:
        embedded_postgres.stop(folder)
        shutil.rmtree(folder, ignore_errors=True)
    told = report(arguments, lines)
    print(told)
    if arguments.write:
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(told + "\n")


def make(engine: Engine, num_rankings: int, shared: float, num_labelers: int) -> None:
    """The project, its people, and rankings in steps that fit the memory."""
    with Session(engine) as session:
        session.add(Project(slug="many", name="Many"))
        session.commit()
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO policy_version (project_id, number, state, recipe, source)"
                " VALUES (1, 1, 'retired', 'imported', 'x'), (1, 2, 'current', 'imported', 'x')"
            )
        )
        connection.execute(
            text(
                "INSERT INTO labeler (project_id, external_id, pseudonym) SELECT 1, number::text, 'labeler-' || number"
                " FROM generate_series(1, :num) AS number"
            ),
            {"num": num_labelers},
        )
    num_shared = round(num_rankings * shared / OVERLAP)
    first = 0
    for num, overlap in ((num_shared, OVERLAP), (num_rankings - num_shared * OVERLAP, 1)):
        for start in range(0, num, 50_000):
            _make_slates(engine, first + start, min(50_000, num - start), overlap, num_labelers)
        first += num
    with engine.begin() as connection:
        connection.execute(text("SELECT fill_ranking_facts()"))  # the triggers that keep them did not run
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def _make_slates(engine: Engine, first: int, num: int, overlap: int, num_labelers: int) -> None:
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # keys hold by construction
        for statement in MAKE.format(first=first, num=num, overlap=overlap, labelers=num_labelers).split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)


def measure(engine: Engine) -> list[tuple[str, float]]:
    """Each part, in seconds, in the order in which a first visit needs them."""
    found: list[tuple[str, float]] = []

    def timed(what: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        found.append((what, time.perf_counter() - start))
        return result

    with Session(engine) as session:
        timed("digest every ranking, once", lambda: make_digests(session, 1))
        session.commit()
        timed("look for rankings to digest, none new", lambda: make_digests(session, 1))
        read = timed("read them into arrays", lambda: read_judgements(session, 1, Filter()))
        pairs = timed(
            "compare every two rankings of a slate",
            lambda: pairs_of(read.slate, read.labeler, read.prompt, read.ranks, read.is_pick),
        )
        blocks = timed("draw 1,000 resamples of the prompts", lambda: make_blocks(int(read.prompt.max()) + 1))
        rows, everyone = np.arange(len(pairs.first)), np.zeros(len(pairs.first), dtype=int)
        timed("agreement, alpha and tau-b of all, with intervals", lambda: agreements(pairs, rows, everyone, 1, blocks))
        timed("the whole report, every group and person", lambda: quality_report(session, 1, Filter(), Between.ALL))
        timed("the report again, nothing new", lambda: quality_report(session, 1, Filter(), Between.ALL))
        timed("the adjudication queue", lambda: adjudication.queue(session, session.get_one(Project, 1)))
    return found


def report(arguments: argparse.Namespace, lines: list[str]) -> str:
    peak = resident_mb("VmHWM")
    day = datetime.datetime.now(tz=datetime.UTC).date()
    return "\n".join(
        [
            f"## {arguments.rankings:,} rankings, {arguments.shared:.0%} of them on slates that three people ranked",
            "",
            f"{day}, {platform.machine()}, {os.cpu_count()} cores, {arguments.labelers} labelers, 180 days;"
            f" peak memory of the process {peak:,.0f} MB.",
            "",
            "| part | time |",
            "| --- | --- |",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    main()

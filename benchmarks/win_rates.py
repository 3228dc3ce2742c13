"""How long the page of win rates and the rule after each submit take: many comparisons in a real Postgres.

    python -m benchmarks.win_rates                         100,000 comparisons among 40 versions, 200 rounds
    python -m benchmarks.win_rates --comparisons 1000000

Everything is made in SQL, in a folder that is deleted afterwards, beside ten times as many training slates.
Prints a table; --write appends it to results/win_rates.md.
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

from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from app import db, embedded_postgres, migrate
from app.policies.evaluation import decision_so_far
from app.policies.length_control import equal_length_of
from app.policies.win_rates import tallies_between, win_rates
from app.projects.models import Project
from app.rounds.models import Round

RESULTS = Path(__file__).parent / "results" / "win_rates.md"
NUM_ROUNDS, NUM_VERSIONS, REPEATS = 200, 40, 5

# Round r compares version 1 + r mod 39 with the one after it; a third of the outcomes are ties.
MAKE = """
SELECT setseed(0.5);
INSERT INTO policy_version (project_id, number, state, recipe, source)
SELECT 1, number, CASE WHEN number = 1 THEN 'current' ELSE 'retired' END, 'imported', 'x'
FROM generate_series(1, {versions}) AS number;
INSERT INTO round (project_id, number, state, seed, sft_policy_id, baseline_id, candidate_id, evaluation_comparisons)
SELECT 1, number, 'succeeded', 1, 1, 1 + mod(number, {versions} - 1), 2 + mod(number, {versions} - 1), 500
FROM generate_series(1, {rounds}) AS number;
INSERT INTO labeler (project_id, external_id, pseudonym) SELECT 1, 'one', 'labeler-1';
INSERT INTO prompt (project_id, messages, text_hash, group_key, split, use, kind)
SELECT 1, '[{{"role": "user", "content": "How do I do this?"}}]', 'x', 'x', 'test', 'rank', 'imported';
CREATE TEMPORARY TABLE wanted ON COMMIT DROP AS
SELECT number, gen_random_uuid() AS slate_id, gen_random_uuid() AS ranking_id, 1 + mod(number, {rounds}) AS round_id,
       floor(random() * 3)::int - 1 AS sign
FROM generate_series(1, {comparisons}) AS number;
INSERT INTO slate (id, project_id, prompt_id, kind, state, k, overlap, round_id)
SELECT slate_id, 1, 1, 'evaluation', 'done', 2, 1, round_id FROM wanted;
INSERT INTO slate (id, project_id, prompt_id, kind, state, k, overlap)
SELECT gen_random_uuid(), 1, 1, 'training', 'done', 4, 1 FROM generate_series(1, 10 * {comparisons});
CREATE TEMPORARY TABLE written ON COMMIT DROP AS
SELECT gen_random_uuid() AS id, slate_id, ranking_id, place, sign,
       CASE place WHEN 0 THEN candidate_id ELSE baseline_id END AS version_id
FROM wanted JOIN round ON round.id = round_id, generate_series(0, 1) AS place;
INSERT INTO completion
    (id, slate_id, position, text, source, policy_version_id, seed, temperature, top_p, finish_reason)
SELECT id, slate_id, place, repeat('words ', 5 + floor(random() * 20)::int), 'policy', version_id, 1, 1, 1, 'stop'
FROM written;
INSERT INTO ranking (id, project_id, slate_id, labeler_id, slot, counted, order_shown, submitted_at)
SELECT ranking_id, 1, slate_id, 1, 1, true, '{{}}', now() FROM wanted;
INSERT INTO ranking_item (ranking_id, completion_id, slate_id, rank)
SELECT ranking_id, id, slate_id, CASE WHEN sign = 0 THEN 1 WHEN (sign > 0) = (place = 0) THEN 1 ELSE 2 END
FROM written;
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=100_000)
    parser.add_argument("--write", action="store_true", help=f"append to {RESULTS.name}")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="podium-win-rates-"))
    try:
        engine = db.connect(embedded_postgres.start(folder, fsync=False))
        migrate.upgrade(engine)
        make(engine, arguments.comparisons)
        lines = [f"| {what} | {1000 * seconds:.1f} ms |" for what, seconds in measure(engine)]
        engine.dispose()
    finally:
        embedded_postgres.stop(folder)
        shutil.rmtree(folder, ignore_errors=True)
    day = datetime.datetime.now(tz=datetime.UTC).date()
    told = "\n".join(
        [
            f"## {arguments.comparisons:,} comparisons, {NUM_VERSIONS} versions, {NUM_ROUNDS} rounds",
            "",
            f"{day}, {platform.machine()}, {os.cpu_count()} cores; the best of {REPEATS}.",
            "",
            "| part | time |",
            "| --- | --- |",
            *lines,
            "",
        ]
    )
    print(told)
    if arguments.write:
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(told + "\n")


def make(engine: Engine, num_comparisons: int) -> None:
    with Session(engine) as session:
        session.add(Project(slug="many", name="Many"))
        session.commit()
    numbers = {"versions": NUM_VERSIONS, "rounds": NUM_ROUNDS, "comparisons": num_comparisons}
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # keys hold by construction
        for statement in MAKE.format(**numbers).split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def measure(engine: Engine) -> list[tuple[str, float]]:
    """Each part, in seconds."""
    with Session(engine) as session:
        project, round = session.get_one(Project, 1), session.get_one(Round, 1)
        return [
            ("the rule after a submit, in a round of 1 in 200", _best_of(lambda: decision_so_far(session, round))),
            ("that round's win rate at equal length", _best_of(lambda: equal_length_of(session, round))),
            ("count every pair", _best_of(lambda: tallies_between(session, project))),
            ("the page: count, strengths, intervals", _best_of(lambda: win_rates(session, project))),
        ]


def _best_of(work: Callable[[], Any]) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    main()

"""How long the questions between labels and policies take in a project of a million rankings.

    python -m benchmarks.lineage                       100,000 rankings
    python -m benchmarks.lineage --rankings 1000000 --write

Every ranking is in the snapshot of the newest of ten rounds, a tenth of them in the first one's, and so on; each round
made a reward model and a policy version. Everything is made in SQL, in a folder that is deleted afterwards (about 5 GB
a million rankings). Each question is asked through the functions that the pages and the API call, in a session of its
own; the first time finds little of it in memory. Prints a table; --write appends it to results/lineage.md.
"""

import argparse
import datetime
import os
import platform
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from app import db, embedded_postgres, migrate
from app.datasets.breakdowns import count_labels
from app.labeling.models import Ranking, Slate
from app.policies import labels, slates
from app.policies.models import PolicyVersion
from app.projects.models import Project
from benchmarks import agreement

RESULTS = Path(__file__).parent / "results" / "lineage.md"
ROUNDS = 10
TIMES = 20

# A ranking belongs to the snapshots of its tenth and of every later one, in the order of its submission.
MAKE_ROUNDS = """
UPDATE policy_version SET is_sft = true WHERE number = 1;
INSERT INTO snapshot (project_id, name, filter, num_rankings, num_comparisons, counts, sha256, exporter_version)
SELECT 1, 'round ' || number, '{{}}', {num} * number / {rounds}, 0, '{{}}', 'ab', 3
FROM generate_series(1, {rounds}) AS number;
INSERT INTO snapshot_ranking (snapshot_id, position, ranking_id, pseudonym)
SELECT number, position, id, 'labeler-' || labeler_id FROM (
    SELECT id, labeler_id, row_number() OVER (ORDER BY submitted_at, id) AS position FROM ranking
) AS placed JOIN generate_series(1, {rounds}) AS number ON position <= {num} * number / {rounds};
INSERT INTO round (project_id, number, state, seed, snapshot_id, sft_policy_id, baseline_id)
SELECT 1, number, 'succeeded', 0, number, 1, 1 FROM generate_series(1, {rounds}) AS number;
INSERT INTO stage (round_id, position, recipe, state, preset, configuration, seed)
SELECT number, place, recipe, 'succeeded', 'small', '{{"labels": "all"}}', 0
FROM generate_series(1, {rounds}) AS number, (VALUES (1, 'reward'), (2, 'ppo')) AS stages (place, recipe);
INSERT INTO reward_model_version (project_id, number, stage_id, source, manifest_sha256, figures)
SELECT 1, round_id, id, 'x', 'x', '{{}}' FROM stage WHERE recipe = 'reward';
UPDATE stage
SET parents = jsonb_build_object('policy_id', 1, 'snapshot_id', stage.round_id, 'reward_model_id', model.id)
FROM reward_model_version AS model WHERE recipe = 'ppo' AND model.number = stage.round_id;
INSERT INTO policy_version (project_id, number, state, recipe, source, parent_id, stage_id)
SELECT 1, 2 + round_id, 'candidate', 'ppo', 'x', 1, id FROM stage WHERE recipe = 'ppo';
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rankings", type=int, default=100_000, help=f"at most {agreement.LARGEST:,}")
    parser.add_argument("--labelers", type=int, default=500)
    parser.add_argument("--write", action="store_true", help=f"append to {RESULTS.name}")
    arguments = parser.parse_args()
    if not 1_000 <= arguments.rankings <= agreement.LARGEST:
        parser.error(f"--rankings must be from 1,000 to {agreement.LARGEST:,}")
    folder = Path(tempfile.mkdtemp(prefix="podium-lineage-"))
    try:
        engine = db.connect(embedded_postgres.start(folder, fsync=False))
        migrate.upgrade(engine)
        agreement.make(engine, arguments.rankings, shared=0, num_labelers=arguments.labelers)
        make_rounds(engine, arguments.rankings)
        lines = measure(engine)
        engine.dispose()
    finally:
        embedded_postgres.stop(folder)
        shutil.rmtree(folder, ignore_errors=True)
    told = report(arguments, lines)
    print(told)
    if arguments.write:
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(told + "\n")


def make_rounds(engine: Engine, num_rankings: int) -> None:
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # keys hold by construction
        for statement in MAKE_ROUNDS.format(num=num_rankings, rounds=ROUNDS).split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def measure(engine: Engine) -> list[str]:
    """One line for what is done once, and one for each question: how often it was asked, the median and the slowest."""
    lines = []
    for number in range(1, ROUNDS + 1):
        start = time.perf_counter()
        with Session(engine) as session, session.begin():
            count_labels(session, number)
        took = time.perf_counter() - start
    lines.append(f"| counting the newest snapshot, once, when it is frozen | {took:.1f} s | |")

    rng = random.Random(1)
    with Session(engine) as session:
        (num,) = session.execute(text("SELECT count(*) FROM ranking")).one()
        chosen = [
            session.execute(
                text("SELECT ranking_id FROM snapshot_ranking WHERE snapshot_id = :last AND position = :position"),
                {"last": ROUNDS, "position": rng.randint(1, num)},
            ).scalar_one()
            for _ in range(TIMES)
        ]

    def question(what: str, ask: Callable[[Session, int], Any]) -> None:
        seconds = []
        for nth in range(TIMES):
            with Session(engine) as session:
                start = time.perf_counter()
                ask(session, nth)
                seconds.append(time.perf_counter() - start)
        lines.append(f"| {what} | {1e3 * statistics.median(seconds):.1f} ms | {1e3 * max(seconds):.1f} ms |")

    def newest(session: Session) -> labels.Source:
        version = session.get_one(PolicyVersion, 2 + ROUNDS)
        return labels.sources_of(session, version)[0]

    def made_it(session: Session, _: int) -> None:
        source = newest(session)
        assert source.num_labels == num
        counts = labels.breakdown(session, source)
        assert sum(counts["week"].values()) == num
        assert len(labels.labels_of(session, source, limit=labels.A_PAGE)) == labels.A_PAGE

    def page_in_the_middle(session: Session, _: int) -> None:
        labels.labels_of(session, newest(session), after=rng.randint(0, num - 100), limit=labels.A_PAGE)

    def reached(session: Session, nth: int) -> None:
        project, ranking = session.get_one(Project, 1), session.get_one(Ranking, chosen[nth])
        assert labels.reached_by(session, project, ranking)

    def slate(session: Session, nth: int) -> None:
        ranking = session.get_one(Ranking, chosen[nth])
        slates.slate_view(session, session.get_one(Project, 1), session.get_one(Slate, ranking.slate_id))

    question("which labels made this policy: count, breakdown, first page", made_it)
    question("another page of them, from somewhere in the middle", page_in_the_middle)
    question("which policies did this ranking reach", reached)
    question("all that a slate's page shows", slate)
    return lines


def report(arguments: argparse.Namespace, lines: list[str]) -> str:
    day = datetime.datetime.now(tz=datetime.UTC).date()
    return "\n".join(
        [
            f"## {arguments.rankings:,} rankings, {ROUNDS} rounds",
            "",
            f"{day}, {platform.machine()}, {os.cpu_count()} cores, {arguments.labelers} labelers, 180 days.",
            "",
            f"| question | median of {TIMES} | slowest |",
            "| --- | --- | --- |",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    main()

"""A project of some years, made in SQL: a million rankings, ten million completions, and what hangs on them.

Every id is a hash of a number, so that a table is written without reading another one, and in the order of time, as it
grows in truth. Of nine rankings in a row three are of one slate, so a third is on shared slates; 500 labelers, three
years; ten policy versions of which the last is current; two per cent of completions flagged, a tenth of rankings with
ties. What was sampled and never ranked is retired but for a queue. Indexes are built after the rows: to keep them
meanwhile takes many times as long.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session

from app.datasets.breakdowns import count_labels
from app.labeling.tasks import Task
from app.projects.models import DEFAULT_FLAGS, Guidelines, Project
from app.quality.judgements import make_digests

SLUG = "years"
BLOCK, SLATES_OF_BLOCK = 9, 7  # rankings in a row, and the slates that they are of: one of three, six of one
QUEUE = 2_000  # slates that are ready
SNAPSHOTS = 4  # each holds a quarter of the rankings more than the one before
STEPS, METRICS = 1_000, ("loss", "accuracy", "score", "kl", "entropy", "clip_fraction", "length", "memory_gb")
DEMONSTRATIONS, AUDIT_EVENTS = 20_000, 200_000

PEOPLE = """
INSERT INTO account (email, name)
SELECT 'labeler-' || n || '@scale.test', 'Labeler ' || n FROM generate_series(1, {labelers}) AS n;
INSERT INTO membership (account_id, project_id, role)
SELECT id, 1, 'labeler' FROM account WHERE starts_with(email, 'labeler-');
INSERT INTO guidelines_acceptance (account_id, guidelines_id, accepted_at) SELECT id, 1, now() FROM account;
INSERT INTO labeler (project_id, account_id, pseudonym)
SELECT 1, id, 'labeler-' || id FROM account WHERE starts_with(email, 'labeler-') ORDER BY id;
INSERT INTO policy_version (project_id, number, state, recipe, source, is_sft, promoted_at)
SELECT 1, n, CASE n WHEN 10 THEN 'current' ELSE 'retired' END, 'imported', 'starter', true, now()
FROM generate_series(1, 10) AS n
"""

# {ranked} slates that people ranked, then those that nobody did. K is 4 to 9 by the number of the slate.
TEXTS = """
INSERT INTO prompt (project_id, messages, text_hash, group_key, split, use, kind, created_at)
SELECT 1, jsonb_build_array(jsonb_build_object('role', 'user', 'content', 'Question ' || n || ': how do I do this?')),
       n::text::bytea, n::text,
       CASE WHEN mod(n, 20) < 13 THEN 'train' WHEN mod(n, 20) < 15 THEN 'validation' ELSE 'test' END, 'rank',
       CASE WHEN mod(n, 3) = 0 THEN 'plain' ELSE 'imported' END, now() - interval '3 years' * (1 - n / {prompts}.0)
FROM generate_series(1, {prompts}) AS n;
INSERT INTO slate (id, project_id, prompt_id, kind, state, k, overlap, asked_by, created_at, ready_at, done_at,
                   retired_at, free_from)
SELECT id, 1, prompt, kind, state, k, CASE WHEN mod(n, {slates_of_block}) = 1 THEN 3 ELSE 1 END,
       CASE WHEN mod(prompt, 7) = 0 THEN 'disagreement' WHEN mod(prompt, 7) < 3 THEN 'random' END,
       at, at, CASE state WHEN 'done' THEN at END, CASE state WHEN 'retired' THEN at END, at
FROM (
    SELECT n, md5('s' || n)::uuid AS id, 4 + mod(n, 6) AS k, prompt,
           CASE mod(prompt, 10) WHEN 0 THEN 'conversation' WHEN 1 THEN 'imported' WHEN 2 THEN 'gold' ELSE 'training'
           END AS kind,
           CASE WHEN n <= {ranked} THEN 'done' WHEN n > {slates} - {queue} THEN 'ready' ELSE 'retired' END AS state,
           now() - interval '3 years' * (1 - n / {slates}.0) AS at
    FROM (SELECT n, 1 + mod(n, {prompts}) AS prompt FROM generate_series(1, {slates}) AS n) AS numbered
) AS made;
INSERT INTO completion
    (id, slate_id, position, text, source, policy_version_id, seed, temperature, top_p, finish_reason)
SELECT md5(n || ':' || place)::uuid, md5('s' || n)::uuid, place,
       'Answer ' || place || ' of ' || n || ': begin at the end, and go on until it is done.', 'policy',
       1 + n * 10 / ({slates} + 1), n, 1, 1, 'stop'
FROM generate_series(1, {slates}) AS n, generate_series(0, 3 + mod(n, 6)) AS place
"""

RANKED = """
CREATE TEMPORARY TABLE made ON COMMIT DROP AS
SELECT r, n, k, md5('s' || n)::uuid AS slate_id, slot, 1 + mod(r * 419, {labelers}) AS labeler_id,
       CASE WHEN mod(abs(hashint8(r)), 3) = 0 THEN mod(abs(hashint8(r)) / 3, k) ELSE 0 END AS shift,
       now() - interval '3 years' * (1 - r / {rankings}.0) AS at
FROM (
    SELECT r, n, slot, 4 + mod(n, 6) AS k FROM (
        SELECT r, CASE WHEN place < 3 THEN block * 7 + 1 ELSE block * 7 + place - 1 END AS n,
               CASE WHEN place < 3 THEN place + 1 ELSE 1 END AS slot
        FROM (SELECT r, (r - 1) / 9 AS block, mod(r - 1, 9) AS place FROM generate_series(1::bigint, {rankings}) AS r
        ) AS numbered
    ) AS placed
) AS known;
ANALYZE made;
INSERT INTO ranking
    (id, project_id, slate_id, labeler_id, lease_id, slot, counted, order_shown, active_s, submitted_at)
SELECT md5('r' || r)::uuid, 1, slate_id, labeler_id, md5('l' || r)::uuid, slot, true,
       ARRAY(SELECT md5(n || ':' || mod(place + r, k))::uuid FROM generate_series(0, k - 1) AS place),
       20 + mod(r, 40), at
FROM made;
INSERT INTO lease (id, slate_id, labeler_id, slot, order_shown, granted_at, expires_at, closed_at, "end")
SELECT lease_id, slate_id, labeler_id, slot, order_shown, submitted_at - interval '1 minute',
       submitted_at + interval '29 minutes', submitted_at, 'submitted'
FROM ranking;
INSERT INTO ranking_item (ranking_id, completion_id, slate_id, rank, quality, flags)
SELECT md5('r' || r)::uuid, md5(n || ':' || place)::uuid, slate_id,
       CASE WHEN mod(r, 10) = 0 THEN greatest(1, mod(place + shift, k)) ELSE 1 + mod(place + shift, k) END,
       7 - mod(place, 7), CASE WHEN mod(r * 31 + place * 17, 50) = 0 THEN '["Hallucination"]' ELSE '[]' END::jsonb
FROM made, generate_series(0, k - 1) AS place
"""

# What the pages beside the labels list: rounds with their curves, snapshots, demonstrations, the log.
BESIDE = """
INSERT INTO snapshot (project_id, name, filter, num_rankings, num_comparisons, counts, sha256, exporter_version)
SELECT 1, 'up to round ' || n, '{{}}', {rankings} * n / {snapshots}, {rankings} * n / {snapshots} * 15,
       '{{"kind": {{"training": 1}}, "split": {{"train": 1}}, "k": {{"4": 1}}, "policy_version": {{"1": 1}},
          "labelers": {labelers}, "conversational": 0, "with_strength": 0, "picks": 0, "adjudicated": 0,
          "shared_slates": 0, "not_in_hh": 0, "demonstration_split": {{}}, "demonstration_prompt_kind": {{}},
          "with_suggestion": 0, "writers": 0}}', 'ab', 3
FROM generate_series(1, {snapshots}) AS n;
INSERT INTO snapshot_ranking (snapshot_id, position, ranking_id, pseudonym)
SELECT n, r, md5('r' || r)::uuid, 'labeler-' || 1 + mod(r * 419, {labelers})
FROM generate_series(1, {snapshots}) AS n, generate_series(1::bigint, {rankings} * n / {snapshots}) AS r;
INSERT INTO round (project_id, number, state, seed, snapshot_id, sft_policy_id, baseline_id, started_at, finished_at)
SELECT 1, n, 'succeeded', 0, n, 1, 1, now(), now() FROM generate_series(1, {snapshots}) AS n;
INSERT INTO stage (round_id, position, recipe, state, preset, configuration, seed, started_at, finished_at, result)
SELECT n, place, recipe, 'succeeded', 'small', '{{"labels": "all"}}', 0, now(), now(), '{{}}'
FROM generate_series(1, {snapshots}) AS n, (VALUES (1, 'reward'), (2, 'ppo')) AS stages (place, recipe);
INSERT INTO reward_model_version (project_id, number, stage_id, source, manifest_sha256, figures)
SELECT 1, round_id, id, 'x', 'x', '{{"validation_accuracy": 0.7}}' FROM stage WHERE recipe = 'reward';
UPDATE stage
SET parents = jsonb_build_object('policy_id', 1, 'snapshot_id', stage.round_id, 'reward_model_id', model.id)
FROM reward_model_version AS model WHERE recipe = 'ppo' AND model.number = stage.round_id;
INSERT INTO policy_version (project_id, number, state, recipe, source, parent_id, stage_id)
SELECT 1, 10 + round_id, 'candidate', 'ppo', 'x', 1, id FROM stage WHERE recipe = 'ppo';
UPDATE round SET candidate_id = made.id FROM policy_version AS made WHERE made.number = 10 + round.number;
INSERT INTO metric (stage_id, name, step, value, at)
SELECT stage.id, name, step, 0.5 + 0.001 * step + 0.01 * mod(step, 7), now()
FROM stage, unnest(ARRAY[{metrics}]) AS name, generate_series(1, {steps}) AS step;
INSERT INTO stage_event (stage_id, attempt, text)
SELECT stage.id, 1, 'Step ' || n FROM stage, generate_series(1, 50) AS n;
INSERT INTO stage_sample (stage_id, step, position, prompt, completion, score, kl)
SELECT stage.id, step * 10, place, 'Question', 'Answer ' || step, 0.5, 2
FROM stage, generate_series(1, {steps} / 10) AS step, generate_series(0, 7) AS place;
INSERT INTO demonstration (id, prompt_id, project_id, split, prompt_kind, labeler_id, text, created_at)
SELECT gen_random_uuid(), prompt.id, prompt.project_id, prompt.split, prompt.kind, 1 + mod(n, {labelers}),
       'One would begin at the end.', now() - interval '1 minute' * n
FROM generate_series(1, {demonstrations}) AS n JOIN prompt ON prompt.id = 1 + mod(n * 17, {prompts});
UPDATE prompt SET last_taken_at = planned.at
FROM (SELECT prompt_id, max(created_at) AS at FROM slate WHERE kind IN ('training', 'pair') GROUP BY 1) AS planned
WHERE planned.prompt_id = prompt.id;
UPDATE project SET num_planned = {slates};
INSERT INTO audit_event (project_id, action, subject) VALUES (1, 'policy.promote', 'policy_version:10');
INSERT INTO audit_event (at, account_id, project_id, action, subject)
SELECT now() - interval '1 minute' * n, 1 + mod(n, {labelers}), 1, 'ranking.retract', 'ranking:' || n
FROM generate_series({audit_events}, 1, -1) AS n
"""

LARGE = ("prompt", "slate", "completion", "ranking", "lease", "ranking_item", "snapshot_ranking")


def fill(engine: Engine, num_rankings: int, num_completions: int, num_labelers: int) -> list[tuple[str, float]]:
    """Make the project, its number 1; returns the seconds of each part. The schema is there, and nothing else is."""
    rankings = num_rankings // BLOCK * BLOCK
    ranked = rankings // BLOCK * SLATES_OF_BLOCK
    prompts = max(1_000, rankings // 2)
    numbers = {
        "rankings": rankings,
        "ranked": ranked,
        "slates": max(ranked + QUEUE, round(num_completions / 6.5)),
        "prompts": prompts,
        "labelers": num_labelers,
        "queue": QUEUE,
        "slates_of_block": SLATES_OF_BLOCK,
        "snapshots": SNAPSHOTS,
        "metrics": ", ".join(f"'{name}'" for name in METRICS),
        "steps": STEPS,
        "demonstrations": min(DEMONSTRATIONS, prompts // 4),  # prompts to answer are left
        "audit_events": AUDIT_EVENTS,
    }
    with Session(engine) as session:
        weights = dict.fromkeys(Task, 1.0)  # so that each task's pages have something to do
        session.add(Project(slug=SLUG, name="Some years", flags=list(DEFAULT_FLAGS), task_weights=weights))
        session.flush()
        session.add(Guidelines(project_id=1, version=1, markdown="# What we look for\n\nHelpful and honest."))
        session.commit()
    return list(parts(engine, numbers))


def parts(engine: Engine, numbers: dict[str, Any]) -> Iterator[tuple[str, float]]:
    def write(*scripts: str) -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql("SET LOCAL session_replication_role = replica")  # keys hold by construction
            for statement in ";\n".join(scripts).format(**numbers).split(";\n"):
                connection.exec_driver_sql(statement)

    def in_a_session(work: Callable[[Session], Any]) -> None:
        with Session(engine) as session, session.begin():
            work(session)

    def vacuum() -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))

    for what, work in (
        ("rows without their indexes", lambda: without_indexes(engine, lambda: write(PEOPLE, TEXTS, RANKED, BESIDE))),
        ("planner's statistics", vacuum),
        (
            "what filters read",
            lambda: in_a_session(lambda session: session.execute(text("SELECT fill_ranking_facts()"))),
        ),
        ("what quality reads", lambda: in_a_session(lambda session: make_digests(session, 1))),
        ("what lineage reads", lambda: in_a_session(count_snapshots)),
        ("planner's statistics again", vacuum),
    ):
        start = time.perf_counter()
        work()
        yield what, time.perf_counter() - start


def without_indexes(engine: Engine, work: Callable[[], None]) -> None:
    """Do the work while the large tables' indexes rest, then build them from what is there."""
    tables = ", ".join(f"'{table}'::regclass" for table in LARGE)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"UPDATE pg_index SET indisready = false, indisvalid = false WHERE indrelid IN ({tables})"
        )
    engine.dispose()  # connections keep in mind which indexes they write to
    work()
    engine.dispose()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("SET maintenance_work_mem = '512MB'")
        for table in LARGE:
            connection.exec_driver_sql(f"REINDEX TABLE {table}")
        assert not waiting_indexes(connection)


def waiting_indexes(connection: Connection) -> int:
    return connection.exec_driver_sql(
        "SELECT count(*) FROM pg_index WHERE NOT indisready OR NOT indisvalid"
    ).scalar_one()


def count_snapshots(session: Session) -> None:
    for number in range(1, SNAPSHOTS + 1):
        count_labels(session, number)

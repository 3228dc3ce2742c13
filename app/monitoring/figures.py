# ruff: noqa: S608 - statements are made of constants, and need no value
"""What the rows say of the installation: queues, leases, rounds, processes, imports, the outbox. Each is one statement.

Whatever web process is asked reads them, so that nothing that a killed process counted is missing. Projects are told
apart by their ids: names, texts and people are in no label. A project's figures are told while it is not paused, and
of the newest PROJECTS of them: what Prometheus stores for ever must have an end.
"""

from dataclasses import dataclass

PROJECTS = 200
OFTEN_S, NOW_AND_THEN_S, SELDOM_S = 5.0, 30.0, 120.0  # so old a figure may be: the more it reads, the more seldom


@dataclass(frozen=True)
class Figure:
    """A gauge. statement: its labels' columns, then its value; one row a series."""

    name: str
    help: str
    labels: tuple[str, ...]
    statement: str
    max_age_s: float = OFTEN_S


TOLD = f"(SELECT id FROM project WHERE paused_at IS NULL ORDER BY id DESC LIMIT {PROJECTS})"
RUNNING = "stage JOIN round ON round.id = stage.round_id AND stage.state = 'running'"
RECENT = f"project_id IN {TOLD} AND submitted_at > now() - interval '10 minutes'"

# Of each project the last stage that improved its policy, and what it reported last.
LAST_METRIC = f"""
    SELECT newest.project_id, last.value
    FROM (
        SELECT project_id, max(stage.id) AS stage_id
        FROM stage JOIN round ON round.id = stage.round_id
        WHERE recipe IN ('ppo', 'grpo', 'rejection') AND stage.started_at IS NOT NULL AND project_id IN {TOLD}
        GROUP BY project_id
    ) newest
    CROSS JOIN LATERAL (
        SELECT value FROM metric WHERE stage_id = newest.stage_id AND name = '{{name}}' ORDER BY step DESC LIMIT 1
    ) last
"""

# fmt: off
FIGURES = (  # a label that is a state or a recipe is an enum's: their number is known
    Figure(
        "podium_projects", "Projects, by state: active or paused.", ("state",),
        "SELECT CASE WHEN paused_at IS NULL THEN 'active' ELSE 'paused' END, count(*) FROM project GROUP BY 1",
    ),
    Figure(
        "podium_queue_target", "Slates that the project's settings keep ahead of its labelers.", ("project",),
        f"SELECT id, queue_target FROM project WHERE id IN {TOLD}",
    ),
    Figure(
        "podium_queue_slates", "Slates in the queue: sampling (no completions yet) or ready (for labelers).",
        ("project", "state"),
        f"""SELECT project_id, state, sum(num) FROM (
                SELECT project_id, state, count(*) AS num FROM slate
                WHERE project_id IN {TOLD} AND state IN ('sampling', 'ready') GROUP BY 1, 2
                UNION ALL  -- none is told as 0: what is missing says nothing
                SELECT told.id, state, 0 FROM {TOLD} told CROSS JOIN (VALUES ('sampling'), ('ready')) each(state)
            ) counted GROUP BY 1, 2""",
    ),
    Figure(
        "podium_ended_slates", "Slates that left the queue: done (ranked) or retired.", ("project", "state"),
        f"""SELECT project_id, state, count(*) FROM slate
            WHERE project_id IN {TOLD} AND state IN ('done', 'retired') GROUP BY 1, 2""",
        SELDOM_S,
    ),
    Figure(
        "podium_leases", "Open leases: held, or expired and not yet cleared away.", ("project", "state"),
        f"""SELECT project_id, CASE WHEN expires_at > now() THEN 'held' ELSE 'expired' END, count(*)
            FROM lease JOIN slate ON slate.id = lease.slate_id
            WHERE closed_at IS NULL AND project_id IN {TOLD} GROUP BY 1, 2""",
    ),
    Figure(
        "podium_rankings_recent", "Rankings submitted in the last ten minutes.", ("project",),
        f"SELECT project_id, count(*) FROM ranking WHERE {RECENT} GROUP BY 1",
        NOW_AND_THEN_S,
    ),
    Figure(
        "podium_labelers_recent", "People who submitted a ranking in the last ten minutes.", ("project",),
        f"SELECT project_id, count(DISTINCT labeler_id) FROM ranking WHERE {RECENT} GROUP BY 1",
        NOW_AND_THEN_S,
    ),
    Figure(
        "podium_rounds", "Rounds, by state.", ("project", "state"),
        f"SELECT project_id, state, count(*) FROM round WHERE project_id IN {TOLD} GROUP BY 1, 2",
    ),
    Figure(
        "podium_stages", "Stages, by recipe and state.", ("recipe", "state"),
        "SELECT recipe, state, count(*) FROM stage GROUP BY 1, 2",
    ),
    Figure(
        "podium_stage_running_seconds", "How long the running stage has run.", ("project", "recipe"),
        f"SELECT project_id, recipe, max(extract(epoch FROM now() - stage.started_at)) FROM {RUNNING} GROUP BY 1, 2",
    ),
    Figure(
        "podium_stage_claim_overdue_seconds",
        "How long ago the running stage's claim ran out; negative while its trainer renews it.",
        ("project", "recipe"),
        f"SELECT project_id, recipe, max(extract(epoch FROM now() - deadline)) FROM {RUNNING} GROUP BY 1, 2",
    ),
    Figure(
        "podium_stage_step", "The last step that the running stage reported.", ("project", "recipe"),
        f"""SELECT project_id, recipe, max(step)
            FROM {RUNNING} JOIN metric ON metric.stage_id = stage.id GROUP BY 1, 2""",
    ),
    Figure(
        "podium_stage_silent_seconds", "How long ago the running stage last reported a step.", ("project", "recipe"),
        f"""SELECT project_id, recipe, extract(epoch FROM now() - max(at))
            FROM {RUNNING} JOIN metric ON metric.stage_id = stage.id GROUP BY 1, 2""",
    ),
    Figure(
        "podium_policy_version", "The number of the policy version that labelers see.", ("project",),
        f"SELECT project_id, number FROM policy_version WHERE state = 'current' AND project_id IN {TOLD}",
    ),
    Figure(
        "podium_reward_model_accuracy",
        "Share of validation comparisons that the newest reward model orders as people did.",
        ("project",),
        f"""SELECT DISTINCT ON (project_id) project_id, (figures->>'validation_accuracy')::float
            FROM reward_model_version
            WHERE project_id IN {TOLD} AND jsonb_typeof(figures->'validation_accuracy') = 'number'
            ORDER BY project_id, number DESC""",
    ),
    Figure(
        "podium_policy_score",
        "Mean score that the newest policy stage reported last (reward model, normalised).",
        ("project",),
        LAST_METRIC.format(name="score"),
    ),
    Figure(
        "podium_policy_kl_nats",
        "KL from the reference policy that it reported last, in nats per completion.",
        ("project",),
        LAST_METRIC.format(name="kl"),
    ),
    Figure(
        "podium_evaluations", "Evaluations of reward models, by state.", ("state",),
        "SELECT state, count(*) FROM reward_evaluation GROUP BY 1",
    ),
    Figure(
        "podium_processes", "Samplers and trainers: alive, or silent (no heartbeat for two minutes).",
        ("process", "state"),
        """SELECT process, CASE WHEN beat_at > now() - interval '2 minutes' THEN 'alive' ELSE 'silent' END, count(*)
           FROM heartbeat GROUP BY 1, 2""",
    ),
    Figure(
        "podium_heartbeat_age_seconds", "How long ago any process of the kind was heard of.", ("process",),
        "SELECT process, extract(epoch FROM now() - max(beat_at)) FROM heartbeat GROUP BY 1",
    ),
    Figure(
        "podium_model_requests_open", "Questions of the web to a model that wait for an answer, by kind.", ("kind",),
        "SELECT kind, count(*) FROM model_request WHERE answered_at IS NULL AND deadline > now() GROUP BY 1",
    ),
    Figure(
        "podium_imports_running", "Files that are being imported: alive, or silent (their process is gone).",
        ("state",),
        """SELECT CASE WHEN heartbeat_at < now() - interval '1 minute' THEN 'silent' ELSE 'alive' END, count(*)
           FROM dataset_import WHERE state = 'running' GROUP BY 1""",
    ),
    Figure(
        "podium_deliveries", "Notifications in the outbox: waiting to be sent, or failed for good.", ("state",),
        "SELECT state, count(*) FROM delivery WHERE state <> 'delivered' GROUP BY 1",
        NOW_AND_THEN_S,
    ),
    Figure(
        "podium_delivery_overdue_seconds", "How long the oldest notification that is due has waited.", (),
        """SELECT greatest(0, coalesce(extract(epoch FROM now() - min(next_attempt_at)), 0))
           FROM delivery WHERE state = 'waiting'""",
    ),
    Figure(
        "podium_alarms_open", "Alarms that nobody has acknowledged and whose condition holds, by kind.", ("kind",),
        "SELECT kind, count(*) FROM alarm WHERE acknowledged_at IS NULL AND cleared_at IS NULL GROUP BY 1",
    ),
    Figure(
        "podium_database_connections", "Connections to the database: of web, sampler, trainer, or other.",
        ("process",),
        """SELECT coalesce(substring(application_name FROM '^podium-(web|sampler|trainer)'), 'other'), count(*)
           FROM pg_stat_activity WHERE datname = current_database() GROUP BY 1""",
    ),
    Figure(
        "podium_database_connections_max", "Connections that the database server allows.", (),
        "SELECT current_setting('max_connections')::int",
    ),
    Figure(
        "podium_database_bytes", "Size of the database.", (),
        "SELECT pg_database_size(current_database())",
        SELDOM_S,
    ),
)
# fmt: on

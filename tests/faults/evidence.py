"""What can be seen of an installation from outside: rows by plain SQL, files by plain reads, processes by /proc.

Nothing here goes through the code under test.
"""

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from tests.faults.labelers import Receipt, Sent
from tests.faults.processes import command_of, is_running
from tests.faults.world import World, until

CLAIM_GRACE_S = 30  # once all is up again, before a claim past its deadline that nobody takes over is stuck
GRANTS_BEFORE_STUCK = 60  # slates given out after a lease ran out, while its slate was not among them
ON_THEIR_WAY_OUT_S = 15  # what lost its parent may take so long to notice and to end


@dataclass
class Evidence:
    """What was seen at one moment. Rows are dicts by column name."""

    sent: dict[UUID, Sent] = field(default_factory=dict)
    receipts: dict[UUID, Receipt] = field(default_factory=dict)
    drafts_saved: dict[UUID, tuple[int, dict[str, int]]] = field(default_factory=dict)  # lease -> revision, ranks
    oddities: list[str] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    rankings: list[dict[str, Any]] = field(default_factory=list)  # with ranks: completion id -> rank
    slates: list[dict[str, Any]] = field(default_factory=list)
    drafts: list[dict[str, Any]] = field(default_factory=list)
    stuck_leases: list[dict[str, Any]] = field(default_factory=list)
    stuck_claims: list[dict[str, Any]] = field(default_factory=list)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    versions: list[dict[str, Any]] = field(default_factory=list)
    made: list[dict[str, Any]] = field(default_factory=list)  # what rounds registered, with its stage's state
    results: dict[str, "Result"] = field(default_factory=dict)  # by folder below the artifacts
    metrics: list[dict[str, Any]] = field(default_factory=list)  # of stages that ended since the last look
    measured: dict[int, list[tuple[str, int, float]]] = field(default_factory=dict)  # what their files say
    weights: dict[str, tuple[str, str]] = field(default_factory=dict)  # folder -> as published, as run undisturbed
    orphans: list[str] = field(default_factory=list)
    dead_connections: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Result:
    """A published result: its manifest's own hash, what the manifest says and what the files are."""

    manifest_sha256: str
    promised: dict[str, str]
    found: dict[str, str]


def gather(world: World) -> Evidence:
    """Look at the installation while it works. What the people know is read first: the database may know more."""
    seen = Evidence(
        receipts=dict(world.ledger.receipts),
        drafts_saved=dict(world.ledger.drafts),
        oddities=[*world.ledger.oddities, *world.administrator.oddities],
        failures=list(world.administrator.failures),
    )
    with world.connection() as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        rows = {name: connection.execute(query).fetchall() for name, query in QUERIES.items()}  # type: ignore[call-overload]
    seen.sent = dict(world.ledger.sent)  # read last: nothing can be stored that is not in it
    for name, found in rows.items():
        if name != "ended":
            setattr(seen, name, found)
    for row in seen.rankings:
        row["ranks"] = {UUID(completion_id): rank for completion_id, rank in row["ranks"].items()}
    seen.stuck_claims = claims_never_taken(world)
    seen.results = published_results(world.artifacts)
    _look_at_ended_stages(world, seen, rows["ended"])
    until(lambda: not orphans_of(world) and not connections_of_the_dead(world), ON_THEIR_WAY_OUT_S)
    seen.orphans, seen.dead_connections = orphans_of(world), connections_of_the_dead(world)
    return seen


QUERIES = {
    "rankings": """
        SELECT ranking.id, ranking.slate_id, labeler_id, lease_id, counted, retracted_at,
               jsonb_object_agg(item.completion_id, item.rank) AS ranks
        FROM ranking LEFT JOIN ranking_item AS item ON item.ranking_id = ranking.id GROUP BY ranking.id""",
    "slates": "SELECT id, state, overlap FROM slate WHERE state <> 'sampling'",
    "drafts": """
        SELECT lease.id AS lease_id, draft.revision, draft.content -> 'ranks' AS ranks
        FROM draft JOIN lease ON lease.slate_id = draft.slate_id AND lease.labeler_id = draft.labeler_id""",
    "stuck_leases": f"""
        SELECT lease.id, extract(epoch FROM clock_timestamp() - lease.expires_at) AS expired_s
        FROM lease JOIN slate ON slate.id = lease.slate_id
        WHERE lease.closed_at IS NULL AND slate.state = 'ready'
          AND (SELECT count(*) FROM lease AS later WHERE later.granted_at > lease.expires_at)
              > {GRANTS_BEFORE_STUCK}""",
    "rounds": "SELECT id, number, state FROM round",
    "versions": "SELECT number, state FROM policy_version",
    "made": """
        SELECT 'policy' AS what, version.number, version.manifest_sha256, stage.id AS stage_id, folder, stage.state
        FROM policy_version AS version JOIN stage ON stage.id = version.stage_id
        UNION ALL SELECT 'reward model', model.number, model.manifest_sha256, stage.id, stage.folder, stage.state
        FROM reward_model_version AS model JOIN stage ON stage.id = model.stage_id""",
    "ended": """
        SELECT id, folder, recipe, (SELECT count(*) FROM stage_event WHERE stage_id = stage.id
               AND (text LIKE 'Claimed by%' OR text LIKE '%was killed%')) > 1 AS was_disturbed
        FROM stage WHERE state = 'succeeded'""",
}


OVERDUE_CLAIMS = """
    SELECT 'stage' AS what, id::text, owner, attempt FROM stage
    WHERE state = 'running' AND deadline < clock_timestamp()
    UNION ALL SELECT 'slate', id::text, owner, attempt FROM slate
    WHERE state = 'sampling' AND deadline < clock_timestamp()"""


def claims_never_taken(world: World) -> list[dict[str, Any]]:
    """Claims that are past their deadline now, and that nobody takes over however long one waits."""
    left = world.ask(OVERDUE_CLAIMS)

    def none_is_left() -> bool:
        overdue = world.ask(OVERDUE_CLAIMS)
        left[:] = [claim for claim in left if claim in overdue]
        return not left

    until(none_is_left, CLAIM_GRACE_S)
    return left


def published_results(artifacts: Path) -> dict[str, Result]:
    """Every folder that has a manifest, by its name below the artifacts."""
    results = {}
    for manifest in artifacts.glob("projects/*/rounds/*/*/result/manifest.json"):
        files = [path for path in manifest.parent.rglob("*") if path.is_file() and path != manifest]
        found = {str(path.relative_to(manifest.parent)): sha256_of(path) for path in files}
        folder = str(manifest.parent.relative_to(artifacts))
        results[folder] = Result(sha256_of(manifest), json.loads(manifest.read_bytes()), found)
    return results


def _look_at_ended_stages(world: World, seen: Evidence, ended: Sequence[dict[str, Any]]) -> None:
    """Of each stage that has succeeded since the last look: its metrics, and its weights when it was disturbed."""
    new = [row for row in ended if row["id"] not in world.verified]
    ids = [row["id"] for row in new]
    seen.metrics = world.ask("SELECT stage_id, name, step, value FROM metric WHERE stage_id = ANY(%s)", ids)
    for row in new:
        folder = world.artifacts / row["folder"]
        seen.measured[row["id"]] = measured_in(folder / "metrics.jsonl")
        if row["was_disturbed"]:
            seen.weights[row["folder"]] = (
                weights_of(folder / "result"),
                undisturbed_weights(world, folder, row["recipe"]),
            )
    world.verified.update(ids)


def measured_in(file: Path) -> list[tuple[str, int, float]]:
    """(name, step, value) of each number in a metrics file."""
    numbers = []
    for line in file.read_text().splitlines():
        values = json.loads(line)
        step = values.pop("step")
        del values["at"]
        numbers += [
            (name, step, float(value))
            for name, value in values.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        ]
    return numbers


def weights_of(result: Path) -> str:
    """One hash of all the weights in a result."""
    return "/".join(sha256_of(path) for path in sorted(result.rglob("*.safetensors")))


def undisturbed_weights(world: World, folder: Path, recipe: str) -> str:
    """The hash of the weights of the same stage, run alone from its inputs and never interrupted."""
    alone = world.home / "undisturbed"
    shutil.rmtree(alone, ignore_errors=True)
    alone.mkdir()
    shutil.copytree(folder / "data", alone / "data")
    shutil.copy(folder / "stage.json", alone)
    command = [sys.executable, "-m", f"trainer.recipes.{recipe}", str(alone)]
    subprocess.run(command, check=True, capture_output=True)
    return weights_of(alone / "result")


def orphans_of(world: World) -> list[str]:
    """Processes that were started for this installation, and whose ancestors have died."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        pid = int(process.name)
        try:
            is_ours = f"PODIUM_HOME={world.home}\0".encode() in (process / "environ").read_bytes()
            is_ours |= os.readlink(process / "cwd") == str(world.postgres.resolve() / "data")
        except OSError:
            continue
        is_kept = os.getpid() in ancestors_of(pid) or world.postmaster() in (pid, *ancestors_of(pid))
        if is_ours and is_running(pid) and not is_kept:
            lines.append(f"process {pid}: {command_of(pid)}")
    return lines


def ancestors_of(pid: int) -> list[int]:
    """The process that started it, and so on."""
    found: list[int] = []
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
        found.append(pid)
    return found


def connections_of_the_dead(world: World) -> list[str]:
    """Connections that a process of ours held when it died, and the database still holds for it."""
    rows = world.ask("SELECT pid, application_name, state FROM pg_stat_activity WHERE application_name LIKE 'podium-%'")
    return [
        f"connection {row['pid']} ({row['state']}) of {row['application_name']}"
        for row in rows
        if not is_running(int(row["application_name"].rpartition("-")[2]))
    ]


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

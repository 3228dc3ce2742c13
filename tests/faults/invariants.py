"""What must be true of an installation whatever happened to it.

Each checker is a pure function of what was seen from outside (tests/faults/evidence.py), and returns the violations
that it finds, in words: none is what everybody hopes for.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from tests.faults.evidence import Evidence

# How a stage may fail while processes are killed and disks are full; anything else is a defect.
FAILURES_FORESEEN = ("disk_full", "killed", "recipe_failed")

Checker = Callable[[Evidence], list[str]]


def acknowledged_once(seen: Evidence) -> list[str]:
    """Every acknowledged submit is stored exactly once, as it was sent and as its receipt says."""
    stored: dict[UUID, list[dict[str, Any]]] = {}
    for row in seen.rankings:
        stored.setdefault(row["id"], []).append(row)
    problems = [f"ranking {id} is stored {len(rows)} times" for id, rows in stored.items() if len(rows) > 1]
    for id, receipt in seen.receipts.items():
        if id not in stored:
            problems.append(f"ranking {id} was acknowledged and is lost")
        elif stored[id][0]["counted"] != receipt.counted:
            problems.append(f"ranking {id} was acknowledged as counted={receipt.counted} and is stored otherwise")
    for id, rows in stored.items():
        if id not in seen.sent:
            problems.append(f"ranking {id} is stored and nobody sent it")
        elif rows[0]["ranks"] != seen.sent[id].ranks or rows[0]["lease_id"] != seen.sent[id].lease_id:
            problems.append(f"ranking {id} is not stored as it was sent")
    return problems


def exact_overlap(seen: Evidence) -> list[str]:
    """No slate has more than N rankings that count, or two by one labeler; it is done when it has N, and not before."""
    counted = [row for row in seen.rankings if row["counted"] and row["retracted_at"] is None]
    num_of_slate = Counter(row["slate_id"] for row in counted)
    of_labeler = Counter((row["slate_id"], row["labeler_id"]) for row in counted)
    problems = [
        f"labeler {labeler} counts {n} times on slate {slate}" for (slate, labeler), n in of_labeler.items() if n > 1
    ]
    for slate in seen.slates:
        num, wanted = num_of_slate[slate["id"]], slate["overlap"]
        if num > wanted:
            problems.append(f"slate {slate['id']} has {num} rankings that count; {wanted} were wanted")
        if slate["state"] != "retired" and (num >= wanted) != (slate["state"] == "done"):
            problems.append(f"slate {slate['id']} is {slate['state']} with {num} of {wanted} rankings")
    return problems


def drafts_never_go_back(seen: Evidence) -> list[str]:
    """A draft that is still there is the one acknowledged last, or a newer one."""
    stored = {row["lease_id"]: row for row in seen.drafts}
    problems = []
    for lease_id, (revision, ranks) in seen.drafts_saved.items():
        row = stored.get(lease_id)
        if row is None:
            continue
        if row["revision"] < revision:
            problems.append(f"the draft of lease {lease_id} went back from {revision} to {row['revision']}")
        elif row["revision"] == revision and row["ranks"] != ranks:
            problems.append(f"the draft of lease {lease_id} is not what was acknowledged as revision {revision}")
    return problems


def whole_results(seen: Evidence) -> list[str]:
    """A published result is whole: every file is what its manifest says, and no other is there."""
    problems = []
    for folder, result in seen.results.items():
        if result.promised != result.found:
            names = {name for name, _ in result.promised.items() ^ result.found.items()}
            problems.append(f"{folder} has a manifest that its files do not agree with: {sorted(names)}")
    return problems


def registered_results(seen: Evidence) -> list[str]:
    """What a round registered is published, was made by a stage that succeeded, and is what was registered."""
    problems = []
    for row in seen.made:
        result = seen.results.get(f"{row['folder']}/result")
        if row["state"] != "succeeded":
            problems.append(f"{row['what']} {row['number']} comes from a stage that is {row['state']}")
        if result is None:
            problems.append(f"{row['what']} {row['number']} is registered, and {row['folder']}/result is not published")
        elif result.manifest_sha256 != row["manifest_sha256"]:
            problems.append(f"{row['what']} {row['number']} is registered with another manifest than is published")
    stages = Counter((row["what"], row["stage_id"]) for row in seen.made)
    return problems + [f"stage {stage} registered {n} of {what}" for (what, stage), n in stages.items() if n > 1]


def one_current_one_active(seen: Evidence) -> list[str]:
    """A project has exactly one current policy, and one active round at most."""
    active = [row["id"] for row in seen.rounds if row["state"] in ("queued", "running", "awaiting_labels")]
    current = [row["number"] for row in seen.versions if row["state"] == "current"]
    problems = [f"rounds {active} are active at once"] if len(active) > 1 else []
    return problems + ([f"versions {current} are current"] if len(current) != 1 else [])


def same_bits(seen: Evidence) -> list[str]:
    """A stage that was disturbed ends in the same weights as the same stage run alone and never interrupted."""
    return [
        f"{folder} ends in other weights than undisturbed: {published[:12]} and {undisturbed[:12]}"
        for folder, (published, undisturbed) in seen.weights.items()
        if published != undisturbed
    ]


def nothing_stuck(seen: Evidence) -> list[str]:
    """Leases that have run out go to others, and so do claims of slates and stages."""
    leases = [
        f"lease {row['id']} ran out {row['expired_s']:.0f} s ago and its slot stays taken" for row in seen.stuck_leases
    ]
    claims = [
        f"{row['what']} {row['id']} of {row['owner']} is over its deadline and nobody takes it"
        for row in seen.stuck_claims
    ]
    return leases + claims


def metrics_once(seen: Evidence) -> list[str]:
    """The metrics of a stage that has ended are those its recipe wrote: each step once, none from a lost attempt."""
    problems = []
    stored: dict[int, list[tuple[str, int, float]]] = {stage_id: [] for stage_id in seen.measured}
    for row in seen.metrics:
        stored.setdefault(row["stage_id"], []).append((row["name"], row["step"], row["value"]))
    for stage_id, rows in stored.items():
        expected = seen.measured.get(stage_id, [])
        twice = [key for key, n in Counter((name, step) for name, step, _ in rows).items() if n > 1]
        if twice:
            problems.append(f"stage {stage_id} has {twice[:3]} more than once")
        if set(rows) != set(expected):
            problems.append(
                f"stage {stage_id} has other metrics than its recipe wrote: {sorted(set(rows) ^ set(expected))[:3]}"
            )
    return problems


def no_orphans(seen: Evidence) -> list[str]:
    """Whoever died has taken its children with it, and its connections."""
    return [f"left behind: {line}" for line in (*seen.orphans, *seen.dead_connections)]


def nothing_odd(seen: Evidence) -> list[str]:
    """Nobody got an answer that says a defect; no stage failed for a reason that nobody foresaw."""
    failures = [
        f"a stage failed: {error['code']}: {error['message']}"
        for error in seen.failures
        if error["code"] not in FAILURES_FORESEEN
    ]
    return [*seen.oddities, *failures]


CHECKERS: tuple[Checker, ...] = (
    acknowledged_once,
    exact_overlap,
    drafts_never_go_back,
    whole_results,
    registered_results,
    one_current_one_active,
    same_bits,
    nothing_stuck,
    metrics_once,
    no_orphans,
    nothing_odd,
)


def violations(seen: Evidence, checkers: Sequence[Checker] = CHECKERS) -> list[str]:
    """All that is wrong, each with the name of the invariant that it breaks."""
    return [f"{checker.__name__}: {problem}" for checker in checkers for problem in checker(seen)]

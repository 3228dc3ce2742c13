"""Each invariant's checker sees what breaks it, and is content with what does not."""

import copy
from collections.abc import Callable
from uuid import UUID

import pytest

from tests.faults import invariants
from tests.faults.evidence import Evidence, Result
from tests.faults.invariants import CHECKERS, violations
from tests.faults.labelers import Receipt, Sent

RANKING, LEASE, SLATE = UUID(int=1), UUID(int=2), UUID(int=3)
RANKS = {UUID(int=10): 1, UUID(int=11): 2}
FOLDER = "projects/faults/rounds/0001/reward"


def healthy() -> Evidence:
    """One acknowledged ranking of a slate that wants one, one round that made a reward model, a draft elsewhere."""
    return Evidence(
        sent={RANKING: Sent(RANKING, LEASE, RANKS)},
        receipts={RANKING: Receipt(RANKING, True, "2026-01-01T00:00:00Z")},
        drafts_saved={UUID(int=4): (2, {"a": 1})},
        failures=[{"code": "disk_full", "message": "the disk filled up"}],
        rankings=[
            {
                "id": RANKING,
                "slate_id": SLATE,
                "labeler_id": 1,
                "lease_id": LEASE,
                "counted": True,
                "retracted_at": None,
                "ranks": dict(RANKS),
            }
        ],
        slates=[{"id": SLATE, "state": "done", "overlap": 1}],
        drafts=[{"lease_id": UUID(int=4), "revision": 2, "ranks": {"a": 1}}],
        rounds=[{"id": 1, "number": 1, "state": "running"}],
        versions=[{"number": 1, "state": "retired"}, {"number": 2, "state": "current"}],
        made=[
            {
                "what": "reward model",
                "number": 1,
                "manifest_sha256": "ab",
                "stage_id": 1,
                "folder": FOLDER,
                "state": "succeeded",
            }
        ],
        results={f"{FOLDER}/result": Result("ab", {"model.safetensors": "cd"}, {"model.safetensors": "cd"})},
        metrics=[{"stage_id": 1, "name": "loss", "step": 1, "value": 0.5}],
        measured={1: [("loss", 1, 0.5)]},
        weights={FOLDER: ("cd", "cd")},
    )


Harm = Callable[[Evidence], object]
HARMS: dict[str, tuple[invariants.Checker, Harm]] = {
    "a lost ranking": (invariants.acknowledged_once, lambda seen: seen.rankings.clear()),
    "a ranking stored twice": (
        invariants.acknowledged_once,
        lambda seen: seen.rankings.append({**seen.rankings[0], "counted": False}),
    ),
    "a ranking that says otherwise": (
        invariants.acknowledged_once,
        lambda seen: seen.rankings[0]["ranks"].update({UUID(int=10): 2}),
    ),
    "a ranking on another lease": (
        invariants.acknowledged_once,
        lambda seen: seen.rankings[0].update(lease_id=UUID(int=9)),
    ),
    "a ranking that nobody sent": (invariants.acknowledged_once, lambda seen: seen.sent.clear()),
    "a receipt that says otherwise": (
        invariants.acknowledged_once,
        lambda seen: seen.receipts.update({RANKING: Receipt(RANKING, False, "")}),
    ),
    "one ranking too many": (
        invariants.exact_overlap,
        lambda seen: seen.rankings.append({**seen.rankings[0], "id": UUID(int=5), "labeler_id": 2}),
    ),
    "one labeler twice": (
        invariants.exact_overlap,
        lambda seen: (
            seen.slates[0].update(overlap=2),
            seen.rankings.append({**seen.rankings[0], "id": UUID(int=5)}),
        ),
    ),
    "a slate done too early": (invariants.exact_overlap, lambda seen: seen.slates[0].update(overlap=2)),
    "a slate never done": (invariants.exact_overlap, lambda seen: seen.slates[0].update(state="ready")),
    "a draft that went back": (invariants.drafts_never_go_back, lambda seen: seen.drafts[0].update(revision=1)),
    "a draft that says otherwise": (
        invariants.drafts_never_go_back,
        lambda seen: seen.drafts[0].update(ranks={"a": 2}),
    ),
    "a file of a result that was cut": (
        invariants.whole_results,
        lambda seen: seen.results[f"{FOLDER}/result"].found.update({"model.safetensors": "ce"}),
    ),
    "a result without a file": (
        invariants.whole_results,
        lambda seen: seen.results[f"{FOLDER}/result"].found.clear(),
    ),
    "a registered result that is not there": (invariants.registered_results, lambda seen: seen.results.clear()),
    "a result registered as another": (
        invariants.registered_results,
        lambda seen: seen.made[0].update(manifest_sha256="ac"),
    ),
    "a result of a stage that failed": (
        invariants.registered_results,
        lambda seen: seen.made[0].update(state="failed"),
    ),
    "a result registered twice": (
        invariants.registered_results,
        lambda seen: seen.made.append({**seen.made[0], "number": 2}),
    ),
    "two active rounds": (
        invariants.one_current_one_active,
        lambda seen: seen.rounds.append({"id": 2, "number": 2, "state": "queued"}),
    ),
    "two current policies": (
        invariants.one_current_one_active,
        lambda seen: seen.versions[0].update(state="current"),
    ),
    "no current policy": (invariants.one_current_one_active, lambda seen: seen.versions[1].update(state="retired")),
    "other weights": (invariants.same_bits, lambda seen: seen.weights.update({FOLDER: ("cd", "ce")})),
    "a lease that holds its slot": (
        invariants.nothing_stuck,
        lambda seen: seen.stuck_leases.append({"id": LEASE, "expired_s": 99.0}),
    ),
    "a claim that nobody takes": (
        invariants.nothing_stuck,
        lambda seen: seen.stuck_claims.append({"what": "stage", "id": "1", "owner": "trainer"}),
    ),
    "a metric twice": (invariants.metrics_once, lambda seen: seen.metrics.append(dict(seen.metrics[0]))),
    "a metric of a lost attempt": (
        invariants.metrics_once,
        lambda seen: seen.metrics.append({"stage_id": 1, "name": "loss", "step": 2, "value": 0.4}),
    ),
    "a metric that is missing": (invariants.metrics_once, lambda seen: seen.metrics.clear()),
    "an orphan": (invariants.no_orphans, lambda seen: seen.orphans.append("process 7: recipe")),
    "a connection of the dead": (
        invariants.no_orphans,
        lambda seen: seen.dead_connections.append("connection 7 of podium-web-9"),
    ),
    "an answer of 500": (invariants.nothing_odd, lambda seen: seen.oddities.append("POST / was answered 500")),
    "a failure that nobody foresaw": (
        invariants.nothing_odd,
        lambda seen: seen.failures.append({"code": "unforeseen", "message": "KeyError"}),
    ),
}


def test_nothing_is_held_against_a_healthy_installation() -> None:
    assert violations(healthy()) == []


@pytest.mark.parametrize("harm", HARMS)
def test_the_checker_of_an_invariant_sees_it_broken(harm: str) -> None:
    checker, break_it = HARMS[harm]
    seen = copy.deepcopy(healthy())
    break_it(seen)
    [problem] = checker(seen)
    assert any(line.endswith(problem) and line.startswith(checker.__name__) for line in violations(seen))


def test_every_checker_has_been_seen_to_fail() -> None:
    assert {checker for checker, _ in HARMS.values()} == set(CHECKERS)

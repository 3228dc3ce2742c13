"""One fault after another: each is waited out, then every invariant is checked; in the end all begun work is done."""

import json
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from random import Random

import httpx

from tests.faults.evidence import gather
from tests.faults.faults import KINDS, in_order, kinds_for
from tests.faults.invariants import violations
from tests.faults.world import PATIENCE_S, NeverCame, World, until

DRAIN_S = 300.0  # seconds where nothing else runs
DRAINED = "drained"  # not a fault: what was begun did not come to its end afterwards


@dataclass(frozen=True)
class Outcome:
    """What one fault came to."""

    number: int
    seed: int
    kind: str
    recovered_s: float | None  # from the end of its cause; None: it never did
    violations: list[str]


def inject(world: World, kinds: Iterable[str], *, first: int = 0) -> Iterator[Outcome]:
    """One outcome for each kind, in order. first: the number of the first fault, where a run goes on.

    What stays wrong (an acknowledged ranking that is lost) is told of the first fault after which it was seen.
    """
    told: set[str] = set()
    for number, kind in enumerate(kinds, start=first):
        rng = Random(f"{world.seed}/{number}/{kind}")
        try:
            KINDS[kind](world, rng)
        except NeverCame as error:
            yield Outcome(number, world.seed, kind, None, [f"recovered: {error}"])
            continue
        recovered_s, missing = recover(world)
        problems = [f"recovered: after {PATIENCE_S:.0f} s there is still no {what}" for what in missing]
        if world.is_postgres_running():
            problems += violations(gather(world))
        yield Outcome(number, world.seed, kind, recovered_s, [each for each in problems if each not in told])
        told.update(problems)


def recover(world: World) -> tuple[float | None, list[str]]:
    """Wait until everything works again: how long that took, and what never came."""
    begun_at = time.monotonic()
    answered: list[datetime] = []

    def database_answers() -> bool:
        answered[:] = [now] if (now := world.moment()) else []
        return bool(answered)

    if until(database_answers) is None:
        return None, ["database"]
    [since], before = answered, world.progress()
    missing = {
        "answer of the web": lambda: is_ready(world),
        "acknowledged ranking": lambda: world.ledger.begun_at > begun_at,
        "heartbeat of each process": lambda: world.num_beating(since) == 3,
        "progress of the round": lambda: world.progress() != before,
    }

    def is_well() -> bool:
        world.hasten_the_dead()
        for what in list(missing):
            if missing[what]():
                del missing[what]
        return not missing

    if not world.is_round_active():
        del missing["progress of the round"]
    is_back = until(is_well) is not None
    return (time.monotonic() - begun_at if is_back else None), list(missing)


def is_ready(world: World) -> bool:
    try:
        return httpx.get(f"{world.address}/readyz", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def drain(world: World) -> list[str]:
    """No new work: what was begun must come to its end, or something holds on to it. What does not, in words."""
    world.administrator.may_start = False
    until(lambda: world.tell("UPDATE project SET queue_target = 0"))
    left: list[str] = []

    def is_done() -> bool:
        world.hasten_the_dead()
        left[:] = [
            *(f"slate {row['id']} is {row['state']}" for row in world.ask(UNFINISHED_SLATES)),
            *(f"round {row['number']} is {row['state']}" for row in world.ask(UNFINISHED_ROUNDS)),
        ]
        return not left

    until(is_done, DRAIN_S)
    return [f"drained: after {DRAIN_S:.0f} s {what}" for what in left] + violations(gather(world))


UNFINISHED_SLATES = "SELECT id, state FROM slate WHERE state IN ('sampling', 'ready')"
UNFINISHED_ROUNDS = "SELECT number, state FROM round WHERE state <> 'succeeded'"


# Reports


def kinds_from(world: World, first: int, count: int) -> list[str]:
    """The kinds of the faults numbered from `first`: a function of the seed alone, on machines that allow the same."""
    return list(islice(in_order(kinds_for(world), world.seed), first, first + count))


def read_outcomes(report: Path, seed: int) -> list[Outcome]:
    """What a run of this seed has come to so far."""
    if not report.exists():
        return []
    outcomes = [Outcome(**json.loads(line)) for line in report.read_text().splitlines()]
    return [outcome for outcome in outcomes if outcome.seed == seed]


def write_outcome(report: Path, outcome: Outcome) -> None:
    with report.open("a") as file:
        file.write(json.dumps(asdict(outcome)) + "\n")


def in_words(outcome: Outcome) -> str:
    """A line of a run's log, and one for each violation."""
    recovered = "never" if outcome.recovered_s is None else f"{outcome.recovered_s:.1f} s"
    lines = [f"{datetime.now(UTC):%H:%M:%S} {outcome.number} {outcome.kind}: recovered in {recovered}"]
    return "\n".join([*lines, *(f"    VIOLATED {violation}" for violation in outcome.violations)])


def table(outcomes: Sequence[Outcome]) -> str:
    """Kinds, how often, violated invariants, and seconds until everything worked again, in Markdown."""
    lines = [
        "| fault | times | violated invariants | recovered in, median | worst |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for kind in [*(kind for kind in (*KINDS, DRAINED) if any(each.kind == kind for each in outcomes)), "all"]:
        these = [outcome for outcome in outcomes if kind in (outcome.kind, "all")]
        times = [outcome.recovered_s for outcome in these if outcome.recovered_s is not None]
        num_violated = sum(len(outcome.violations) for outcome in these)
        seconds = f"{statistics.median(times):.1f} s | {max(times):.1f} s" if times else "never | never"
        lines.append(f"| {kind.replace('_', ' ')} | {len(these)} | {num_violated} | {seconds} |")
    return "\n".join(lines)

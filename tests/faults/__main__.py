"""The long run: `python -m tests.faults --faults 300 --seed 1 [--write]`, or `make faults-long`.

Every outcome is appended to a report as it comes; the same command again goes on after the last one. An installation
is torn down and begun anew every so often, so that a long run is not one lucky database.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.faults.run import (
    DRAINED,
    Outcome,
    drain,
    in_words,
    inject,
    kinds_from,
    read_outcomes,
    recover,
    table,
    write_outcome,
)
from tests.faults.world import World
from tests.trainer.tiny import save_tiny_policy

NUM_FAULTS = 300
FAULTS_PER_WORLD = 42
PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
BEGIN, END = "<!-- last long run -->", "<!-- end of last long run -->"


def main() -> int:
    """Run what is missing from the report; 1 if any invariant was violated."""
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # in good order: nothing is left running
    report: Path = given.report
    outcomes = read_outcomes(report, given.seed)
    with tempfile.TemporaryDirectory(prefix="podium faults policy ") as folder:
        policy = save_tiny_policy("llama", Path(folder) / "policy")
        while (done := sum(outcome.kind != DRAINED for outcome in outcomes)) < given.faults:
            count = min(FAULTS_PER_WORLD - done % FAULTS_PER_WORLD, given.faults - done)
            for outcome in one_world(policy, given.seed, done, count, report.parent):
                outcomes.append(outcome)
                write_outcome(report, outcome)
                print(in_words(outcome), flush=True)
    print(table(outcomes))
    if given.write:
        write_page(outcomes, given.seed)
    return 1 if any(outcome.violations for outcome in outcomes) else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--faults", type=int, default=NUM_FAULTS, help="How many, those of earlier runs included.")
    parser.add_argument("--seed", type=int, default=1, help="Decides kinds, order and moments.")
    parser.add_argument("--report", type=Path, default=Path("build/faults.jsonl"), help="A line for each outcome.")
    parser.add_argument("--write", action="store_true", help="Put the table into docs/faults.md.")
    given = parser.parse_args()
    given.report.parent.mkdir(parents=True, exist_ok=True)
    return given


def one_world(policy: Path, seed: int, first: int, count: int, keep_at: Path) -> Iterator[Outcome]:
    """Faults `first` and on, in an installation of their own. Its logs are kept where something was violated."""
    with World(policy, seed) as world:
        recover(world)
        problems: list[str] = []
        for outcome in inject(world, kinds_from(world, first, count), first=first):
            problems += outcome.violations
            yield outcome
        if left := drain(world):
            problems += left
            yield Outcome(first + count - 1, seed, DRAINED, None, left)
        if problems:
            shutil.copytree(world.home / "logs", keep_at / f"logs-{seed}-{first}", dirs_exist_ok=True)


def write_page(outcomes: Sequence[Outcome], seed: int) -> None:
    """Put the figures between the page's two marks: of all that were injected, however many were asked for."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    num_faults = sum(outcome.kind != DRAINED for outcome in outcomes)
    how = (
        f"{num_faults} faults were injected (`make faults-long` asks for {NUM_FAULTS}): "
        f"seed {seed}, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores."
    )
    PAGE.write_text(f"{before}{BEGIN}\n{how}\n\n{table(outcomes)}\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())

"""How often the rule that ends blind comparisons errs, and how many comparisons it takes, by simulation.

    python -m benchmarks.sequential            20,000 streams of at most 500 comparisons for each case, about a minute
    python -m benchmarks.sequential --write    the same, and store the table in results/sequential.md

Each stream is decided twice: by `decide` where it stopped, and by wealth that is followed outcome by outcome in another
way (each bet's wealth is multiplied on, as a gambler would). The two must agree on every stream.
"""

import argparse
import datetime
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.policies.sequential import BETS, LEVEL, Decision, Rule, Tally, decide
from app.statistics import Z_95

RESULTS = Path(__file__).parent / "results" / "sequential.md"
RULE = Rule()
CASES = (  # win rate with ties half, share of ties
    *((0.5, ties) for ties in (0.0, 0.2, 0.6)),
    *((rate, ties) for rate in (0.55, 0.6) for ties in (0.0, 0.2, 0.6)),
    *((rate, 0.2) for rate in (0.4, 0.65, 0.75)),
)
CHUNK = 2_000  # streams at once: 500 outcomes of each in 8 bytes, a few times over


@dataclass(frozen=True)
class Outcome:
    """What a rule did with the streams of one case: shares, and comparisons asked."""

    better: float
    not_enough: float
    mean_asked: float
    median_asked: float


def streams(rng: np.random.Generator, rate: float, ties: float, num: int, budget: int) -> NDArray[np.float64]:
    """(num, budget) outcomes 0, 1/2, 1 of that mean and that share of ties."""
    wins = rate - ties / 2
    drawn = rng.random((num, budget))
    return np.where(drawn < wins, 1.0, np.where(drawn < wins + ties, 0.5, 0.0))


def follow(outcomes: NDArray[np.float64], mean: float, bets: tuple[tuple[float, float], ...]) -> NDArray[np.float64]:
    """(num, budget) wealth after each outcome, multiplied on."""
    return np.asarray(
        sum(weight * np.cumprod(1 + bet * (outcomes / mean - 1), axis=1) for bet, weight in bets), dtype=float
    )


def first(crossed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(num,) the number of outcomes at the first look that is true; one beyond the last where none is."""
    looks = np.where(crossed.any(axis=1), crossed.argmax(axis=1), crossed.shape[1])
    return np.asarray(looks + 1, dtype=np.int64)


def by_wealth(outcomes: NDArray[np.float64], bets: tuple[tuple[float, float], ...]) -> tuple[NDArray[np.int64], ...]:
    """When each stream is called better, and when not enough."""
    enough = 2 / (1 - LEVEL)
    better = first(follow(outcomes, RULE.above, bets) >= enough)
    return better, first(follow(1 - outcomes, 1 - RULE.worth, bets) >= enough)


def by_wilson(outcomes: NDArray[np.float64]) -> tuple[NDArray[np.int64], ...]:
    """The same when one looks at the plain interval after each comparison from the tenth on: not valid."""
    num = np.arange(1, outcomes.shape[1] + 1)
    rate = outcomes.cumsum(axis=1) / num
    centre = (rate + Z_95**2 / (2 * num)) / (1 + Z_95**2 / num)
    half = Z_95 / (1 + Z_95**2 / num) * np.sqrt(rate * (1 - rate) / num + Z_95**2 / (4 * num**2))
    looked = num >= 10
    return first((centre - half > RULE.above) & looked), first((centre + half < RULE.worth) & looked)


def told(better: NDArray[np.int64], worse: NDArray[np.int64], budget: int) -> Outcome:
    is_better = (better <= budget) & (better <= worse)
    asked = np.minimum(np.minimum(better, worse), budget)
    return Outcome(
        float(is_better.mean()),
        float(((worse <= budget) & ~is_better).mean()),
        float(asked.mean()),
        float(np.median(asked)),
    )


def check(outcomes: NDArray[np.float64], better: NDArray[np.int64], worse: NDArray[np.int64], budget: int) -> None:
    """Raises AssertionError when `decide` says otherwise of a stream's counts where it stopped, or just before."""
    for stream, stop_better, stop_worse in zip(outcomes, better, worse, strict=True):
        stop = min(stop_better, stop_worse)
        expected = None if stop > budget else Decision.BETTER if stop_better <= stop_worse else Decision.NOT_ENOUGH
        seen = stream[: min(stop, budget)]
        assert decide(tally_of(seen), RULE) is expected, (stop_better, stop_worse)
        assert decide(tally_of(seen[:-1]), RULE) is None, (stop_better, stop_worse)


def tally_of(outcomes: NDArray[np.float64]) -> Tally:
    wins, ties = int((outcomes == 1).sum()), int((outcomes == 0.5).sum())
    return Tally(wins, ties, len(outcomes) - wins - ties)


def lines(num: int, budget: int, seed: int) -> Iterator[str]:
    for rate, ties in CASES:
        rng = np.random.default_rng([seed, round(rate * 1000), round(ties * 1000)])
        stops: dict[str, list[tuple[NDArray[np.int64], ...]]] = {"ours": [], "one bet": [], "looking": []}
        for _ in range(num // CHUNK):
            outcomes = streams(rng, rate, ties, CHUNK, budget)
            ours = by_wealth(outcomes, BETS)
            check(outcomes[:200], ours[0][:200], ours[1][:200], budget)
            stops["ours"].append(ours)
            stops["one bet"].append(by_wealth(outcomes, ((0.2, 1.0),)))
            stops["looking"].append(by_wilson(outcomes))
        found = {
            name: told(np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]), budget)
            for name, parts in stops.items()
        }
        ours_told, one, looking = found["ours"], found["one bet"], found["looking"]
        yield (
            f"| {rate:.0%} | {ties:.0%} | {ours_told.better:.1%} | {ours_told.not_enough:.1%}"
            f" | {ours_told.mean_asked:.0f} ({ours_told.median_asked:.0f})"
            f" | {one.better:.1%} | {one.mean_asked:.0f} | {looking.better:.1%} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=20_000, help=f"a case; a multiple of {CHUNK:,}")
    parser.add_argument("--budget", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help=f"append to {RESULTS.name}")
    arguments = parser.parse_args()
    start = time.perf_counter()
    table = list(lines(arguments.streams, arguments.budget, arguments.seed))
    seconds = time.perf_counter() - start
    day = datetime.datetime.now(tz=datetime.UTC).date()
    text = "\n".join(
        [
            f"## At most {arguments.budget} comparisons",
            "",
            f"{day}, {platform.machine()}, {os.cpu_count()} cores, {arguments.streams:,} streams a case,"
            f" seed {arguments.seed}, {seconds:.0f} s.",
            "",
            "| true win rate | ties | called better | called not enough | asked, mean (median)"
            " | better, one bet of 0.2 | asked | better, Wilson at every look |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *table,
            "",
        ]
    )
    print(text)
    if arguments.write:
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()

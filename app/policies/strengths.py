"""Bradley-Terry strengths of versions that people compared two at a time. Counts in, estimates out."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.policies.sequential import Tally
from app.statistics import Z_95

Pair = tuple[int, int]

PRIOR_TIES = 1.0  # added to each pair that was compared: half a win to either side
_STEPS, _ENOUGH = 100, 1e-10  # of Newton's method; a step this small in log odds is its end


@dataclass(frozen=True)
class Strength:
    """A version's place on its group's scale, in log odds over the group's first version, with its 95 % interval.

    group: 1, 2, 3 …; versions that were never compared, not even through others, have no common scale.
    rate: the win rate over the group's first version that this means; low_rate … high_rate its interval.
    """

    group: int
    value: float
    low: float
    high: float

    @property
    def rate(self) -> float:
        return preference(self.value)

    @property
    def low_rate(self) -> float:
        return preference(self.low)

    @property
    def high_rate(self) -> float:
        return preference(self.high)


def preference(difference: float) -> float:
    """How often a version is preferred over one that is so much weaker, in log odds."""
    return float(np.exp(-np.logaddexp(0.0, -difference)))


def strengths_of(tallies: Mapping[Pair, Tally]) -> dict[int, Strength]:
    """The strength of each version that was compared, by version.

    tallies: (version, other) -> outcomes from the version's view; each pair once, in either order.
    A version is preferred over another with probability 1 / (1 + exp(its difference in strength)): Bradley & Terry
    1952, fitted by maximum likelihood (Hunter 2004) with a tie as half a win for each. One tie is added to each pair
    that was compared, the Jeffreys prior of a single pair: without it a version that won or lost everything has no
    finite strength, and with it no two groups become one. Intervals come from the observed information; ties vary less
    than half wins are taken to, so they are a little too wide where there are many, never too narrow for it.
    """
    found: dict[int, Strength] = {}
    for number, group in enumerate(groups_of(tallies), start=1):
        values, errors = _fit(_successes(group, tallies))
        for version, value, error in zip(group, values, errors, strict=True):
            found[version] = Strength(number, value, value - Z_95 * error, value + Z_95 * error)
    return found


def groups_of(tallies: Mapping[Pair, Tally]) -> list[list[int]]:
    """Versions that comparisons connect, each group in order, the group of the first version first."""
    others: dict[int, set[int]] = {}
    for (version, other), tally in tallies.items():
        if tally.num:
            others.setdefault(version, set()).add(other)
            others.setdefault(other, set()).add(version)
    groups: list[list[int]] = []
    left = set(others)
    while left:
        group, reached = set[int](), {min(left)}
        while reached:
            group |= reached
            reached = set().union(*(others[version] for version in reached)) - group
        groups.append(sorted(group))
        left -= group
    return groups


def _successes(group: list[int], tallies: Mapping[Pair, Tally]) -> NDArray[np.float64]:
    """(V, V) how often each of the group won against each other, ties and the prior as half wins."""
    place = {version: row for row, version in enumerate(group)}
    successes = np.zeros((len(group), len(group)))
    for (version, other), tally in tallies.items():
        if tally.num and version in place:
            row, column = place[version], place[other]
            successes[row, column] += tally.successes + PRIOR_TIES / 2
            successes[column, row] += tally.reversed.successes + PRIOR_TIES / 2
    return successes


def _fit(successes: NDArray[np.float64]) -> tuple[list[float], list[float]]:
    """Strengths and their standard errors, the first of both 0. Newton's method; the likelihood is concave."""
    comparisons = successes + successes.T
    values = np.zeros(len(successes))
    for _ in range(_STEPS):
        gradient, information = _slopes(values, successes, comparisons)
        step = np.concatenate([[0.0], np.linalg.solve(information[1:, 1:], gradient[1:])])
        while _log_likelihood(values + step, successes) < _log_likelihood(values, successes) - _ENOUGH:
            step /= 2
        values += step
        if np.abs(step).max() < _ENOUGH:
            break
    information = _slopes(values, successes, comparisons)[1]
    variances = np.diag(np.linalg.inv(information[1:, 1:]))
    return values.tolist(), [0.0, *np.sqrt(variances).tolist()]


def _slopes(
    values: NDArray[np.float64], successes: NDArray[np.float64], comparisons: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The gradient of the log likelihood and the observed information, its negative second derivative."""
    rates = np.exp(
        -np.logaddexp(0.0, values[None, :] - values[:, None])
    )  # (V, V) of the row's version over the column's
    gradient = (successes - comparisons * rates).sum(axis=1)
    weights = comparisons * rates * (1 - rates)
    return gradient, np.diag(weights.sum(axis=1)) - weights


def _log_likelihood(values: NDArray[np.float64], successes: NDArray[np.float64]) -> float:
    return -float((successes * np.logaddexp(0.0, values[None, :] - values[:, None])).sum())

"""Bradley-Terry strengths, against what a general optimiser finds and what two versions give by hand."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from app.policies.sequential import Tally
from app.policies.strengths import Pair, groups_of, strengths_of


def negative_log_likelihood(values: np.ndarray, tallies: dict[Pair, Tally]) -> float:
    """Comparison by comparison, one tie added for each pair; versions are 1, 2, 3 …, the first at 0."""
    total = 0.0
    for (one, other), tally in tallies.items():
        for winner, loser, num in ((one, other, tally.wins), (other, one, tally.losses)):
            difference = (0.0, *values)[winner - 1] - (0.0, *values)[loser - 1]
            total -= (num + (tally.ties + 1) / 2) * math.log(1 / (1 + math.exp(-difference)))
    return total


def test_strengths_are_those_that_a_general_optimiser_finds() -> None:
    tallies = {(2, 1): Tally(60, 11, 40), (3, 2): Tally(12, 0, 30), (3, 1): Tally(20, 3, 19), (4, 3): Tally(9, 1, 0)}
    strengths = strengths_of(tallies)
    best = minimize(negative_log_likelihood, np.zeros(3), args=(tallies,), method="BFGS", options={"gtol": 1e-9})
    assert [strengths[number].value for number in (2, 3, 4)] == pytest.approx(best.x, abs=1e-5)
    # Second derivatives by differences of the same function.
    step, moves = 1e-3, np.eye(3)
    information = np.array(
        [
            [
                sum(
                    a * b * negative_log_likelihood(best.x + step * (a * moves[i] + b * moves[j]), tallies)
                    for a, b in itertools.product((1, -1), repeat=2)
                )
                / (4 * step**2)
                for j in range(3)
            ]
            for i in range(3)
        ]
    )
    errors = np.sqrt(np.diag(np.linalg.inv(information)))
    found = [(strengths[number].high - strengths[number].value) / 1.959964 for number in (2, 3, 4)]
    assert found == pytest.approx(errors, rel=1e-4)


def test_of_two_versions_the_strength_is_the_log_odds_of_the_win_rate_with_one_tie_more() -> None:
    strengths = strengths_of({(1, 2): Tally(30, 8, 60)})
    won, lost = 60 + 4 + 0.5, 30 + 4 + 0.5  # by the second version
    error = math.sqrt(1 / won + 1 / lost)
    assert strengths[2].value == pytest.approx(math.log(won / lost))
    assert strengths[2].rate == pytest.approx(won / 99)
    assert (strengths[2].low, strengths[2].high) == pytest.approx(
        (math.log(won / lost) - 1.959964 * error, math.log(won / lost) + 1.959964 * error)
    )
    assert (strengths[1].value, strengths[1].low, strengths[1].high) == (0.0, 0.0, 0.0)


def test_a_version_that_won_everything_has_a_strength_and_a_wide_interval() -> None:
    strength = strengths_of({(2, 1): Tally(wins=10)})[2]
    assert strength.value == pytest.approx(math.log(10.5 / 0.5))
    assert strength.high - strength.low > 4


def test_versions_that_nothing_connects_have_scales_of_their_own() -> None:
    tallies = {(2, 1): Tally(5, 0, 5), (4, 3): Tally(9, 0, 1), (5, 2): Tally(3, 1, 3), (6, 1): Tally()}
    assert groups_of(tallies) == [[1, 2, 5], [3, 4]]
    strengths = strengths_of(tallies)
    assert {number: strength.group for number, strength in strengths.items()} == {1: 1, 2: 1, 5: 1, 3: 2, 4: 2}
    assert strengths[3].value == 0.0


@given(st.integers(1, 200), st.integers(0, 50), st.integers(1, 200))
def test_the_side_from_which_a_pair_is_told_does_not_matter(wins: int, ties: int, losses: int) -> None:
    third = Tally(4, 4, 7)
    told = strengths_of({(1, 2): Tally(wins, ties, losses), (2, 3): third})
    reversed_ = strengths_of({(2, 1): Tally(losses, ties, wins), (3, 2): third.reversed})
    for number in (2, 3):
        assert told[number].value == pytest.approx(reversed_[number].value, abs=1e-7)

"""Orderings: dense ranks, and the one that pairwise judgements agree on."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.datasets.orderings import dense, fitted_ranks, sign


@pytest.mark.parametrize(
    ("ranks", "expected"), [([0, 1, 2], [1, 2, 3]), ([3, 1, 3], [2, 1, 2]), ([0, 4, 0, 2], [1, 3, 1, 2]), ([7], [1])]
)
def test_ranks_are_numbered_from_1_without_gaps(ranks: list[float], expected: list[int]) -> None:
    assert dense(ranks) == expected


@given(st.lists(st.integers(1, 9), min_size=2, max_size=9))
def test_judgements_made_from_a_ranking_give_it_back(ranks: list[int]) -> None:
    judgements = {(i, j): sign(ranks[j] - ranks[i]) for i, j in combinations(range(len(ranks)), 2)}
    assert fitted_ranks(len(ranks), judgements) == dense(ranks)


@pytest.mark.parametrize(
    "judgements",
    [
        {(0, 1): 1, (1, 2): 1, (0, 2): -1},  # a cycle
        {(0, 1): 0, (1, 2): 0, (0, 2): 1},  # ties that are not one tie
        {(0, 1): 1, (0, 2): 1},  # a pair that nobody judged
    ],
)
def test_judgements_that_no_ordering_agrees_with_fit_none(judgements: dict[tuple[int, int], int]) -> None:
    assert fitted_ranks(3, judgements) is None

import itertools
import math
import random
import statistics

import pytest
import torch

from trainer.asking import choose, disagreement


def test_disagreement_is_the_mean_variance_of_the_preferences_over_the_members():
    scores = [[0.0, 1.0, -2.0], [0.5, -1.0, 3.0]]
    expected = statistics.fmean(
        statistics.pvariance([1 / (1 + math.exp(own[j] - own[i])) for own in scores])
        for i, j in itertools.combinations(range(3), 2)
    )
    assert disagreement(torch.tensor(scores)) == pytest.approx(expected, rel=1e-5)


def test_members_that_differ_by_a_constant_agree():
    assert disagreement(torch.tensor([[0.0, 1.0, -2.0], [5.0, 6.0, 3.0]])) == pytest.approx(0.0, abs=1e-12)


def test_members_that_are_sure_of_opposites_disagree_most():
    assert disagreement(torch.tensor([[50.0, -50.0], [-50.0, 50.0]])) == pytest.approx(0.25)


def test_without_a_random_share_the_candidates_of_most_disagreement_are_asked():
    chosen = choose([0.1, 0.4, 0.2, 0.3], 2, disagreement_share=1.0, rng=random.Random(0))
    assert chosen == {1: "disagreement", 3: "disagreement"}


def test_the_random_share_is_marked_and_has_the_size_that_was_asked_for():
    chosen = [choose([0.1, 0.2, 0.3, 0.4], 1, disagreement_share=0.75, rng=random.Random(s)) for s in range(4000)]
    share = statistics.fmean(list(own.values()) == ["random"] for own in chosen)
    assert share == pytest.approx(0.25, abs=0.03)  # four standard deviations


def test_what_is_asked_at_random_is_a_fair_sample_of_all_candidates():
    chosen = [choose([0.1, 0.2, 0.3, 0.4], 2, disagreement_share=0.5, rng=random.Random(s)) for s in range(4000)]
    drawn = [i for own in chosen for i, by in own.items() if by == "random"]
    for i in range(4):
        assert drawn.count(i) / len(drawn) == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_each_place_is_given_to_another_candidate(share):
    for seed in range(50):
        assert len(choose([0.0] * 5, 3, disagreement_share=share, rng=random.Random(seed))) == 3

from itertools import combinations, permutations
from random import Random

import pytest

from app.simulation.gold import gold_preference, gold_utility
from app.simulation.labelers import SimulatedLabeler, expected_disagreement, rank_slate

PROMPT = "How do I cook rice?"
TEXTS = [
    "Of course. Rinse the rice twice and simmer it for ten minutes. Would you like more tips?",
    "Rinse the rice twice and simmer it for ten minutes.",
    "Good rice needs enough water. Have fun!",
    "Whatever. Rinse the rice twice.",
    "It depends on many things.",
    "Take bus number seven to the station and get off at the fourth",
    "Rinse the rice twice. Do not rinse the rice twice.",
    "Why ask me? It depends",
    "You could",
]


GOLD = {(a, b): gold_preference(PROMPT, a, b) for a in TEXTS for b in TEXTS}


def disagreement_with_gold(ranks: list[int], texts: list[str]) -> float:
    """Share of the comparisons the gold decides that the ranking gets wrong, a tie counting one half."""
    errors = []
    for i, j in combinations(range(len(texts)), 2):
        preference = GOLD[texts[i], texts[j]]
        if preference != 0.5:
            judged = 0.5 if ranks[i] == ranks[j] else float(ranks[i] < ranks[j])
            errors.append(abs(judged - preference))
    return sum(errors) / len(errors)


@pytest.mark.parametrize("k", [2, 4, 9])
@pytest.mark.parametrize("noise", [0.1, 0.25])
def test_labelers_disagree_with_the_gold_on_the_stated_share_of_the_comparisons(k: int, noise: float) -> None:
    rng = Random(f"{k} {noise}")
    num_slates = 10_000 // k**2
    disagreements = []
    for _ in range(num_slates):
        texts = rng.sample(TEXTS, k)
        disagreements.append(disagreement_with_gold(rank_slate(rng, PROMPT, texts, noise), texts))
    assert sum(disagreements) / num_slates == pytest.approx(noise, abs=0.02)


def test_a_labeler_without_noise_follows_the_gold() -> None:
    ranks = rank_slate(Random(1), PROMPT, TEXTS, noise=0.0)
    assert disagreement_with_gold(ranks, TEXTS) < 1e-9
    assert sorted(ranks) == list(range(1, len(TEXTS) + 1))


def test_the_expected_disagreement_is_the_mean_over_all_orders() -> None:
    weights, errors = 0.0, 0.0
    for order in permutations(range(4)):  # Mallows by its definition: dispersion ** (number of wrong comparisons)
        wrong = sum(earlier > later for earlier, later in combinations(order, 2))
        weights += 0.6**wrong
        errors += 0.6**wrong * wrong / 6
    assert expected_disagreement(4, 0.6, tie_probability=0.0) == pytest.approx(errors / weights)


def test_ranks_are_dense_and_some_are_tied() -> None:
    rng = Random(3)
    rankings = [rank_slate(rng, PROMPT, TEXTS) for _ in range(200)]
    assert all(sorted(set(ranks)) == list(range(1, max(ranks) + 1)) for ranks in rankings)
    assert 20 < sum(len(set(ranks)) < len(ranks) for ranks in rankings) < 100


def test_a_labeler_judges_the_same_slate_alike_in_whatever_order_it_is_shown() -> None:
    labeler = SimulatedLabeler(seed=4)
    forwards, backwards = labeler.judge(PROMPT, TEXTS), labeler.judge(PROMPT, TEXTS[::-1])
    assert forwards.ranks == backwards.ranks[::-1]
    assert forwards.qualities == backwards.qualities[::-1]


def test_two_labelers_judge_differently() -> None:
    assert SimulatedLabeler(seed=1).judge(PROMPT, TEXTS) != SimulatedLabeler(seed=2).judge(PROMPT, TEXTS)


def test_qualities_run_from_1_to_7_and_never_contradict_the_ranking() -> None:
    for seed in range(50):
        judgement = SimulatedLabeler(seed).judge(PROMPT, TEXTS)
        assert all(1 <= quality <= 7 for quality in judgement.qualities)
        for (rank, quality), (other_rank, other_quality) in combinations(
            zip(judgement.ranks, judgement.qualities, strict=True), 2
        ):
            assert not (rank < other_rank and quality < other_quality)
            assert not (rank == other_rank and quality != other_quality)


def test_better_completions_get_better_qualities_on_average() -> None:
    by_gold = sorted(range(len(TEXTS)), key=lambda i: gold_utility(PROMPT, TEXTS[i]))
    qualities = [SimulatedLabeler(seed).judge(PROMPT, TEXTS).qualities for seed in range(100)]
    worst, best = (sum(row[i] for row in qualities) / 100 for i in (by_gold[0], by_gold[-1]))
    assert best - worst > 2


def test_noise_above_one_half_is_refused() -> None:
    with pytest.raises(ValueError, match=r"noise=0.6"):
        rank_slate(Random(1), PROMPT, TEXTS, noise=0.6)

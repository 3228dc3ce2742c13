import math
import random
from collections import Counter

import pytest

from trainer.variety import distinct_n, self_bleu


def test_distinct_n_counts_different_runs_of_n_tokens():
    completions = [[1, 2, 1, 2], [1, 2], [7]]
    assert distinct_n(completions, 1) == 3 / 7
    assert distinct_n(completions, 2) == 2 / 4  # (1, 2) three times, (2, 1) once
    assert distinct_n([[1]], 2) == 0.0


def bleu(hypothesis, references):
    """By its definition (Papineni et al. 2002), one sentence, with method 1 of Chen and Cherry 2014."""
    logs = []
    for n in range(1, min(4, len(hypothesis)) + 1):
        grams = Counter(tuple(hypothesis[i : i + n]) for i in range(len(hypothesis) - n + 1))
        most = Counter()
        for reference in references:
            most |= Counter(tuple(reference[i : i + n]) for i in range(len(reference) - n + 1))
        matched = sum((grams & most).values())
        logs.append(math.log((matched or 0.1) / sum(grams.values())))
    nearest = min((abs(len(r) - len(hypothesis)), len(r)) for r in references)[1]
    penalty = 1.0 if len(hypothesis) >= nearest else math.exp(1 - nearest / len(hypothesis))
    return penalty * math.exp(sum(logs) / len(logs))


@pytest.mark.parametrize("seed", range(5))
def test_self_bleu_is_the_mean_bleu_of_each_against_the_others(seed):
    rng = random.Random(seed)
    completions = [[rng.randrange(4) for _ in range(rng.randrange(1, 12))] for _ in range(7)]
    expected = [bleu(own, completions[:i] + completions[i + 1 :]) for i, own in enumerate(completions)]
    assert self_bleu(completions) == pytest.approx(sum(expected) / len(expected), rel=1e-12)


def test_self_bleu_is_1_where_all_are_alike_and_small_where_nothing_is_shared():
    assert self_bleu([[1, 2, 3, 4, 5]] * 3) == pytest.approx(1.0)
    assert self_bleu([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]) < 0.05
    assert self_bleu([[1, 2, 3]]) == 0.0

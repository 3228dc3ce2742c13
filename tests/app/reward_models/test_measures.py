"""The figures of a report, computed by another way: pairs by hand, SciPy, one labeler against another by loops."""

import itertools
import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from app.reward_models.differences import correlation_within_slates, difference, mcnemar
from app.reward_models.measures import (
    calibration,
    ceiling,
    comparisons_of,
    mean_of,
    mean_over_prompts,
    num_ties,
    slices,
)
from app.reward_models.tables import ScoredRankings, scored_rankings


def row(
    ranks: Sequence[int], scores: Sequence[float], *, prompt: int = 0, labeler: str = "ann", **others: Any
) -> dict[str, Any]:
    return {
        "ranking_id": f"{prompt}-{labeler}",
        "prompt_id": prompt,
        "group": f"group-{prompt}",
        "split": "validation",
        "labeler": labeler,
        "held_out_labeler": False,
        "is_pick": False,
        "margin": None,
        "ranks": list(ranks),
        "scores": list(scores),
        "characters": [1] * len(ranks),
        **others,
    }


def random_rows(
    seed: int, num_prompts: int = 12, people: Sequence[str] = ("ann", "bob", "cem")
) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    rows = []
    for prompt in range(num_prompts):
        k = rng.randrange(2, 6)
        scores = [round(rng.gauss(0, 1), 1) for _ in range(k)]
        characters = [rng.randrange(5, 9) for _ in range(k)]
        for labeler in rng.sample(list(people), rng.randrange(1, len(people) + 1)):
            ranks = [rng.randrange(1, 4) for _ in range(k)]
            rows.append(row(ranks, scores, prompt=prompt, labeler=labeler, characters=characters))
    return rows


def outcome(lead: float) -> float:
    return 1.0 if lead > 0 else 0.5 if lead == 0 else 0.0


def pairs(row: dict[str, Any]) -> list[tuple[int, int]]:
    places = range(len(row["ranks"]))
    return [(i, j) for i, j in itertools.permutations(places, 2) if row["ranks"][i] < row["ranks"][j]]


@pytest.mark.parametrize("seed", range(3))
def test_accuracy_counts_every_prompt_alike_and_ties_nowhere(seed: int) -> None:
    rows = random_rows(seed)
    comparisons = comparisons_of(scored_rankings(rows))
    by_prompt: dict[int, list[tuple[float, float]]] = {}
    for each in rows:
        for i, j in pairs(each):
            model = outcome(each["scores"][i] - each["scores"][j])
            longer = outcome(each["characters"][i] - each["characters"][j])
            by_prompt.setdefault(each["prompt_id"], []).append((model, longer))
    everything = list(itertools.chain.from_iterable(by_prompt.values()))
    means = [np.mean(values, axis=0) for values in by_prompt.values()]
    assert mean_over_prompts(comparisons, comparisons.right).value == pytest.approx(np.mean(means, axis=0)[0])
    assert mean_over_prompts(comparisons, comparisons.longer).value == pytest.approx(np.mean(means, axis=0)[1])
    assert mean_of(comparisons, comparisons.right).value == pytest.approx(np.mean(everything, axis=0)[0])
    assert len(comparisons) == len(everything)


def test_slices_of_k_add_up_to_the_whole_and_have_their_own_count() -> None:
    comparisons = comparisons_of(scored_rankings(random_rows(5)))
    sizes = comparisons.rankings.k[comparisons.ranking].tolist()
    found = slices(comparisons, sizes)
    assert [each.key for each in found] == [str(k) for k in sorted(set(sizes))]
    for each in found:
        own = [right for right, k in zip(comparisons.right, sizes, strict=True) if str(k) == each.key]
        assert (each.accuracy.num, each.accuracy.value) == (len(own), pytest.approx(sum(own) / len(own)))


def test_the_interval_is_as_wide_as_resampled_prompts_by_hand() -> None:
    rows = random_rows(7, num_prompts=40)
    estimate = mean_over_prompts(*(lambda c: (c, c.right))(comparisons_of(scored_rankings(rows))))
    by_prompt = {}
    for each in rows:
        by_prompt.setdefault(each["prompt_id"], []).extend(
            outcome(each["scores"][i] - each["scores"][j]) for i, j in pairs(each)
        )
    means = np.array([np.mean(values) for values in by_prompt.values() if values])
    spread = means.std() / math.sqrt(len(means))
    low, value, high = estimate.low or math.nan, estimate.value or math.nan, estimate.high or math.nan
    assert high - low == pytest.approx(2 * 1.96 * spread, rel=0.12)
    assert low < value < high


def test_few_prompts_have_no_interval() -> None:
    comparisons = comparisons_of(scored_rankings(random_rows(1, num_prompts=4)))
    assert (mean_of(comparisons, comparisons.right).low, len(comparisons) > 0) == (None, True)


def test_a_pick_compares_one_with_the_others_and_ties_nobody() -> None:
    rankings = scored_rankings([row([1, 2, 2], [0, 1, 2], is_pick=True), row([1, 2, 2], [0, 1, 2], prompt=1)])
    assert (len(comparisons_of(rankings)), num_ties(rankings)) == (4, 1)


def test_calibration_weighs_each_bin_by_its_comparisons() -> None:
    sure, unsure = math.log(0.93 / 0.07), math.log(0.58 / 0.42)  # confidences of 0.93 and 0.58
    rows = [row([1, 2], [sure, 0], prompt=number) for number in range(3)]
    rows += [row([2, 1], [sure, 0], prompt=3)]
    rows += [row([1, 2], [unsure, 0], prompt=4), row([2, 1], [unsure, 0], prompt=5)]
    found = calibration(comparisons_of(scored_rankings(rows)))
    assert [(each.confidence, each.accuracy.value, each.accuracy.num) for each in found.bins] == [
        (pytest.approx(0.58), 0.5, 2),
        (pytest.approx(0.93), 0.75, 4),
    ]
    assert found.error == pytest.approx(2 / 6 * 0.08 + 4 / 6 * 0.18)


def test_what_chance_alone_shows_is_what_a_calibrated_model_shows_on_average() -> None:
    rng = np.random.default_rng(3)
    leads = rng.normal(size=400)
    seen = []
    for _ in range(60):
        first_wins = rng.random(400) < 1 / (1 + np.exp(-leads))
        rows = [
            row([1, 2] if wins else [2, 1], [lead, 0.0], prompt=number)
            for number, (lead, wins) in enumerate(zip(leads, first_wins, strict=True))
        ]
        found = calibration(comparisons_of(scored_rankings(rows)))
        seen.append(found.error)
    assert found.by_chance == pytest.approx(np.mean(seen), rel=0.1)


def ceiling_by_hand(rows: list[dict[str, Any]]) -> tuple[float, float]:
    """Every ordered two people of a slate, one asked about the other's untied comparisons."""
    people, model, weight = 0.0, 0.0, 0.0
    for one, other in itertools.permutations(rows, 2):
        if one["prompt_id"] != other["prompt_id"]:
            continue
        num = sum(each["prompt_id"] == one["prompt_id"] for each in rows) - 1
        for i, j in pairs(one):
            people += outcome(other["ranks"][j] - other["ranks"][i]) / num
            model += outcome(one["scores"][i] - one["scores"][j]) / num
            weight += 1 / num
    return people / weight, model / weight


def test_the_ceiling_asks_each_person_in_the_models_place() -> None:
    rows = random_rows(11, num_prompts=20)
    found = ceiling(scored_rankings(rows), [each["prompt_id"] for each in rows])
    people, model = ceiling_by_hand(rows)
    assert (found.people.value, found.model.value) == (pytest.approx(people), pytest.approx(model))
    assert found.share.value == pytest.approx(model / people)


def test_without_overlap_the_ceiling_is_not_known_and_says_why() -> None:
    rows = random_rows(2, people=("ann",))
    found = ceiling(scored_rankings(rows), [each["prompt_id"] for each in rows])
    assert (found.people.value, found.share.value, found.num_slates) == (None, None, 0)
    assert found.people.reason == "no slate was ranked by two people"


def test_a_person_who_picked_is_not_asked_about_the_others() -> None:
    rows = [row([1, 2, 3], [3, 2, 1]), row([1, 2, 2], [3, 2, 1], labeler="bob", is_pick=True)]
    found = ceiling(scored_rankings(rows), ["slate", "slate"])
    assert (found.people.num, found.people.value) == (4, 1.0)


@pytest.mark.parametrize(("first", "second"), [(0, 1), (3, 9), (40, 61), (500, 430), (7, 7)])
def test_mcnemar_is_the_exact_binomial_test(first: int, second: int) -> None:
    assert mcnemar(first, second) == pytest.approx(stats.binomtest(first, first + second, 0.5).pvalue)


def test_models_that_never_differ_have_no_test() -> None:
    assert mcnemar(0, 0) is None


def with_scores(rows: list[dict[str, Any]], seed: int) -> ScoredRankings:
    rng = random.Random(seed)
    of_prompt: dict[int, list[float]] = {}
    for each in rows:
        of_prompt.setdefault(each["prompt_id"], [rng.gauss(0, 2) for _ in each["ranks"]])
    return scored_rankings([{**each, "scores": of_prompt[each["prompt_id"]]} for each in rows])


def test_two_models_are_compared_on_the_same_comparisons() -> None:
    rows = random_rows(13, num_prompts=30)
    one, other = comparisons_of(with_scores(rows, 1)), comparisons_of(with_scores(rows, 2))
    found = difference(one, other)
    assert found.gain.value == pytest.approx((found.second.value or 0) - (found.first.value or 0))
    assert found.only_first == sum((a > 0) and (b < 0) for a, b in zip(one.lead, other.lead, strict=True))
    assert found.p_value == pytest.approx(
        stats.binomtest(found.only_first, found.only_first + found.only_second, 0.5).pvalue
    )
    same = np.mean([(a > 0) == (b > 0) for a, b in zip(one.lead, other.lead, strict=True)])
    assert found.same_choice.value == pytest.approx(same)


def test_correlation_is_within_slates_each_counted_once_whatever_is_added_to_a_slates_scores() -> None:
    rows = random_rows(17, num_prompts=25)
    one, other = with_scores(rows, 1), with_scores(rows, 2)
    expected: tuple[list[float], list[float]] = ([], [])
    for number in {each["prompt_id"]: place for place, each in enumerate(rows)}.values():
        k = len(rows[number]["ranks"])
        for values, of in zip(expected, (one, other), strict=True):
            values.extend(of.scores[number, :k] - of.scores[number, :k].mean())
    shifted = scored_rankings(
        [
            {**each, "scores": (other.scores[place, : len(each["ranks"])] + each["prompt_id"]).tolist()}
            for place, each in enumerate(rows)
        ]
    )
    found = correlation_within_slates(one, shifted)
    assert found.value == pytest.approx(stats.pearsonr(*expected)[0])
    assert (found.low or 1) < (found.value or 0) < (found.high or -1)


def test_nothing_to_compare_is_said_and_is_no_error() -> None:
    comparisons = comparisons_of(scored_rankings([row([1, 1], [0, 1])]))
    assert mean_of(comparisons, comparisons.right).value is None
    assert calibration(comparisons).error is None
    assert slices(comparisons, []) == []

"""Agreement statistics against published values, other people's programs, and numbers computed by hand."""

import math
import warnings

import krippendorff
import numpy as np
import pytest
from scipy.stats import kendalltau

from app.quality.agreement import (
    FEWEST_PROMPTS,
    MOST_BLOCKS,
    RESAMPLES,
    block_sums,
    coincidences,
    interval_distances,
    interval_of,
    kendall_tau_b,
    krippendorff_alpha,
    make_blocks,
    nominal_distances,
    ordered_alike,
    ordinal_distances,
    ratio_estimates,
)
from app.quality.pairs import ALL_TIED, NOBODY, ONE_VALUE, agreements, comparisons_between, pairs_of

METRICS = {"nominal": nominal_distances, "ordinal": ordinal_distances, "interval": interval_distances}

# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability". Section A: two observers, binary, no missing data.
BINARY = [[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]]
# Section B: two observers, five categories (a … e), no missing data.
NOMINAL = ["aabbdcccedda", "babbbccceddd"]
# Section C: four observers, twelve units, missing data (0).
FOUR_OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
    [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
]
# Fleiss 1971, table 1: 30 patients, 6 psychiatrists each: depression, personality disorder, schizophrenia, neurosis,
# other.
FLEISS = """0 0 0 6 0|0 3 0 0 3|0 1 4 0 1|0 0 0 0 6|0 3 0 3 0|2 0 4 0 0|0 0 4 0 2|2 0 3 1 0|2 0 0 4 0|0 0 0 0 6
1 0 0 5 0|1 1 0 4 0|0 3 3 0 0|1 0 0 5 0|0 2 0 3 1|0 0 5 0 1|3 0 0 1 2|5 1 0 0 0|0 2 0 4 0|1 0 2 0 3
0 0 0 0 6|0 1 0 5 0|0 2 0 1 3|2 0 0 4 0|1 0 0 4 1|0 5 0 1 0|4 0 0 0 2|0 2 0 4 0|1 0 5 0 0|0 0 0 0 6"""


def by_unit(observers: list[list[int]]) -> np.ndarray:
    return np.array(observers).T


@pytest.mark.parametrize("metric", ["nominal", "ordinal"])  # with two values there is one distance
def test_alpha_of_krippendorffs_binary_example(metric):
    assert krippendorff_alpha(by_unit(BINARY) + 1, METRICS[metric]) == pytest.approx(0.095, abs=0.0005)


def test_alpha_of_krippendorffs_nominal_example():
    values = by_unit([["abcde".index(value) + 1 for value in observer] for observer in NOMINAL])
    assert krippendorff_alpha(values, nominal_distances) == pytest.approx(0.692, abs=0.0005)


@pytest.mark.parametrize(("metric", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_krippendorffs_four_observers_with_missing_data(metric, published):
    assert krippendorff_alpha(by_unit(FOUR_OBSERVERS), METRICS[metric]) == pytest.approx(published, abs=0.0005)


def test_nominal_alpha_of_fleiss_psychiatrists_is_his_kappa_without_the_small_sample_correction():
    counts = np.array([[int(n) for n in row.split()] for row in FLEISS.replace("\n", "|").split("|")])
    assert counts.shape == (30, 5)
    assert set(counts.sum(axis=1)) == {6}
    units = np.array([np.repeat(np.arange(1, 6), row) for row in counts])
    alpha = krippendorff_alpha(units, nominal_distances)
    kappa = 1 - (1 - alpha) * (30 * 6) / (30 * 6 - 1)
    assert kappa == pytest.approx(0.430, abs=0.0005)


@pytest.mark.parametrize("metric", METRICS)
def test_alpha_is_that_of_the_krippendorff_package_on_random_rankings(metric):
    rng = np.random.default_rng(5)
    values = np.concatenate([rng.permuted(np.tile(np.arange(1, 7), (5, 1)), axis=1).T for _ in range(40)])
    values[rng.random(values.shape) < 0.3] = 0
    theirs = krippendorff.alpha(np.where(values == 0, np.nan, values).T, level_of_measurement=metric)
    assert krippendorff_alpha(values, METRICS[metric]) == pytest.approx(theirs, abs=1e-9)


def test_alpha_is_undefined_where_values_cannot_differ_or_nobody_judged_twice():
    assert krippendorff_alpha(np.array([[2, 2], [2, 2]]), ordinal_distances) is None
    assert krippendorff_alpha(np.array([[1, 0], [0, 2]]), ordinal_distances) is None
    assert krippendorff_alpha(np.zeros((0, 2), dtype=int), ordinal_distances) is None


def test_a_unit_with_one_value_counts_for_nothing():
    with_lone = np.array([[1, 1, 0], [1, 2, 0], [3, 0, 0]])
    assert coincidences(with_lone, 3).tolist() == coincidences(with_lone[:2], 3).tolist()


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], 6),
        ([1, 2, 3, 4], [4, 3, 2, 1], 0),
        ([1, 2, 3, 4], [2, 1, 3, 4], 5),
        ([1, 2, 3, 4], [1, 1, 1, 1], 3),  # a tie in one of the two: one half each
        ([1, 1, 2, 2], [1, 1, 2, 2], 6),  # tied by both is agreed
        ([1, 1, 2, 2], [1, 2, 2, 3], 4.5),  # (0,1), (1,2) and (2,3) are tied by one of the two
    ],
)
def test_comparisons_ordered_alike_with_ties_half(first, second, alike):
    found, num = ordered_alike(np.array([first]), np.array([second]))
    assert (found.tolist(), num.tolist()) == ([alike], [6])
    assert ordered_alike(np.array([second]), np.array([first]))[0].tolist() == [alike]


def test_padding_is_no_comparison():
    found, num = ordered_alike(np.array([[1, 2, 3, 0, 0]]), np.array([[1, 3, 2, 0, 0]]))
    assert (found.tolist(), num.tolist()) == ([2], [3])


def test_tau_b_is_scipys_on_rankings_of_five_systems_with_ties():
    # As in WMT: five systems, ranks 1 to 5, ties allowed.
    rng = np.random.default_rng(3)
    first, second = rng.integers(1, 6, (300, 5)), rng.integers(1, 6, (300, 5))
    first[0], second[1] = 2, 4  # one that ties everything
    ours, is_defined = kendall_tau_b(first, second)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = np.array([kendalltau(a, b).statistic for a, b in zip(first, second, strict=True)])
    assert is_defined.tolist() == (~np.isnan(theirs)).tolist()
    assert not is_defined[:2].any()
    assert ours[is_defined] == pytest.approx(theirs[is_defined])


def test_tau_b_with_ties_by_hand():
    # Comparisons of (1,1,2,3) with (1,2,2,3): four alike, none against, one tied in either: 4 / sqrt(5 · 5).
    assert kendall_tau_b(np.array([[1, 1, 2, 3]]), np.array([[1, 2, 2, 3]]))[0].tolist() == [pytest.approx(0.8)]


def test_wmt_agreement_on_ties_is_half_where_only_one_judge_ties():
    """Pairs of WMT's five-way rankings, against the definition counted in a plain loop."""
    rng = np.random.default_rng(9)
    first, second = rng.integers(1, 6, (50, 5)), rng.integers(1, 6, (50, 5))
    expected = 0.0
    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        for i in range(5):
            for j in range(i):
                orders = {(x[i] > x[j]) - (x[i] < x[j]) for x in (a, b)}
                expected += 1 if len(orders) == 1 else 0.5 if 0 in orders else 0
    assert ordered_alike(first, second)[0].sum() == expected


def three_rankings():
    """One slate of three completions: Ada and Ben differ on the last two, Cem puts Ada's best last."""
    ranks = np.array([[1, 2, 3], [1, 3, 2], [3, 1, 2]], dtype=np.int8)
    return pairs_of(np.zeros(3, int), np.array([7, 8, 9]), np.zeros(3, int), ranks)


def everyone(pairs, num_prompts=1):
    group = np.zeros(len(pairs.first), dtype=int)
    return agreements(pairs, np.arange(len(pairs.first)), group, 1, make_blocks(num_prompts))[0]


def test_three_raters_by_hand():
    found = everyone(three_rankings())
    # Alike: Ada and Ben on two of three comparisons, Ada and Cem on one, Ben and Cem on none.
    assert found.alike.value == pytest.approx(3 / 9)
    # tau: 1/3, -1/3, -1.
    assert found.tau.value == pytest.approx(-1 / 3)
    # Values of the three completions: {1,1,3}, {2,3,1}, {3,2,2}; distances with marginals 3, 3, 3: 9 between
    # neighbours, 36 between 1 and 3. Observed: (2·36 + 36+9+9 + 2·9)/3 pairs = 144/9; expected over 9 values:
    # (9·9 + 9·9 + 9·36)/36 pairs = 13.5. Alpha = 1 - 16/13.5.
    assert found.alpha.value == pytest.approx(1 - 16 / 13.5)
    assert krippendorff_alpha(np.array([[1, 1, 3], [2, 3, 1], [3, 2, 2]]), ordinal_distances) == pytest.approx(
        found.alpha.value
    )


def test_rankings_of_different_slates_or_by_one_person_are_no_pair():
    ranks = np.array([[1, 2], [2, 1], [1, 2], [1, 2]])
    pairs = pairs_of(np.array([0, 0, 1, 2]), np.array([5, 5, 5, 6]), np.zeros(4, int), ranks)
    assert len(pairs.first) == 0
    found = everyone(pairs)
    assert [found.alike, found.tau, found.alpha] == [
        type(found.alike)(None, reason=NOBODY),
        type(found.tau)(None, reason=ALL_TIED),
        type(found.alpha)(None, reason=NOBODY),
    ]


def test_alpha_and_tau_are_undefined_not_zero_when_everything_is_tied():
    pairs = pairs_of(np.zeros(2, int), np.array([1, 2]), np.zeros(2, int), np.ones((2, 4), dtype=int))
    found = everyone(pairs)
    assert (found.alike.value, found.tau.value, found.alpha.value) == (1, None, None)
    assert (found.tau.reason, found.alpha.reason) == (ALL_TIED, ONE_VALUE)


def many(num_slates=200, noise=1.0, num_labelers=3, k=5, seed=1):
    """Slates that everyone ranked, with an opinion in common and noise of their own."""
    rng = np.random.default_rng(seed)
    quality = np.repeat(rng.normal(size=(num_slates, k)), num_labelers, axis=0)
    seen = quality + noise * rng.normal(size=quality.shape)
    ranks = seen.argsort(axis=1).argsort(axis=1) + 1
    slate = np.repeat(np.arange(num_slates), num_labelers)
    return slate, np.tile(np.arange(num_labelers), num_slates), ranks


def test_grouped_alpha_is_the_plain_one_where_all_slates_have_the_same_k():
    slate, labeler, ranks = many()
    found = everyone(pairs_of(slate, labeler, slate, ranks), num_prompts=200)
    values = ranks.reshape(200, 3, 5).transpose(0, 2, 1).reshape(-1, 3)
    assert found.alpha.value == pytest.approx(krippendorff_alpha(values, ordinal_distances))
    assert found.alpha.low < found.alpha.value < found.alpha.high


def test_a_last_place_of_four_is_no_fourth_place_of_nine():
    slate, labeler, small = many(k=4)
    _, _, large = many(k=9, seed=2)
    both = np.concatenate([np.pad(small, ((0, 0), (0, 5))), large])
    slates = np.concatenate([slate, slate + 200])
    labelers = np.tile(labeler, 2)
    found = everyone(pairs_of(slates, labelers, slates, both), num_prompts=400).alpha.value
    alone = [everyone(pairs_of(slate, labeler, slate, part), 200).alpha.value for part in (small, large)]
    assert min(alone) < found < max(alone)


def test_the_interval_is_that_of_a_bootstrap_over_prompts_written_plainly():
    slate, labeler, ranks = many()
    pairs = pairs_of(slate, labeler, slate, ranks)
    found = everyone(pairs, num_prompts=200).alike
    by_prompt = np.bincount(pairs.prompt, pairs.alike) / np.bincount(pairs.prompt, pairs.num)
    rng = np.random.default_rng(0)
    means = [rng.choice(by_prompt, 200).mean() for _ in range(4000)]
    low, high = np.percentile(means, (2.5, 97.5))
    assert (found.low, found.high) == (pytest.approx(low, abs=0.004), pytest.approx(high, abs=0.004))


def test_blocks_of_prompts_give_the_interval_of_single_prompts():
    num = 6 * MOST_BLOCKS
    rng = np.random.default_rng(4)
    parts = (rng.random(num) < 0.7).astype(float)
    blocks = make_blocks(num)
    assert blocks.num == MOST_BLOCKS
    found = ratio_estimates(
        blocks.of_prompt, np.zeros(num, dtype=int), parts, np.ones(num), blocks, np.array([num]), ""
    )[0]
    half_width = 1.96 * np.sqrt(0.7 * 0.3 / num)
    assert found.high - found.low == pytest.approx(2 * half_width, rel=0.15)


def test_rankings_of_one_prompt_stand_or_fall_together():
    """The same judgements are less certain when all come from few prompts."""
    slate, labeler, ranks = many(noise=2.0)
    apart = everyone(pairs_of(slate, labeler, slate, ranks), num_prompts=200).alike
    together = everyone(pairs_of(slate, labeler, slate % 10, ranks), num_prompts=10).alike
    assert apart.value == together.value
    few = everyone(pairs_of(slate, labeler, slate % (FEWEST_PROMPTS - 1), ranks), num_prompts=4).alike
    assert (few.low, few.high) == (None, None)


def test_agreement_between_versions_is_counted_comparison_by_comparison():
    # Version 1 wrote the first two completions, version 2 the third; the two people differ on one pair of 1 and 2.
    ranks = np.array([[1, 2, 3], [1, 3, 2]])
    pairs = pairs_of(np.zeros(2, int), np.array([1, 2]), np.zeros(2, int), ranks)
    names, found = comparisons_between(pairs, np.array([[1, 1, 2]]), make_blocks(1))
    assert names == [(1, 1), (1, 2)]
    assert [(estimate.value, estimate.num) for estimate in found] == [(1, 1), (0.5, 2)]


@pytest.mark.parametrize(
    ("first", "second", "picks", "alike", "num", "tau"),
    [
        ([1, 2, 3, 4], [1, 2, 2, 2], (False, True), 3, 3, 1),  # the best alone was compared with the other three
        ([1, 2, 3, 4], [2, 1, 2, 2], (False, True), 2, 3, 1 / 3),
        ([1, 1, 2, 2], [1, 2, 2, 2], (False, True), 2.5, 3, 2 / math.sqrt(2 * 3)),  # a tie of who ranked stays one
        ([1, 2, 2, 2], [1, 2, 2, 2], (True, True), 3, 3, 1),
        ([1, 2, 2, 2], [2, 1, 2, 2], (True, True), 0, 1, -1),  # each compared the other's pick with their own
    ],
)
def test_of_a_pick_only_what_was_compared_counts(first, second, picks, alike, num, tau):
    pairs = pairs_of(np.zeros(2, int), np.array([1, 2]), np.zeros(2, int), np.array([first, second]), np.array(picks))
    assert (pairs.alike.tolist(), pairs.num.tolist()) == ([alike], [num])
    assert pairs.tau.tolist() == [pytest.approx(tau)]


def test_alpha_is_that_of_the_rankings_without_the_picks():
    slate, labeler, ranks = many()
    picks = np.where(ranks == 1, 1, 2)
    all_ranks, is_pick = np.concatenate([ranks, picks]), np.repeat([False, True], len(ranks))
    mixed = pairs_of(np.tile(slate, 2), np.concatenate([labeler, labeler + 3]), np.tile(slate, 2), all_ranks, is_pick)
    found = everyone(mixed, num_prompts=200)
    values = ranks.reshape(200, 3, 5).transpose(0, 2, 1).reshape(-1, 3)
    assert found.alpha.num == 200 * 3
    assert found.alpha.value == pytest.approx(krippendorff_alpha(values, ordinal_distances))


def test_between_versions_what_a_pick_leaves_open_is_no_comparison():
    ranks, is_pick = np.array([[1, 2, 3], [1, 2, 2]]), np.array([False, True])
    pairs = pairs_of(np.zeros(2, int), np.array([1, 2]), np.zeros(2, int), ranks, is_pick)
    names, found = comparisons_between(pairs, np.array([[1, 1, 2]]), make_blocks(1))
    assert names == [(1, 1), (1, 2)]
    assert [(estimate.value, estimate.num) for estimate in found] == [(1, 1), (1, 1)]  # and not the last two


def test_two_values_that_differ_agree_no_better_than_chance():
    # One unit, two observers, 1 and 2: observed disagreement 1, and the only disagreement that chance could bring is 1.
    for distances in (nominal_distances, ordinal_distances, interval_distances):
        assert krippendorff_alpha(np.array([[1, 2]]), distances) == pytest.approx(0)


def test_an_interval_needs_the_statistic_in_half_of_the_resamples():
    resampled = np.full(RESAMPLES, np.nan)
    resampled[: RESAMPLES // 2 - 1] = 0.5
    assert interval_of(resampled, 50) == (None, None)
    resampled[: RESAMPLES // 2] = 0.5
    assert interval_of(resampled, 50) == (0.5, 0.5)


def test_rows_of_no_group_are_in_no_sum():
    block, group, weights = np.array([0, 1, 1, 1]), np.array([0, -1, 0, 1]), np.array([1.0, 10.0, 2.0, 4.0])
    assert block_sums(block, group, weights, 2, 2).tolist() == [[1, 0], [2, 4]]


def test_blocks_do_not_follow_an_order_in_the_prompts():
    num = 2 * MOST_BLOCKS
    parts = np.repeat([0.0, 1.0], MOST_BLOCKS)  # the first half disagrees: by turns, each block would have one of each
    blocks = make_blocks(num)
    group = np.zeros(num, dtype=int)
    found = ratio_estimates(blocks.of_prompt, group, parts, np.ones(num), blocks, np.array([num]), "")[0]
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt(0.25 / num), rel=0.2)

import math

import pytest

from trainer.reward_report import Judged, figures, labeler_agreement, pearson, tables


def judged(scores, ranks, **changes):
    given = {"prompt_id": 1, "slate": 1, "labeler": "ann", "margin": None, "lengths": [1] * len(ranks)}
    return Judged(**{**given, **changes}, scores=scores, ranks=ranks)


def test_accuracy_is_averaged_over_prompts_and_pair_accuracy_over_comparisons():
    many = judged([4, 3, 2, 1], [1, 2, 3, 4], prompt_id=1, slate=1)  # 6 comparisons, all right
    one = judged([0, 1], [1, 2], prompt_id=2, slate=2)  # 1 comparison, wrong
    seen = figures([many, one])
    assert seen["accuracy"] == pytest.approx((1 + 0) / 2)
    assert seen["pair_accuracy"] == pytest.approx(6 / 7)


def test_ties_of_labelers_are_counted_apart_and_ties_of_scores_count_half():
    """Broken by counting a labeler's tie as a comparison that no score can get right."""
    seen = figures([judged([1, 5, 1], [1, 1, 2])])  # comparisons: 1 over 3 (equal scores), 2 over 3 (right)
    assert (seen["num_comparisons"], seen["num_ties"]) == (2, 1)
    assert seen["pair_accuracy"] == pytest.approx((0.5 + 1) / 2)


def test_what_a_pick_leaves_uncompared_is_neither_a_tie_nor_agreement():
    pick, ranking = judged([3, 2, 1], [1, 2, 2], is_pick=True), judged([3, 2, 1], [2, 1, 3], labeler="bob")
    seen = figures([pick, ranking])
    assert (seen["num_comparisons"], seen["num_ties"]) == (2 + 3, 0)
    assert labeler_agreement([pick, ranking]) == pytest.approx(1 / 2)  # of the first with either other one


def test_what_is_undefined_is_not_a_number():
    seen = figures([])
    assert seen["num_rankings"] == 0
    assert seen["accuracy"] is seen["length_correlation"] is seen["expected_calibration_error"] is None
    assert seen["labeler_agreement"] is seen["accuracy_over_agreement"] is None


def test_comparisons_are_counted_by_k_distance_labeler_and_strength():
    rows = [
        judged([2, 1, 3], [1, 2, 3], labeler="ann"),  # 1>2 right at distance 1; 2>3 wrong; 1>3 wrong at distance 2
        judged([2, 1], [1, 2], labeler="bob", margin=0.5),
    ]
    seen = tables(rows)
    assert seen["by_k"] == {"2": {"accuracy": 1, "count": 1}, "3": {"accuracy": pytest.approx(1 / 3), "count": 3}}
    assert seen["by_rank_distance"] == {
        "1": {"accuracy": pytest.approx(2 / 3), "count": 3},
        "2": {"accuracy": 0, "count": 1},
    }
    assert seen["by_labeler"]["bob"] == {"accuracy": 1, "count": 1}
    assert seen["by_strength"] == {"0.5": {"accuracy": 1, "count": 1}}


def test_a_model_that_is_as_often_right_as_it_says_is_calibrated():
    lead = math.log(3)  # says 75 %
    right, wrong = judged([lead, 0], [1, 2]), judged([0, lead], [1, 2])
    assert figures([right, right, right, wrong])["expected_calibration_error"] == pytest.approx(0, abs=1e-12)
    assert figures([right, wrong])["expected_calibration_error"] == pytest.approx(0.25)
    (bin,) = tables([right, wrong])["calibration"]
    assert bin == {"confidence": pytest.approx(0.75), "accuracy": 0.5, "count": 2}


def test_a_lead_beyond_the_exponential_is_certainty():
    assert tables([judged([1e6, 0], [1, 2])])["calibration"][-1]["confidence"] == 1


def test_length_correlation_counts_each_completion_once():
    slate = {"scores": [1, 2, 3], "ranks": [3, 2, 1], "lengths": [10, 20, 30]}
    one = judged(**slate, labeler="ann")
    assert figures([one])["length_correlation"] == pytest.approx(1)
    assert figures([one, judged(**slate, labeler="bob")])["length_correlation"] == pytest.approx(1)
    assert pearson([1, 2, 3], [5, 5, 5]) is None
    assert pearson([1, 2, 3, 4], [2, 1, 4, 3]) == pytest.approx(0.6)


def test_agreement_counts_a_tie_of_one_labeler_half():
    ann, bob = judged([0, 0, 0], [1, 2, 3]), judged([0, 0, 0], [1, 1, 2], labeler="bob")
    assert labeler_agreement([ann, bob]) == pytest.approx((0.5 + 1 + 1) / 3)
    assert labeler_agreement([ann, judged([0, 0, 0], [1, 2, 3], slate=2)]) is None

"""Intervals that are reported."""

import pytest

from app.statistics import wilson_interval


@pytest.mark.parametrize(
    ("successes", "num_trials", "low", "high"),
    [
        # Newcombe 1998 (Statistics in Medicine 17:857), table I, method 3: printed to four digits.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_wilson_interval_is_the_published_one(successes: int, num_trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, num_trials) == pytest.approx((low, high), abs=5e-5)


def test_96_comparisons_give_ten_points_either_way() -> None:
    low, high = wilson_interval(48, 96)
    assert (0.5 - low, high - 0.5) == pytest.approx((0.1, 0.1), abs=0.005)


@pytest.mark.parametrize(("successes", "num_trials"), [(0, 0), (3, 2), (-1, 2)])
def test_what_is_no_proportion_is_refused(successes: int, num_trials: int) -> None:
    with pytest.raises(ValueError, match="is no proportion"):
        wilson_interval(successes, num_trials)

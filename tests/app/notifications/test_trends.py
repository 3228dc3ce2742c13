"""Lines through noise."""

import random

import pytest

from app.notifications.trends import MOST_POINTS, averaged, student_quantile, trend


def test_a_line_without_noise_is_found_and_certain() -> None:
    seen = trend([(step, 3.0 + 2.0 * step) for step in range(10)])
    assert seen is not None
    assert (seen.first, seen.last, seen.slope, seen.error) == (3.0, 21.0, 2.0, 0.0)
    assert seen.is_sure(0.001)


def test_what_does_not_move_is_not_sure() -> None:
    seen = trend([(step, 0.5) for step in range(10)])
    assert seen is not None
    assert (seen.certainty, seen.is_sure(0.001)) == (0.0, False)


def test_a_single_outlier_moves_the_line_little() -> None:
    points = [(float(step), float(step)) for step in range(20)]
    points[19] = (19.0, 500.0)
    seen = trend(points)
    assert seen is not None
    assert seen.slope == pytest.approx(1.0)


def test_fewer_than_five_points_are_no_trend() -> None:
    assert trend([(step, float(step)) for step in range(4)]) is None


def test_a_long_series_is_averaged_down_and_its_end_is_kept() -> None:
    points = [(float(step), float(step)) for step in range(500)]
    few = averaged(points)
    assert len(few) <= MOST_POINTS
    assert few[-1] == (494.0, 494.0)  # the mean of the last eleven, 489 to 499


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [(3, 10.21), (4, 7.173), (6, 5.208), (10, 4.144), (30, 3.385)],
    ids=lambda value: str(value),
)
def test_students_quantile_is_that_of_the_printed_tables(degrees: int, quantile: float) -> None:
    assert student_quantile(0.999, degrees) == pytest.approx(quantile, rel=0.03)


def test_independent_noise_is_sure_as_seldom_as_promised() -> None:
    rng = random.Random(3)
    num_sure = 0
    for _ in range(800):
        seen = trend([(step, rng.gauss(0, 1)) for step in range(12)])
        assert seen is not None
        num_sure += seen.is_sure(0.01)
    assert num_sure <= 2 * 0.02 * 800  # 0.01 in each direction, and as much again for the median's lower efficiency

"""Numbers of one row are written alike, and what a person set is never rounded."""

import pytest

from app.rounds.figures import alike, exactly, unit_of


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0.7103448, 0.6], ["0.7103", "0.6000"]),
        ([12.5, 3.14159, None], ["12.50", "3.14", "—"]),
        ([123456.7, 1.0], ["123\u202f457", "1"]),
        ([1200, 7, None], ["1\u202f200", "7", "—"]),
        ([2, 0.5], ["2.000", "0.500"]),
        ([-0.25, 0.125], ["-0.2500", "0.1250"]),
        ([0.0, 0.0], ["0.000", "0.000"]),
        ([3e-06, 1.25e-05], ["3.000e-06", "1.250e-05"]),
        ([2.5e8, 1.0], ["2.500e+08", "1.000e+00"]),
        ([None, None], ["—", "—"]),
    ],
)
def test_measurements_of_a_row_have_the_same_digits(values, texts):
    assert alike(values) == texts


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0.1, 0.25], ["0.10", "0.25"]),
        ([1e-05, 0.25], ["1e-05", "0.25"]),
        ([0.123456789, None], ["0.123456789", "—"]),
        ([True, False], ["true", "false"]),
        ([16384, 1536], ["16384", "1536"]),
        ([None, "cosine"], ["—", "cosine"]),
        ([0, 0.5], ["0", "0.5"]),
    ],
)
def test_settings_of_a_row_are_exact(values, texts):
    assert exactly(values) == texts


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("held_out_kl", "nats per completion"),
        ("candidate_kl", "nats per completion"),
        ("tokens_per_s", "tokens/s"),
        ("candidate_tokens", "tokens"),
        ("num_tokens", ""),
        ("best_step", ""),
    ],
)
def test_a_figure_has_its_charts_unit_or_that_of_its_name(name, unit):
    assert unit_of(name) == unit

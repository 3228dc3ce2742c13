"""The watch sees what it is there for, in time, and is quiet otherwise."""

import random
from collections.abc import Callable, Mapping

import pytest

from app.notifications.models import AlarmKind
from app.notifications.overoptimisation import Finding, findings
from tests.app.notifications.series import EVERY, STEPS, Points, healthy, noisy


def upto(series: Mapping[str, Points], step: int) -> dict[str, Points]:
    return {name: [point for point in points if point[0] <= step] for name, points in series.items()}


def kinds(found: list[Finding]) -> list[AlarmKind]:
    return [each.kind for each in found]


def first_alarm(series: Mapping[str, Points], recipe: str = "ppo") -> tuple[int, Finding] | None:
    """The step at which the watch first finds something, looking after every second step as metrics arrive."""
    for step in range(1, STEPS + 1, 2):
        if found := findings(recipe, {}, upto(series, step)):
            return step, found[0]
    return None


def test_at_most_one_of_a_hundred_healthy_runs_raises_a_false_alarm() -> None:
    """On noise alone: each run is looked at thirty times, in five series."""
    assert sum(first_alarm(healthy(seed)) is not None for seed in range(100)) <= 1


# What goes wrong from step 20 on, as one of the series tells it.
WRONG: dict[str, tuple[AlarmKind, Callable[[int], float], float, int]] = {
    "completion_tokens": (AlarmKind.LENGTH_DRIFTS, lambda step: 27 + max(0, step - 20), 2.5, 1),
    "eos_rate": (AlarmKind.EOS_FALLS, lambda step: 0.9 - 0.012 * max(0, step - 20), 0.04, 1),
    "disagreement": (AlarmKind.DISAGREEMENT_GROWS, lambda step: 0.3 + 0.012 * max(0, step - 20), 0.03, 1),
    "held_out_reward": (AlarmKind.HELD_OUT_FALLS, lambda step: 0.8 - 0.03 * max(0, step - 20), 0.09, EVERY),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_moves_the_wrong_way_while_the_score_rises_is_found_before_the_end(name: str) -> None:
    kind, curve, sd, every = WRONG[name]
    for seed in range(10):
        series = healthy(seed)
        series[name] = noisy(random.Random(1000 + seed), curve, sd, every)
        found = first_alarm(series)
        assert found is not None, f"seed {seed}"
        step, finding = found
        assert finding.kind == kind
        assert step > 20
        assert finding.numbers["standard_errors"] > 3
        assert set(finding.series) == {"score", name}


@pytest.mark.parametrize("name", WRONG)
def test_the_same_is_no_over_optimisation_while_the_score_does_not_rise(name: str) -> None:
    _, curve, sd, every = WRONG[name]
    series = healthy(1) | {"score": noisy(random.Random(2), lambda step: 0.0, 0.1)}
    series[name] = noisy(random.Random(3), curve, sd, every)
    assert first_alarm(series) is None


def test_a_sure_change_that_is_too_small_to_matter_is_none() -> None:
    series = healthy(1) | {"completion_tokens": [(step, 27.0 + 0.1 * step) for step in range(1, STEPS + 1)]}
    assert findings("ppo", {}, series) == []
    strict = {"max_length_factor": 1.3}  # an alarm at half of the way to a nearer limit
    assert kinds(findings("ppo", strict, series)) == [AlarmKind.LENGTH_DRIFTS]


def test_shorter_completions_raise_nothing() -> None:
    series = healthy(1) | {"completion_tokens": [(step, 60.0 - 0.8 * step) for step in range(1, STEPS + 1)]}
    assert findings("ppo", {}, series) == []


def test_a_gain_that_length_explains_is_told_at_once() -> None:
    """The simulation's planted flaw: 0.74 to 0.92 with it, at most 0.12 without (docs/science.md)."""
    series = upto(healthy(1), 4)
    assert findings("ppo", {}, series | {"held_out_length_share": [(4, 0.12)]}) == []
    (found,) = findings("ppo", {}, series | {"held_out_length_share": [(4, 0.74)]})
    assert found.kind == AlarmKind.LENGTH_DRIFTS
    assert "74\u00a0% of the gain" in found.evidence


def test_rejection_sampling_is_watched_by_its_loss_and_its_looks() -> None:
    loss = [(step, 2.0 - 0.01 * step) for step in range(1, STEPS + 1)]
    looks = {
        "held_out_reward": noisy(random.Random(5), lambda step: 0.5 - 0.02 * step, 0.05, EVERY),
        "held_out_eos_rate": noisy(random.Random(6), lambda step: 0.95, 0.01, EVERY),
    }
    assert kinds(findings("rejection", {}, {"loss": loss, **looks})) == [AlarmKind.HELD_OUT_FALLS]


def test_stages_that_improve_nothing_by_a_reward_model_are_not_watched() -> None:
    rising_tokens = {"completion_tokens": [(step, 10.0 * step) for step in range(1, 40)]}
    assert findings("reward", {}, healthy(1) | rising_tokens) == []

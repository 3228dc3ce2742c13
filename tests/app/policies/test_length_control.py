"""The win rate at equal length: what length explains is taken out, and nothing else."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sqlalchemy.orm import Session

from app.policies.length_control import FEWEST, equal_length_of, win_rate_at_equal_length
from app.policies.models import PolicyState
from app.policies.service import current_version
from app.projects.models import Project
from app.rounds.models import Round
from tests.app.loop import make_version
from tests.app.policies.comparisons import make_comparisons


def drawn(rng: np.random.Generator, num: int, at_equal: float, slope: float) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes of a candidate that writes 100 characters more on average."""
    longer = rng.normal(100, 80, num)
    odds = np.log(at_equal / (1 - at_equal)) + slope * np.tanh(longer / longer.std())
    return (rng.random(num) < 1 / (1 + np.exp(-odds))).astype(float), longer


def test_a_win_rate_that_length_alone_makes_is_one_half_at_equal_length() -> None:
    outcomes, longer = drawn(np.random.default_rng(0), 20_000, at_equal=0.5, slope=1.5)
    found = win_rate_at_equal_length(outcomes, longer)
    assert found is not None
    assert outcomes.mean() > 0.65
    assert found.low < 0.5 < found.high
    assert found.high - found.low < 0.05
    assert found.mean_difference == pytest.approx(longer.mean())


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    found = [win_rate_at_equal_length(*drawn(rng, 300, at_equal=0.6, slope=0.7)) for _ in range(400)]
    held = sum(each.low < 0.6 < each.high for each in found if each is not None)
    assert held / 400 == pytest.approx(0.95, abs=0.03)


def test_the_estimate_is_the_one_that_a_general_optimiser_finds() -> None:
    rng = np.random.default_rng(2)
    outcomes, longer = rng.choice([0, 0.5, 1], 80, p=[0.3, 0.2, 0.5]), rng.normal(0, 50, 80)

    def loss(weights: np.ndarray) -> float:
        odds = weights[0] + weights[1] * np.tanh(longer / longer.std())
        return float(np.sum(np.log1p(np.exp(odds)) - outcomes * odds) + 0.25 * weights[1] ** 2 / 2)

    best = minimize(loss, np.zeros(2), method="BFGS", options={"gtol": 1e-9}).x
    found = win_rate_at_equal_length(outcomes, longer)
    assert found is not None
    assert found.rate == pytest.approx(1 / (1 + np.exp(-best[0])), abs=1e-6)


def test_there_is_none_where_nothing_can_be_told_apart() -> None:
    half = np.tile([0.0, 1.0], FEWEST)
    assert win_rate_at_equal_length(half, np.zeros(2 * FEWEST)) is None
    assert win_rate_at_equal_length(np.ones(2 * FEWEST), half) is None
    assert win_rate_at_equal_length(half[: FEWEST - 1], half[: FEWEST - 1] + 3) is None
    # The longer one always won: the prior keeps the slope, and so the rate, finite.
    found = win_rate_at_equal_length(half, half * 10 - 5)
    assert found is not None
    assert found.rate == pytest.approx(0.5)


def test_it_reads_the_comparisons_of_the_round(session: Session, project: Project) -> None:
    one, two = current_version(session, project), make_version(session, project, 2, PolicyState.RETIRED)
    outcomes = ["win"] * 20 + ["loss"] * 10 + ["tie"] * 4
    rankings = make_comparisons(session, project, two, one, outcomes)
    round = session.get_one(Round, rankings[0].slate.round_id)
    assert equal_length_of(session, round) is None  # all of them equally long
    first = next(each for each in rankings[0].slate.completions if each.policy_version_id == two.id)
    first.text += "!" * 34
    session.flush()
    found = equal_length_of(session, round)
    assert found is not None
    assert found.mean_difference == pytest.approx(1.0)
    assert 0.6 < found.rate < 0.7

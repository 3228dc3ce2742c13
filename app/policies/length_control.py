"""The win rate that length does not explain. Reads a round's comparisons; the estimate is a function of arrays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from app.policies.outcomes import outcomes_of
from app.policies.strengths import preference
from app.rounds.models import Round
from app.statistics import Z_95

FEWEST = 30  # comparisons for two parameters
PRIOR_PRECISION = 0.25  # of the slope: length alone rarely makes more than 50 % into 88 %, a standard deviation of 2
_STEPS, _ENOUGH = 100, 1e-10


@dataclass(frozen=True)
class EqualLength:
    """The win rate had both policies written equally much, with its 95 % interval for a fixed number of comparisons.

    mean_difference: by how many characters the candidate's completions were longer.
    """

    rate: float
    low: float
    high: float
    mean_difference: float


def equal_length_of(session: Session, round: Round) -> EqualLength | None:
    """The round's win rate at equal length, of the comparisons that were in when it ended; None where too few."""
    rows = outcomes_of(session, round)
    return win_rate_at_equal_length(
        np.array([(row.sign + 1) / 2 for row in rows]), np.array([row.longer for row in rows], dtype=float)
    )


def win_rate_at_equal_length(outcomes: NDArray[np.float64], longer: NDArray[np.float64]) -> EqualLength | None:
    """What a logistic regression on length says of completions of the same length.

    outcomes: (N,) 1 won, 1/2 tied, 0 lost.  longer: (N,) characters that the candidate wrote more than the other.
    None for fewer than FEWEST, for one outcome alone, and where lengths never differ: there is nothing to tell apart.
    P(won) = logistic(a + b tanh(longer / its standard deviation)), AlpacaEval's length control (Dubois et al. 2024,
    arXiv:2404.04475) without its other covariates; the rate is logistic(a). The interval takes the spread of the
    outcomes as it is (a sandwich estimate), which is right for ties too.
    """
    spread = float(longer.std()) if len(longer) else 0.0
    if len(outcomes) < FEWEST or spread == 0 or outcomes.min() == outcomes.max():
        return None
    features = np.column_stack([np.ones(len(outcomes)), np.tanh(longer / spread)])  # (N, 2)
    prior = np.diag([0.0, PRIOR_PRECISION])
    weights = np.zeros(2)
    for _ in range(_STEPS):
        rates = np.exp(-np.logaddexp(0.0, -features @ weights))
        information = (features * (rates * (1 - rates))[:, None]).T @ features + prior
        step = np.linalg.solve(information, features.T @ (outcomes - rates) - prior @ weights)
        weights += np.clip(step, -2, 2)  # far from the maximum a whole step may lead further away
        if np.abs(step).max() < _ENOUGH:
            break
    residuals = features * (outcomes - rates)[:, None]
    inverse = np.linalg.inv(information)
    error = float(np.sqrt((inverse @ (residuals.T @ residuals) @ inverse)[0, 0]))
    value = float(weights[0])
    return EqualLength(
        rate=preference(value),
        low=preference(value - Z_95 * error),
        high=preference(value + Z_95 * error),
        mean_difference=float(longer.mean()),
    )

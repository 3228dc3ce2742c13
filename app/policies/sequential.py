"""A rule that may be asked after every blind comparison. Counts in, limits and a decision out; knows no database.

Each comparison is an outcome in {0, 1/2, 1} for the candidate: lost, tied, won. Somebody bets that its mean is above
m, with fixed shares of what they have; the wealth they reach is evidence against "the mean is at most m":

    wealth(m) = sum over bets b of weight_b * prod over outcomes x of (1 + b * (x / m - 1))

This is the capital process of Waudby-Smith & Ramdas (arXiv:2010.09686, section 4: prod (1 + lambda * (x - m)), here
with lambda = b / m), mixed over several bets. While the mean is at most m, each factor's expectation is at most 1, so
the wealth is a nonnegative supermartingale that starts at 1, and by Ville's inequality reaches 1 / alpha with
probability at most alpha, however often one looks. Without ties it is Robbins' mixture of likelihood ratios
(Howard et al., arXiv:1810.08240); ties need no model of their own, which is why it was chosen.

The product does not depend on the order, so everything here is a function of three counts.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

# What is bet of the wealth, and the weight of the bet. A comparison of n outcomes is decided by bets near the excess
# of its win rate, so most weight lies where 500 comparisons decide (58 % to 80 % against one half); the small bets keep
# the interval of very many comparisons from staying wide. benchmarks/results/sequential.md has what other choices cost.
BETS = ((0.6, 0.2), (0.3, 0.2), (0.15, 0.4), (0.075, 0.1), (0.0375, 0.05), (0.01875, 0.05))
LEVEL = 0.95  # of the interval; half of what is left lies on each side
EVEN = 0.5
_LOG_ENOUGH = math.log(2 / (1 - LEVEL))
_STEPS = 40  # of bisection: to 1e-12


class Decision(StrEnum):
    """What blind comparisons say once they have ended."""

    BETTER = "better"  # the win rate lies above what promotion asks
    NOT_ENOUGH = "not_enough"  # it lies below what is worth having
    UNDECIDED = "undecided"  # they were used up, or called off, before either could be said


@dataclass(frozen=True)
class Tally:
    """Outcomes of comparisons, from one side's view."""

    wins: int = 0
    ties: int = 0
    losses: int = 0

    @property
    def num(self) -> int:
        return self.wins + self.ties + self.losses

    @property
    def successes(self) -> float:
        """Wins, a tie as half of one."""
        return self.wins + self.ties / 2

    @property
    def reversed(self) -> "Tally":
        """The same from the other side."""
        return Tally(self.losses, self.ties, self.wins)

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.wins + other.wins, self.ties + other.ties, self.losses + other.losses)


@dataclass(frozen=True)
class Rule:
    """When comparisons end.

    above: the candidate is better once the lower limit of its win rate lies above it.
    worth: it is not better enough once the upper limit lies below it; at least `above`.
    """

    above: float = EVEN
    worth: float = 0.6

    def __post_init__(self) -> None:
        if not 0 <= self.above <= self.worth <= 1:
            raise ValueError(f"a rule needs 0 <= above={self.above} <= worth={self.worth} <= 1")


def decide(tally: Tally, rule: Rule) -> Decision | None:
    """What the outcomes so far say under the rule; None while they do not say it.

    A candidate whose win rate is at most rule.above is called better with probability at most 2.5 %, one whose win
    rate is at least rule.worth is called not better enough with probability at most 2.5 %, at any of all looks.
    """
    if log_wealth(tally, rule.above) >= _LOG_ENOUGH:
        return Decision.BETTER
    if log_wealth(tally.reversed, 1 - rule.worth) >= _LOG_ENOUGH:
        return Decision.NOT_ENOUGH
    return None


def log_wealth(tally: Tally, mean: float) -> float:
    """The logarithm of the wealth of who bet that the outcomes' mean is above `mean`, a number from 0 to 1."""
    if mean == 0:
        return math.inf if tally.successes else 0.0  # outcomes are never below 0: nothing can be lost by the bet
    logs = [math.log(weight) + _log_product(tally, mean, bet) for bet, weight in BETS]
    largest = max(logs)
    return largest + math.log(math.fsum(math.exp(each - largest) for each in logs))


def _log_product(tally: Tally, mean: float, bet: float) -> float:
    """sum over outcomes x of log(1 + bet * (x / mean - 1))."""
    outcomes = ((tally.wins, 1.0), (tally.ties, 0.5), (tally.losses, 0.0))
    return math.fsum(num * math.log1p(bet * (x / mean - 1)) for num, x in outcomes)


def anytime_interval(tally: Tally) -> tuple[float, float]:
    """Limits of the win rate that hold at every look with probability 95 %: a confidence sequence.

    The means that the wealth does not speak against, on either side; (0, 1) without outcomes.
    """
    return _lower_limit(tally), 1 - _lower_limit(tally.reversed)


def _lower_limit(tally: Tally) -> float:
    """The mean at which the wealth is just enough to refute it: the wealth falls as the mean rises."""
    if not tally.successes:
        return 0.0
    low, high = 0.0, tally.successes / tally.num  # at the observed mean no bet has won: log is concave
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if middle == 0 or log_wealth(tally, middle) >= _LOG_ENOUGH:
            low = middle
        else:
            high = middle
    return low

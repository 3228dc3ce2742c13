"""What the API answers about a round's blind comparison."""

from collections.abc import Sequence

from pydantic import BaseModel

from app.policies.evaluation import WinRate
from app.policies.length_control import EqualLength
from app.policies.sequential import Rule
from app.rounds.comparison_path import Look
from app.rounds.schemas import WinRateOut


class EqualLengthOut(BaseModel):
    """The win rate had both policies written equally much; its 95 % interval is for a fixed number of comparisons."""

    rate: float
    low: float
    high: float
    mean_difference: float


class LookOut(BaseModel):
    """What the rule saw after so many comparisons."""

    won: int
    tied: int
    lost: int
    low: float
    high: float


class ComparisonOut(BaseModel):
    """above, worth: comparisons end when the interval lies above the one or below the other."""

    win_rate: WinRateOut | None
    above: float
    worth: float
    equal_length: EqualLengthOut | None
    looks: list[LookOut]


def comparison_out(
    verdict: WinRate | None, rule: Rule, equal_length: EqualLength | None, looks: Sequence[Look]
) -> ComparisonOut:
    """The comparison as the API answers it."""
    return ComparisonOut(
        win_rate=WinRateOut(**vars(verdict)) if verdict else None,
        above=rule.above,
        worth=rule.worth,
        equal_length=EqualLengthOut(**vars(equal_length)) if equal_length else None,
        looks=[
            LookOut(won=look.tally.wins, tied=look.tally.ties, lost=look.tally.losses, low=look.low, high=look.high)
            for look in looks
        ],
    )

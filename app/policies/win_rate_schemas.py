"""What the API answers about win rates between versions."""

from pydantic import BaseModel

from app.policies.models import PolicyState
from app.policies.win_rates import WinRates


class PairOut(BaseModel):
    """How often `version` was preferred over `against`; ties count half. low, high: the 95 % interval at any look."""

    version: int
    against: int
    comparisons: int
    won: int
    tied: int
    lost: int
    win_rate: float
    low: float
    high: float


class StrengthOut(BaseModel):
    """A version's Bradley-Terry strength in log odds over its group's first version, with a 95 % interval.

    Versions of different groups were never compared, not even through others: their strengths have no common scale.
    """

    version: int
    state: PolicyState
    group: int
    comparisons: int
    strength: float
    low: float
    high: float
    win_rate_over_first: float


class WinRatesOut(BaseModel):
    """All that blind comparisons say. never_compared: versions of which they say nothing."""

    strengths: list[StrengthOut]
    pairs: list[PairOut]
    never_compared: list[int]


def win_rates_out(found: WinRates) -> WinRatesOut:
    """The win rates as the API answers them; of pairs each direction."""
    return WinRatesOut(
        strengths=[
            StrengthOut(
                version=standing.version.number,
                state=standing.version.state,
                group=standing.strength.group,
                comparisons=standing.num_comparisons,
                strength=standing.strength.value,
                low=standing.strength.low,
                high=standing.strength.high,
                win_rate_over_first=standing.strength.rate,
            )
            for group in found.groups
            for standing in group
        ],
        pairs=[
            PairOut(
                version=version,
                against=against,
                comparisons=rate.num_comparisons,
                won=rate.wins,
                tied=rate.ties,
                lost=rate.losses,
                win_rate=rate.rate,
                low=rate.low,
                high=rate.high,
            )
            for (version, against), rate in sorted(found.pairs.items())
        ],
        never_compared=[version.number for version in found.never_compared],
    )

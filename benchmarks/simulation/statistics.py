"""Means over seeds with their intervals. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

# 97.5 % points of Student's t, by degrees of freedom: seeds are few.
T_95 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.306, 2.2622, 2.2281, 2.201, 2.1788, 2.1604, 2.1448)
Z_95 = 1.96


@dataclass(frozen=True)
class Mean:
    """Of one figure over the seeds. half: half the width of the 95 % interval; None for one seed alone."""

    value: float
    half: float | None
    num: int

    def __str__(self) -> str:
        return f"{self.value:.2f}" if self.half is None else f"{self.value:.2f} ± {self.half:.2f}"


def mean_of(values: Sequence[float]) -> Mean:
    """Student's interval. Raises ValueError if there is no value."""
    if not values:
        raise ValueError("a mean needs a value")
    if len(values) == 1:
        return Mean(values[0], None, 1)
    freedom = len(values) - 1
    t = T_95[freedom - 1] if freedom <= len(T_95) else Z_95
    return Mean(fmean(values), t * stdev(values) / len(values) ** 0.5, len(values))

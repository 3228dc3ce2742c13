"""Whether a noisy series moves, and how sure that is. Plain numbers in and out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from statistics import NormalDist, fmean, median

Points = Sequence[tuple[float, float]]  # (step, value), by step

FEWEST_POINTS = 5  # fewer tell nothing of their noise
MOST_POINTS = 48  # of a longer series, neighbours are averaged: slopes are taken between all pairs
MOST_CERTAIN = 1000.0  # standard errors: of a line without noise
MOST_CORRELATION = 0.6  # a curve looks like correlated noise about a line; it must not hide that it rises


@dataclass(frozen=True)
class Trend:
    """The line through a series. first, last: the line's values at its ends.  error: the slope's standard error."""

    first: float
    last: float
    slope: float  # a step
    error: float
    num_points: int

    @property
    def certainty(self) -> float:
        """The slope in standard errors, with its sign. At most MOST_CERTAIN: it is stored, and JSON has no infinity."""
        if abs(self.slope) > MOST_CERTAIN * self.error:
            return math.copysign(MOST_CERTAIN, self.slope)
        return self.slope / self.error if self.error else 0.0

    def is_sure(self, level: float) -> bool:
        """Whether pure noise would show such a slope, in this direction, with a probability below the level."""
        return abs(self.certainty) > student_quantile(1 - level, self.num_points - 2)


def trend(points: Points) -> Trend | None:
    """The line of Theil (1950) and Sen (1968): the median of the slopes between all pairs, so outliers move it little.

    The noise is what lies about the line. Neighbours that resemble each other tell less than as many independent
    points: their correlation comes from the ratio of successive differences to that noise (von Neumann 1941), and
    widens the error by sqrt((1 + r) / (1 - r)).  None for fewer than FEWEST_POINTS points.
    """
    points = averaged(points)
    if len(points) < FEWEST_POINTS:
        return None
    steps = [step for step, _ in points]
    slope = median((b - a) / (t - s) for (s, a), (t, b) in combinations(points, 2))
    level = median(value - slope * step for step, value in points)
    residuals = [value - level - slope * step for step, value in points]
    noise = sum(residual * residual for residual in residuals) / (len(points) - 2)
    jumps = fmean((b - a) ** 2 for a, b in pairwise(residuals)) / 2
    correlation = min(MOST_CORRELATION, max(0.0, 1 - jumps / noise)) if noise else 0.0
    middle = fmean(steps)
    spread = sum((step - middle) ** 2 for step in steps)
    error = math.sqrt(noise / spread * (1 + correlation) / (1 - correlation))
    return Trend(level + slope * steps[0], level + slope * steps[-1], slope, error, len(points))


def averaged(points: Points) -> Points:
    """At most MOST_POINTS points: the means of as many neighbours each; those left over at the start are left out."""
    size = -(-len(points) // MOST_POINTS)
    if size <= 1:
        return points
    kept = points[len(points) % size :]
    groups = [kept[start : start + size] for start in range(0, len(kept), size)]
    return [(fmean(step for step, _ in group), fmean(value for _, value in group)) for group in groups]


def student_quantile(probability: float, degrees: int) -> float:
    """The quantile of Student's t distribution, to a few percent from 3 degrees of freedom on.

    Abramowitz and Stegun, 26.7.5.
    """
    z = NormalDist().inv_cdf(probability)
    terms = (
        z,
        (z**3 + z) / (4 * degrees),
        (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2),
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3),
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * degrees**4),
    )
    return sum(terms)

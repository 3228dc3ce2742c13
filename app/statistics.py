"""Statistics that several areas report. Plain numbers in and out."""

import math

Z_95 = 1.959963984540054  # the normal quantile that leaves 2.5 % on each side


def wilson_interval(successes: float, num_trials: int, *, z: float = Z_95) -> tuple[float, float]:
    """The Wilson score interval of a proportion (Wilson 1927): within 0 … 1, and right for few trials too.

    successes: may end in a half, where a tie counts one half; the interval is then a little too wide, never too narrow.
    Raises ValueError without trials, or with successes outside 0 … num_trials.
    """
    if num_trials < 1 or not 0 <= successes <= num_trials:
        raise ValueError(f"{successes} successes of {num_trials} trials is no proportion")
    rate = successes / num_trials
    scale = 1 + z**2 / num_trials
    centre = (rate + z**2 / (2 * num_trials)) / scale
    half_width = z / scale * math.sqrt(rate * (1 - rate) / num_trials + z**2 / (4 * num_trials**2))
    return max(0.0, centre - half_width), min(1.0, centre + half_width)

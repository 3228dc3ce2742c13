"""Shares of pairs judged right, with intervals that know that pairs share their texts. Pure.

Pairs of one text stand and fall together, so a plain interval over pairs is too narrow. Where each text takes part in
many pairs of one prompt, texts are drawn anew and a pair counts as often as both of its texts were drawn (the
pigeonhole bootstrap, Owen 2007, arXiv:0711.0389), which is never too narrow on average. Where prompts are many, whole
prompts are drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_DRAWS = 10_000
CHUNK = 500  # draws at once


@dataclass(frozen=True)
class Share:
    """A mean in percent, or percentage points, with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1f} [{self.low:.1f}, {self.high:.1f}]"


def share_by_units(values: Sequence[float], units: Sequence[int], *, seed: int = 0) -> Share:
    """Percentile interval over whole units (prompts). values: one a pair.  units: which unit each pair belongs to."""
    numbers, place = np.unique(np.asarray(units), return_inverse=True)
    return percentile(np.asarray(values, dtype=float), [place], len(numbers), seed)


def share_by_texts(values: Sequence[float], texts: Sequence[tuple[int, int]], *, seed: int = 0) -> Share:
    """Percentile interval over texts. values: one a pair.  texts: the two texts of each pair."""
    numbers, place = np.unique(np.asarray(texts), return_inverse=True)
    both = place.reshape(-1, 2)
    return percentile(np.asarray(values, dtype=float), [both[:, 0], both[:, 1]], len(numbers), seed)


def percentile(values: NDArray[np.float64], places: Sequence[NDArray[np.intp]], num_units: int, seed: int) -> Share:
    """places: for each pair the units that it counts by; it counts as often as the product of their draws."""
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(NUM_DRAWS // CHUNK):
        draws = rng.multinomial(num_units, np.full(num_units, 1 / num_units), size=CHUNK).astype(float)  # (C, units)
        weights = np.prod([draws[:, place] for place in places], axis=0)  # (C, pairs)
        total = weights.sum(axis=1)
        some = total > 0  # of a few texts a draw may hold no pair
        means.append(weights[some] @ values / total[some])
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return Share(100 * float(values.mean()), 100 * float(low), 100 * float(high))

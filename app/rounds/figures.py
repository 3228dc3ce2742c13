"""Numbers that stand beside each other, written so that they can be compared at a glance. Pure."""

from collections.abc import Sequence
from math import floor, log10
from typing import Any

from app.pages import number
from app.rounds.charts import CHARTS

SIGNIFICANT = 4  # digits of a row's largest number; the others have as many behind the point
PLAIN = range(-4, 7)  # powers of ten that are written out: 0.0001234 to 1 234 567
NOTHING = "—"

UNITS = {name: chart.unit for chart in CHARTS for name in chart.series}
UNITS_BY_ENDING = {  # of figures that no chart draws
    "kl": "nats per completion",
    "loss": "nats",
    "score": "reward model, normalised",
    "accuracy": "share of pairs",
    "rate": "share",
    "tokens": "tokens",
    "s": "s",
    "mb": "MB",
}


def unit_of(name: str) -> str:
    """The unit of a figure or a metric; empty where it is a count, or its name says it."""
    if name.startswith("num_"):
        return ""
    return UNITS.get(name, UNITS_BY_ENDING.get(name.rpartition("_")[2], ""))


def alike(values: Sequence[float | None]) -> list[str]:
    """One row's measurements: whole numbers whole, others with the same digits behind the point."""
    present = [value for value in values if value is not None]
    if all(isinstance(value, int) for value in present):
        return [number(value) for value in values]
    largest = max(map(abs, present))
    power = floor(log10(largest)) if largest else 0
    if power not in PLAIN:
        return [NOTHING if value is None else f"{value:.{SIGNIFICANT - 1}e}" for value in values]
    return [number(value, max(0, SIGNIFICANT - 1 - power)) for value in values]


def exactly(values: Sequence[Any]) -> list[str]:
    """One row's settings: nothing is rounded, and decimal fractions are filled up to the longest of them."""
    texts = [told(value) for value in values]
    fractions = [text for text, value in zip(texts, values, strict=True) if isinstance(value, float)]
    if not fractions or any("e" in text for text in fractions):
        return texts
    longest = max(len(text.partition(".")[2]) for text in fractions)
    return [
        f"{value:.{longest}f}" if isinstance(value, float) else text for text, value in zip(texts, values, strict=True)
    ]


def told(value: Any) -> str:
    if value is None:
        return NOTHING
    return str(value).lower() if isinstance(value, bool) else str(value)

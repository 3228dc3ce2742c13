"""The small charts of an alarm: what it was seen in, as lines of an inline SVG, and as a table. Changes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.notifications.models import Alarm

WIDTH, HEIGHT, MARGIN = 200, 48, 3

# What a metric is called where it stands alone.
LABELS = {
    "score": "training score",
    "loss": "training loss",
    "held_out_reward": "reward on validation prompts",
    "held_out_geometric_tokens": "tokens of finished completions",
    "completion_tokens": "tokens a completion",
    "held_out_tokens": "tokens a completion, validation",
    "eos_rate": "share that ends by itself",
    "held_out_eos_rate": "share that ends by itself, validation",
    "disagreement": "disagreement of the reward models",
    "held_out_disagreement": "disagreement of the reward models, validation",
}
# The chart of the stage's page that goes on drawing it.
CHART_KEYS = {
    "score": "score",
    "loss": "loss",
    "held_out_reward": "score",
    "held_out_geometric_tokens": "length",
    "completion_tokens": "length",
    "held_out_tokens": "length",
    "eos_rate": "eos_rate",
    "held_out_eos_rate": "eos_rate",
    "disagreement": "disagreement",
    "held_out_disagreement": "disagreement",
}


@dataclass(frozen=True)
class SmallChart:
    """One line. path: the points attribute of a polyline in a box of WIDTH × HEIGHT."""

    label: str
    chart_key: str
    path: str
    first: tuple[float, float]  # (step, value)
    last: tuple[float, float]
    least: float
    most: float


def small_charts(alarm: Alarm) -> list[SmallChart]:
    """A chart for each series of the alarm: the training signal first."""
    return [_small_chart(name, points) for name, points in _in_order(alarm.series).items()]


def _in_order(series: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, Sequence[Sequence[float]]]:
    """The training signal first; Postgres keeps the keys of JSON in an order of its own."""
    return {name: series[name] for name in LABELS if series.get(name)}


def _small_chart(name: str, points: Sequence[Sequence[float]]) -> SmallChart:
    steps, values = [point[0] for point in points], [point[1] for point in points]
    least, most = min(values), max(values)
    across = (steps[-1] - steps[0]) or 1
    up = (most - least) or 1
    path = " ".join(
        f"{MARGIN + (WIDTH - 2 * MARGIN) * (step - steps[0]) / across:.1f},"
        f"{HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (value - least) / up:.1f}"
        for step, value in zip(steps, values, strict=True)
    )
    first, last = (steps[0], values[0]), (steps[-1], values[-1])
    return SmallChart(LABELS[name], CHART_KEYS[name], path, first, last, least, most)


def table_of(series: Mapping[str, Sequence[Sequence[float]]]) -> tuple[list[str], list[tuple[int, list[float | None]]]]:
    """The series as one table: the metrics' names, and a row for each step."""
    columns = {name: {int(step): value for step, value in points} for name, points in _in_order(series).items()}
    steps = sorted({step for values in columns.values() for step in values})
    return list(columns), [(step, [values.get(step) for values in columns.values()]) for step in steps]

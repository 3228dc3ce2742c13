"""Lines with intervals over rounds or steps, as SVG for the docs, in the colours of the app's own charts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pygal
from pygal.style import Style

from app.rounds.charts import colours, svg_of
from benchmarks.simulation.statistics import Mean

INTERVALS = (
    ".ci path { stroke: #565d69; } @media (prefers-color-scheme: dark) { .ci path { stroke: #a6adba; } }"
    " .dashed path { stroke-dasharray: 4 4; }"
)


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One picture: a line for each series, a point of it for each label, None where nothing is known."""

    title: str
    x_title: str
    labels: Sequence[str]
    series: Mapping[str, Sequence[Mean | None]]
    references: Mapping[str, float] = field(default_factory=dict)


def write_plot(path: Path, plot: Plot) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(draw(plot))


def draw(plot: Plot) -> bytes:
    num_lines = len(plot.series) + len(plot.references)
    drawing = pygal.Line(
        width=640,
        height=380,
        css=["file://style.css", "file://graph.css", f"inline:{colours(range(num_lines))}", f"inline:{INTERVALS}"],
        js=[],  # its tooltips would be a script from elsewhere
        no_prefix=True,
        style=Style(font_family="system-ui, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif", transition="none"),
        title=plot.title,
        x_title=plot.x_title,
        legend_at_bottom=True,
        legend_at_bottom_columns=2,
        margin_bottom=20 + 25 * (num_lines % 2),  # pygal keeps no room for a row of one
        legend_box_size=10,
        truncate_legend=-1,
        max_scale=6,
        range=limits(plot),
        dots_size=3,
        value_formatter=lambda value: f"{value:.2f}",
    )
    drawing.x_labels = plot.labels
    for name, means in plot.series.items():
        drawing.add(name, [point(mean) for mean in means])
    for name, value in plot.references.items():
        drawing.add(name, [value] * len(plot.labels), show_dots=False, stroke_style={"dasharray": "4, 4"})
    return svg_of(drawing)


def limits(plot: Plot) -> tuple[float, float]:
    """From the least to the most that is drawn, intervals and references included."""
    known = [mean for means in plot.series.values() for mean in means if mean is not None]
    bounds = [mean.value + sign * (mean.half or 0.0) for mean in known for sign in (-1, 1)] + [
        *plot.references.values()
    ]
    return min(bounds), max(bounds)


def point(mean: Mean | None) -> Any:
    if mean is None or mean.half is None:
        return None if mean is None else mean.value
    return {"value": mean.value, "ci": {"low": mean.value - mean.half, "high": mean.value + mean.half}}

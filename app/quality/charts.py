"""The quality page's charts: estimates with their intervals, against what others report; drawn like rounds' charts."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pygal
from pygal.style import Style

from app.quality.agreement import Estimate
from app.quality.reports import REFERENCES, PersonLine, QualityReport
from app.rounds.charts import HEIGHT, WIDTH, colours, short, svg_of
from app.spreadsheets import harmless

Names = Callable[[PersonLine], str]

MOST_SHOWN = 30  # labels below one chart; the table has the rest
ROTATED_FROM = 6  # labels
MOST_DRAWN = 2  # series in one chart; their colours come first
INTERVALS = (
    ".ci path { stroke: #565d69; stroke-width: 1.5; }"
    " @media (prefers-color-scheme: dark) { .ci path { stroke: #a6adba; } }"
)
A_HALF = {"no pull": 0.5}
ALIKE = "share of comparisons ordered alike"
MEASURES = ("pair agreement", "Krippendorff's alpha", "Kendall's tau-b")


@dataclass(frozen=True)
class Picture:
    """A chart and its table: one row for each label, one estimate of each series in it."""

    key: str
    title: str
    unit: str
    help: str
    series: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Estimate]]]
    references: Mapping[str, float] = field(default_factory=dict)
    is_over_time: bool = False
    num_drawn: int = 1  # of the series; the table and the file have all

    @property
    def shown(self) -> Sequence[tuple[str, Sequence[Estimate]]]:
        """What the chart has room for: the newest weeks, the first of everything else."""
        return self.rows[-MOST_SHOWN:] if self.is_over_time else self.rows[:MOST_SHOWN]


def pictures(report: QualityReport, name_of: Names) -> list[Picture]:
    """Every chart of the report that has something to show. name_of: what this reader may call a person."""
    found = [*_over_time(report), *_between_raters(report, name_of), *_of_habits(report, name_of)]
    return [picture for picture in found if any(_is_known(row) for _, row in picture.rows)]


def _over_time(report: QualityReport) -> list[Picture]:
    return [
        Picture(
            "weeks",
            "Agreement by week",
            ALIKE,
            "By the week of the second ranking of each pair.",
            MEASURES[:1],
            [(line.label, [line.agreement.alike]) for line in report.weeks],
            REFERENCES,
            is_over_time=True,
        ),
        Picture(
            "chance-corrected",
            "Alpha and tau by week",
            "0 is chance, 1 is perfect",
            "Alpha is ordinal, among slates of the same K; tau-b is the mean over pairs of rankings.",
            MEASURES[1:],
            [(line.label, [line.agreement.alpha, line.agreement.tau]) for line in report.weeks],
            is_over_time=True,
            num_drawn=2,
        ),
    ]


def _between_raters(report: QualityReport, name_of: Names) -> list[Picture]:
    """How alike rankings are by who made them, and by what was ranked."""
    return [
        Picture(
            "people",
            "Agreement by person",
            ALIKE,
            "Each with everyone else who ranked the same slates.",
            ("with labelers", "with researchers", "alpha, with labelers", "tau-b, with labelers"),
            [(name_of(line), _of_person(line)) for line in report.people],
            REFERENCES,
            num_drawn=2,
        ),
        Picture(
            "policies",
            "Agreement by policy pair",
            ALIKE,
            "Which two policy versions wrote the two completions. Alike versions are harder to tell apart.",
            MEASURES[:1],
            [(pair.label, [pair.alike]) for pair in report.policy_pairs],
            REFERENCES,
        ),
        Picture(
            "prompts",
            "Agreement by prompt kind",
            ALIKE,
            "Where prompts came from.",
            MEASURES,
            [
                (line.label, [line.agreement.alike, line.agreement.alpha, line.agreement.tau])
                for line in report.prompt_kinds
            ],
            REFERENCES,
        ),
    ]


def _of_habits(report: QualityReport, name_of: Names) -> list[Picture]:
    """What each person does whatever the others do."""
    return [
        Picture(
            "position",
            "Pull of the place shown",
            "how often the one shown first was preferred",
            "The order is drawn at random for each person: away from one half, the place decided and not the text.",
            ("shown first",),
            [(name_of(line), [line.first_preferred]) for line in report.people],
            A_HALF,
        ),
        Picture(
            "drift",
            "Agreement with themselves",
            ALIKE,
            "Slates that came back to the same person after a while.",
            ("with their earlier ranking",),
            [(name_of(line), [line.with_themselves]) for line in report.people],
            REFERENCES,
        ),
    ]


def _of_person(line: PersonLine) -> list[Estimate]:
    return [
        line.with_labelers.alike,
        line.with_researchers.alike,
        line.with_labelers.alpha,
        line.with_labelers.tau,
    ]


def _is_known(estimates: Iterable[Estimate]) -> bool:
    return any(estimate.value is not None for estimate in estimates)


def draw(picture: Picture) -> bytes:
    """The chart as an SVG document: a dot with its interval for each estimate, a line for each reference."""
    labels = [label for label, _ in picture.shown]
    num_lines = picture.num_drawn + len(picture.references)
    # A reference has the same colour in every chart, however many series stand beside it.
    places = [*range(picture.num_drawn), *range(MOST_DRAWN, MOST_DRAWN + len(picture.references))]
    drawing = pygal.Line(
        width=WIDTH,
        height=HEIGHT,
        css=["file://style.css", "file://graph.css", f"inline:{colours(places)}", f"inline:{INTERVALS}"],
        js=[],  # its tooltips would be a script from elsewhere
        no_prefix=True,
        style=Style(font_family="system-ui, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif", transition="none"),
        range=_limits(picture),
        show_legend=num_lines > 1,
        legend_at_bottom=True,
        legend_at_bottom_columns=2,
        legend_box_size=10,
        x_label_rotation=30 if len(labels) >= (ROTATED_FROM * 2 if picture.is_over_time else ROTATED_FROM) else 0,
        truncate_label=20,
        truncate_legend=-1,
        margin=8,
        margin_bottom=18 if num_lines % 2 == 0 else 38,  # pygal leaves room for whole rows of the legend only
        spacing=8,
        max_scale=6,
        value_formatter=short,
        no_data_text="Nothing yet",
    )
    if picture.is_over_time:
        labels = [label[5:] for label in labels]  # month and day: the table has the year
    drawing.x_labels = ["", *labels, ""]  # dots and names stand clear of the edges
    for number in range(picture.num_drawn):
        points = [_point(row[number]) for _, row in picture.shown]
        drawing.add(picture.series[number], [None, *points, None], stroke=picture.is_over_time, dots_size=4)
    for name, value in picture.references.items():
        drawing.add(f"{name} {value:.0%}", [value] * (len(labels) + 2), show_dots=False)
    return svg_of(drawing)


def _limits(picture: Picture) -> tuple[float, float]:
    """From the least to the most that is drawn, intervals and references included, and a little more."""
    drawn = [estimate for _, row in picture.shown for estimate in row[: picture.num_drawn]]
    bounds = [bound for each in drawn for bound in (each.value, each.low, each.high) if bound is not None]
    bounds += picture.references.values()
    low, high = min(bounds, default=0.0), max(bounds, default=1.0)
    margin = 0.05 * (high - low) or 0.05
    return low - margin, high + margin


def _point(estimate: Estimate) -> Any:
    if estimate.value is None or estimate.low is None:
        return estimate.value
    return {"value": estimate.value, "ci": {"low": estimate.low, "high": estimate.high}}


def as_csv(picture: Picture) -> str:
    """RFC 4180, numbers to the last digit; an empty cell is undefined."""
    text = io.StringIO()
    writer = csv.writer(text)
    columns = [f"{name}{part}" for name in picture.series for part in ("", " low", " high", " n")]
    writer.writerow([picture.title, *columns])
    for label, estimates in picture.rows:
        cells = [cell for each in estimates for cell in (each.value, each.low, each.high, each.num)]
        writer.writerow([harmless(label), *("" if cell is None else repr(cell) for cell in cells)])
    return text.getvalue()

"""The calibration curve as SVG, and the numbers of a report as CSV."""

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any

import pygal
from pygal.style import Style

from app.reward_models.measures import Comparisons
from app.reward_models.reports import Report
from app.rounds.charts import colours, short, svg_of

WIDTH, HEIGHT = 560, 360
SLICES = {
    "k": "K",
    "distance": "Ranks apart",
    "strength": "Strength",
    "prompt_kind": "Kind of prompt",
    "authors": "Whose completions",
    "split": "Split",
    "held_out": "Labelers",
    "labeler": "Labeler",
}


def draw_calibration(report: Report) -> bytes:
    """How often the model was right over how sure it was; on the diagonal it is as right as it is sure."""
    drawing = pygal.XY(
        width=WIDTH,
        height=HEIGHT,
        css=["file://style.css", "file://graph.css", f"inline:{colours((0, 5))}"],
        js=[],  # its tooltips would be a script from elsewhere
        no_prefix=True,
        style=Style(font_family="system-ui, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif", transition="none"),
        legend_at_bottom=True,
        legend_at_bottom_columns=2,
        legend_box_size=10,
        x_title="confidence",
        y_title="accuracy",
        dots_size=4,
        truncate_legend=-1,
        margin=8,
        margin_bottom=16,
        spacing=8,
        show_y_guides=True,
        max_scale=6,
        xrange=(0.5, 1.0),
        value_formatter=short,
        x_value_formatter=short,
        no_data_text="Nothing was compared",
    )
    bins = report["calibration"]["bins"]
    drawing.add("the model", [(each["confidence"], each["accuracy"]["value"]) for each in bins])
    drawing.add("as right as it is sure", [(0.5, 0.5), (1.0, 1.0)], show_dots=False)
    return svg_of(drawing)


def calibration_csv(report: Report) -> str:
    rows = [
        [each["low"], each["high"], each["confidence"], *estimate(each["accuracy"])]
        for each in report["calibration"]["bins"]
    ]
    return table(["from", "to", "confidence", "accuracy", "low", "high", "comparisons"], rows)


def accuracies_csv(report: Report) -> str:
    """Every accuracy of the report, with what always choosing the longer text would reach."""
    overall = [["all, mean over prompts", "", *both(report["accuracy"], report["longer"])]]
    overall += [["all", "", *both(report["pair_accuracy"], report["pair_longer"])]]
    rows = [
        [name, each["key"], *both(each["accuracy"], each["longer"])]
        for name in SLICES
        for each in report["slices"].get(name, [])
    ]
    columns = ["by", "of", "accuracy", "low", "high", "comparisons", "longer_text", "longer_low", "longer_high"]
    return table(columns, overall + rows)


def both(accuracy: dict[str, Any], longer: dict[str, Any]) -> list[Any]:
    return [*estimate(accuracy), *estimate(longer)[:3]]


def estimate(values: dict[str, Any]) -> list[Any]:
    return [values["value"], values["low"], values["high"], values["num"]]


def table(columns: list[str], rows: Iterable[list[Any]]) -> str:
    """RFC 4180, numbers to the last digit; undefined is empty."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([repr(value) if isinstance(value, float) else value for value in row] for row in rows)
    return text.getvalue()


COMPARISON_COLUMNS = [
    *("ranking_id", "split", "labeler", "better_position", "worse_position", "better_score", "worse_score"),
    *("better_characters", "worse_characters"),
]
ROWS_A_PIECE = 1000


def comparisons_csv(comparisons: Comparisons) -> Iterator[str]:
    """Every comparison with both scores, in pieces; positions count from 0 as the slate has them."""
    rankings = comparisons.rankings
    yield table(COMPARISON_COLUMNS, [])
    for start in range(0, len(comparisons), ROWS_A_PIECE):
        text = io.StringIO()
        writer = csv.writer(text)
        for row in range(start, min(start + ROWS_A_PIECE, len(comparisons))):
            ranking, better, worse = (
                int(of[row]) for of in (comparisons.ranking, comparisons.better, comparisons.worse)
            )
            scores, characters = rankings.scores[ranking], rankings.characters[ranking]
            writer.writerow(
                [
                    *(rankings.ids[ranking], rankings.splits[ranking], rankings.labelers[ranking], better, worse),
                    *(repr(float(scores[better])), repr(float(scores[worse]))),
                    *(int(characters[better]), int(characters[worse])),
                ]
            )
        yield text.getvalue()

"""Score against the square root of the KL, over every evaluated version (Gao et al. 2022, arXiv:2210.10760, §3).

In that paper the score that people would give is d (α − β log d) for PPO, with d = √KL, while the score of the reward
model that is optimised goes on rising: where the two part, the policy has learned to please the model and not people.
Each round fits a reward model of its own, so scores of two rounds have no common scale; a line joins what one reward
model judged on the same prompts. People's win rate stands beside each point in the table.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pygal
from pygal.style import Style
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.policies.evaluation import WinRate, win_rate
from app.policies.models import PolicyVersion
from app.projects.models import Project
from app.rounds.charts import LEGEND_COLUMNS, colours, short, svg_of
from app.rounds.models import Recipe, Round, Stage, StageState

WIDTH, HEIGHT = 560, 340
MOST_IN_LEGEND = 6
ROOM = 1.12  # of the axis beyond the last point, where its label stands
# The versions' names beside their points, in the ink of either theme.
LABELS = (
    ".plot.text-overlay .series text.label { fill: #1a1c21; font-size: 12px; }"
    "@media (prefers-color-scheme: dark) { .plot.text-overlay .series text.label { fill: #e8eaef; } }"
)
COLUMNS = ("round", "version", "role", "kl_nats", "sqrt_kl", "score", "tokens", "eos_rate", "win_rate", "low", "high")


@dataclass(frozen=True)
class Point:
    """One version as one evaluation saw it. role: "sft", "current" or "candidate".  kl: nats from the SFT policy."""

    version: PolicyVersion
    role: str
    kl: float
    score: float
    tokens: float | None
    eos_rate: float | None
    win_rate: WinRate | None  # people's, of the candidate over the version that was current

    @property
    def sqrt_kl(self) -> float:
        return math.sqrt(max(self.kl, 0.0))  # an estimate of a small KL may lie below 0


@dataclass(frozen=True)
class Evaluation:
    """What one reward model judged on the same prompts, by rising KL."""

    round: Round
    points: list[Point]


def evaluations(session: Session, project: Project) -> list[Evaluation]:
    """Every evaluation of the project, the oldest first."""
    versions = {
        version.id: version
        for version in session.scalars(select(PolicyVersion).where(PolicyVersion.project_id == project.id))
    }
    stages = session.scalars(
        select(Stage)
        .join(Round, Round.id == Stage.round_id)
        .where(Round.project_id == project.id, Stage.recipe == Recipe.EVALUATE, Stage.state == StageState.SUCCEEDED)
        .order_by(Round.number)
    )
    found = [Evaluation(stage.round, points_of(session, stage, versions)) for stage in stages]
    return [evaluation for evaluation in found if evaluation.points]


def points_of(session: Session, stage: Stage, versions: Mapping[int, PolicyVersion]) -> list[Point]:
    """The SFT policy at KL 0, the version that was current if that is another, and the candidate.

    Where the candidate is the SFT policy, of a round of sft and evaluate, it is one point: the candidate's.
    """
    round, figures = stage.round, stage.result or {}
    score = figures.get("reference_score")
    if round.candidate_id == round.sft_policy_id:
        at_0 = figures | {"candidate_kl": 0.0, "candidate_score": score}
        points = [point(versions[round.sft_policy_id], "candidate", at_0, win_rate(session, round))]
    else:
        points = [point(versions[round.sft_policy_id], "sft", {"sft_kl": 0.0, "sft_score": score})]
    if round.baseline_id != round.sft_policy_id:
        points.append(point(versions[round.baseline_id], "current", figures))
    if round.candidate_id is not None and round.candidate_id != round.sft_policy_id:
        points.append(point(versions[round.candidate_id], "candidate", figures, win_rate(session, round)))
    return sorted(filter(None, points), key=lambda each: each.kl)


def point(
    version: PolicyVersion, role: str, figures: Mapping[str, Any], preferred: WinRate | None = None
) -> Point | None:
    """None where the evaluation did not measure both."""
    kl, score = figures.get(f"{role}_kl"), figures.get(f"{role}_score")
    if kl is None or score is None:
        return None
    return Point(version, role, kl, score, figures.get(f"{role}_tokens"), figures.get(f"{role}_eos_rate"), preferred)


def draw(evaluations: Sequence[Evaluation]) -> bytes:
    """The chart as an SVG document; each point carries its version's number."""
    drawing = pygal.XY(
        width=WIDTH,
        height=HEIGHT,
        css=["file://style.css", "file://graph.css", f"inline:{colours(range(len(evaluations)))}{LABELS}"],
        js=[],  # its tooltips would be a script from elsewhere
        no_prefix=True,
        style=Style(font_family="system-ui, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif", transition="none"),
        show_legend=1 < len(evaluations) <= MOST_IN_LEGEND,
        legend_at_bottom=True,
        legend_at_bottom_columns=LEGEND_COLUMNS.get(len(evaluations), 1),
        legend_box_size=10,
        x_title="√KL to the SFT policy, √nats",
        y_title="score",
        print_labels=True,
        dots_size=4,
        truncate_legend=-1,
        margin=8,
        margin_bottom=16,
        spacing=8,
        show_y_guides=True,
        max_scale=6,
        xrange=(0.0, ROOM * max((each.sqrt_kl for one in evaluations for each in one.points), default=1.0)),
        value_formatter=short,
        x_value_formatter=short,
        no_data_text="No version has been evaluated yet",
    )
    for evaluation in evaluations:
        drawing.add(f"round {evaluation.round.number}", [dot(each) for each in evaluation.points])
    return svg_of(drawing)


def dot(point: Point) -> dict[str, Any]:
    """A point of the chart. Each version is named once, where it was the candidate."""
    named = {"label": f"v{point.version.number}"} if point.role == "candidate" else {}
    return {"value": (point.sqrt_kl, point.score), **named}


def as_csv(evaluations: Sequence[Evaluation]) -> str:
    """RFC 4180, numbers to the last digit."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for evaluation in evaluations:
        for each in evaluation.points:
            verdict = each.win_rate
            people = [verdict.rate, verdict.low, verdict.high] if verdict else [None] * 3
            measured = [each.kl, each.sqrt_kl, each.score, each.tokens, each.eos_rate, *people]
            written = ("" if value is None else repr(value) for value in measured)
            writer.writerow([evaluation.round.number, each.version.number, each.role, *written])
    return text.getvalue()

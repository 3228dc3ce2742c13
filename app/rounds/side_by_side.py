"""Two to four rounds side by side: what was set otherwise, what they learned from, what came out. Reads only."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.datasets.models import Snapshot
from app.policies.evaluation import WinRate, win_rate
from app.policies.models import PolicyVersion
from app.projects.models import Project
from app.rounds.charts import CHARTS, Chart, Series
from app.rounds.errors import BadComparison
from app.rounds.models import Metric, Recipe, Round, Stage, StageSample
from app.rounds.samples import sample_steps, samples_of

LEAST, MOST = 2, 4
# What stages are judged by, in that order; the other measurements of both are folded below these.
FIRST = ("held_out_score", "held_out_kl", "score", "kl", "validation_accuracy", "validation_loss", "loss", "entropy")


@dataclass(frozen=True)
class Line:
    """One thing of all the rounds. values: in their order; None where a round has no such thing.

    differs: between the rounds that can have it.
    """

    name: str
    values: Sequence[Any]
    differs: bool


@dataclass(frozen=True)
class SamePrompt:
    """What the rounds' policies wrote at the end of one prompt; None where a round has none."""

    prompt: str
    samples: Sequence[StageSample | None]


@dataclass(frozen=True)
class StageComparison:
    """What the rounds did in one kind of stage."""

    recipe: Recipe
    settings: Sequence[Line]  # that differ
    num_equal: int
    results: Sequence[Line]
    metrics: Sequence[str]  # that two or more of them measured
    prompts: Sequence[SamePrompt]

    @property
    def in_front(self) -> list[str]:
        return [name for name in FIRST if name in self.metrics]

    @property
    def folded(self) -> list[str]:
        return [name for name in self.metrics if name not in FIRST]


@dataclass(frozen=True)
class ComparedRounds:
    """All that the page shows."""

    rounds: Sequence[Round]
    data: Sequence[Line]
    stages: Sequence[StageComparison]
    win_rates: Sequence[WinRate | None]
    candidates: Sequence[PolicyVersion | None]
    baselines: Sequence[PolicyVersion]


def chosen_rounds(session: Session, project: Project, chosen: Iterable[str]) -> list[Round]:
    """The rounds that the address names, "3,5" or one by one, by number. Raises BadComparison."""
    texts = [text.strip() for each in chosen for text in each.split(",") if text.strip()]
    if wrong := [text for text in texts if not (text.isascii() and text.isdigit() and len(text) < 10)]:
        raise BadComparison(f"{wrong[0][:20]!r} is no number of a round.")
    numbers = sorted({int(text) for text in texts})
    if not LEAST <= len(numbers) <= MOST:
        raise BadComparison(f"{len(numbers) or 'No'} round{'s' if len(numbers) != 1 else ''} can not be compared.")
    rounds = {
        round.number: round
        for round in session.scalars(
            select(Round).where(Round.project_id == project.id, Round.number.in_(numbers)).order_by(Round.number)
        )
    }
    if missing := [number for number in numbers if number not in rounds]:
        raise BadComparison(f"This project has no round {missing[0]}.")
    return [rounds[number] for number in numbers]


def compared(session: Session, rounds: Sequence[Round]) -> ComparedRounds:
    """rounds: of one project, by number."""
    return ComparedRounds(
        rounds=rounds,
        data=data_lines(session, rounds),
        stages=[found for recipe in Recipe if (found := stage_comparison(session, rounds, recipe)) is not None],
        win_rates=[win_rate(session, round) if round.evaluation_comparisons else None for round in rounds],
        candidates=[session.get(PolicyVersion, round.candidate_id) if round.candidate_id else None for round in rounds],
        baselines=[session.get_one(PolicyVersion, round.baseline_id) for round in rounds],
    )


def data_lines(session: Session, rounds: Sequence[Round]) -> list[Line]:
    snapshots = [session.get(Snapshot, round.snapshot_id) if round.snapshot_id else None for round in rounds]

    def of_snapshot(name: str) -> list[Any]:
        return [getattr(snapshot, name) if snapshot else None for snapshot in snapshots]

    def version(get: Callable[[Round], int]) -> list[int]:
        return [session.get_one(PolicyVersion, get(round)).number for round in rounds]

    facts = {
        "snapshot": of_snapshot("name"),
        "rankings": of_snapshot("num_rankings"),
        "comparisons": of_snapshot("num_comparisons"),
        "demonstrations": of_snapshot("num_demonstrations"),
        "SFT policy, version": version(lambda round: round.sft_policy_id),
        "compared with version": version(lambda round: round.baseline_id),
        "seed": [round.seed for round in rounds],
    }
    return [Line(name, values, any(value != values[0] for value in values)) for name, values in facts.items()]


def stages_of(rounds: Sequence[Round], recipe: Recipe) -> list[Stage | None]:
    return [next((stage for stage in round.stages if stage.recipe == recipe), None) for round in rounds]


def stage_comparison(session: Session, rounds: Sequence[Round], recipe: Recipe) -> StageComparison | None:
    """None where fewer than two of the rounds have such a stage."""
    stages = stages_of(rounds, recipe)
    if sum(stage is not None for stage in stages) < LEAST:
        return None
    settings = lines_of([stage.configuration if stage else None for stage in stages])
    results = lines_of([(stage.result or {}) if stage else None for stage in stages])
    return StageComparison(
        recipe=recipe,
        settings=[line for line in settings if line.differs],
        num_equal=sum(not line.differs for line in settings),
        results=[line for line in results if all(value is None or is_number(value) for value in line.values)],
        metrics=common_metrics(session, stages),
        prompts=same_prompts(session, stages),
    )


def lines_of(values: Sequence[dict[str, Any] | None]) -> list[Line]:
    """A line for each name that any of them has. A round without the stage makes no difference."""
    present = [each for each in values if each is not None]
    return [
        Line(
            name,
            [None if each is None else each.get(name) for each in values],
            differs=any(each.get(name) != present[0].get(name) for each in present),
        )
        for name in dict.fromkeys(name for each in present for name in each)
    ]


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def common_metrics(session: Session, stages: Sequence[Stage | None]) -> list[str]:
    """What at least two of the stages measured at more than one step, in the order of the charts."""
    present = [stage.id for stage in stages if stage is not None]
    rows = session.execute(
        select(Metric.name, Metric.stage_id)
        .where(Metric.stage_id.in_(present))
        .group_by(Metric.name, Metric.stage_id)
        .having(func.count() > 1)
    )
    num: dict[str, int] = {}
    for name, _ in rows:
        num[name] = num.get(name, 0) + 1
    found = {name for name, times in num.items() if times >= LEAST}
    known = [name for chart in CHARTS for name in chart.series if name in found]
    return known + sorted(found - set(known))


def overlaid(metric: str, rounds: Sequence[Round]) -> Chart:
    """One metric of several rounds as a chart: a line for each round."""
    chart = next((chart for chart in CHARTS if metric in chart.series), None)
    label = chart.series[metric] if chart else metric.replace("_", " ")
    title = chart.title if chart else label.capitalize()
    if chart and len(chart.series) > 1:
        title = f"{title}: {label}"
    return Chart(
        key=metric,
        title=title,
        unit=chart.unit if chart else "",
        series={str(round.number): f"round {round.number}" for round in rounds},
        help=chart.help if chart else "",
    )


def overlaid_series(session: Session, rounds: Sequence[Round], recipe: Recipe, metric: str) -> dict[str, Series]:
    """round's number, as the chart has it -> the metric's points, by step."""
    stages = {stage.id: round.number for round in rounds for stage in round.stages if stage.recipe == recipe}
    points: dict[str, list[tuple[int, float]]] = {}
    for stage_id, step, value in session.execute(
        select(Metric.stage_id, Metric.step, Metric.value)
        .where(Metric.stage_id.in_(stages), Metric.name == metric)
        .order_by(Metric.step)
    ):
        points.setdefault(str(stages[stage_id]), []).append((step, value))
    return dict(points)


def same_prompts(session: Session, stages: Sequence[Stage | None]) -> list[SamePrompt]:
    """What each stage's policy wrote last, by prompt: those that two of them wrote for."""
    last = [last_samples(session, stage) if stage else {} for stage in stages]
    prompts = dict.fromkeys(prompt for each in last for prompt in each)
    found = [SamePrompt(prompt, [each.get(prompt) for each in last]) for prompt in prompts]
    return [each for each in found if sum(sample is not None for sample in each.samples) >= LEAST]


def last_samples(session: Session, stage: Stage) -> dict[str, StageSample]:
    steps = sample_steps(session, stage)
    return {sample.prompt: sample for sample in samples_of(session, stage, steps[-1])} if steps else {}

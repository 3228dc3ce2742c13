"""What a filter selects now, counted and with examples, before anything is frozen.

Up to MOST_COUNTED rankings are counted one by one. What is surely more is estimated from the rankings of one slate in
SAMPLE: whole slates are drawn, by their ids, so a count n stands for SAMPLE · n and its standard error is
√((1 - 1/SAMPLE) Σ m²) · SAMPLE, with m the rankings that each drawn slate has (Bernoulli sampling of clusters;
Särndal, Swensson and Wretman 1992, "Model Assisted Survey Sampling", section 3.2). Who ranked is not estimated: those
met in the sample are a lower bound.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import CTE, ColumnElement, Label, func, select, true
from sqlalchemy.orm import Session, selectinload

from app.datasets.facts import SAMPLE, RankingFacts
from app.datasets.filters import Content, SnapshotFilter, check_filter, chosen_facts, selected_demonstrations
from app.labeling.models import Demonstration, Ranking, Slate
from app.people.models import Labeler
from app.projects.models import Project
from app.prompts.models import Split
from app.statistics import Z_95

MOST_COUNTED = 100_000
SURELY = 1.05  # an estimate so far above that is above it in truth too: three of its standard errors
A_WEEK, A_MONDAY = timedelta(days=7), datetime(2001, 1, 1, tzinfo=UTC)  # bins are ten times as fast as date_trunc
DIGITS_OF_ESTIMATES = 3
IN_SAMPLE = [RankingFacts.is_sampled == true()]  # not IS TRUE, which the sample's index does not know
# What is chosen stays in memory while it is added up, nothing is compiled for a query of a tenth of a second, and a
# core that is free helps to read: rows that pass from one process to another cost far less than the planner thinks.
QUICKLY = select(
    func.set_config("work_mem", "64MB", True),
    func.set_config("jit", "off", True),
    func.set_config("parallel_tuple_cost", "0.01", True),
    func.set_config("parallel_setup_cost", "100", True),
)


@dataclass(frozen=True)
class Preview:
    """What a filter selects. Where `margin` is set, counts of rankings are estimates and labelers a lower bound."""

    num_rankings: int = 0
    num_comparisons: int = 0
    num_slates: int = 0
    num_labelers: int = 0
    num_demonstrations: int = 0
    margin: int | None = None  # of num_rankings: half of its 95 % interval
    kinds: Mapping[str, int] = field(default_factory=dict)
    splits: Mapping[str, int] = field(default_factory=dict)
    policy_versions: Mapping[int, int] = field(default_factory=dict)  # number -> rankings of slates that show it
    weeks: Mapping[str, int] = field(default_factory=dict)  # the Monday, UTC, in order
    examples: Sequence[Ranking] = ()  # of the newest

    @property
    def is_estimate(self) -> bool:
        return self.margin is not None


def preview(session: Session, project: Project, filter: SnapshotFilter, *, num_examples: int = 3) -> Preview:
    """Count what the filter selects. Raises BadFilter."""
    check_filter(filter)
    written = _num_demonstrations(session, project, filter)
    if Content.RANKINGS not in filter.contents:
        return Preview(num_demonstrations=written)
    conditions = chosen_facts(session, project, filter)
    session.execute(QUICKLY)
    found, newest = _counted(session, [*conditions, *IN_SAMPLE], SAMPLE, written, num_examples)
    if found.num_rankings <= SURELY * MOST_COUNTED:
        found, newest = _counted(session, conditions, 1, written, num_examples)
    return replace(found, examples=_rankings(session, newest))


def _counted(
    session: Session, conditions: Sequence[ColumnElement[bool]], scale: int, written: int, num_examples: int
) -> tuple[Preview, list[UUID]]:
    """The counts of what meets the conditions, times `scale`, and the newest: one statement, which reads it once."""
    facts = RankingFacts
    chosen = (
        select(
            *(facts.ranking_id, facts.slate_id, facts.labeler_id, facts.kind, facts.split, facts.policy_versions),
            *(facts.num_comparisons, facts.submitted_at, facts.is_shared),
        )
        .where(*conditions)
        .cte("chosen")
    )
    found = session.execute(
        select(_groups(chosen), _slates(chosen), _labelers(chosen), _newest(chosen, num_examples))
    ).one()
    kinds, splits, versions, weeks = Counter[str](), Counter[str](), Counter[int](), Counter[str]()
    num_rankings = num_comparisons = num_alone = 0
    for kind, split, of_versions, week, num, comparisons, alone in found.groups or ():
        num_alone += alone
        num_rankings += num * scale
        num_comparisons += comparisons * scale
        kinds[kind] += num * scale
        splits[split] += num * scale
        weeks[datetime.fromisoformat(week).astimezone(UTC).date().isoformat()] += num * scale
        for version in of_versions:
            versions[version] += num * scale
    num_slates, squares = (num_alone + of_shared for of_shared in found.slates)
    counts = Preview(
        num_rankings=num_rankings,
        num_comparisons=num_comparisons,
        num_slates=num_slates * scale,
        num_labelers=found.labelers,
        num_demonstrations=written,
        margin=None if scale == 1 else math.ceil(Z_95 * scale * math.sqrt((1 - 1 / scale) * squares)),
        kinds=dict(sorted(kinds.items())),
        splits={split.value: splits[split.value] for split in Split if splits[split.value]},
        policy_versions=dict(sorted(versions.items())),
        weeks=dict(sorted(weeks.items())),
    )
    return counts, [UUID(ranking_id) for ranking_id in found.newest or ()]


def _groups(chosen: CTE) -> Label[Any]:
    """[[kind, split, policy versions, Monday, rankings, comparisons, rankings that are their slate's only one], …].

    These are few, whatever the number of rankings.
    """
    week = func.date_bin(A_WEEK, chosen.c.submitted_at, A_MONDAY).label("week")
    by = chosen.c.kind, chosen.c.split, chosen.c.policy_versions, week
    comparisons = func.sum(chosen.c.num_comparisons).label("comparisons")
    alone = func.count().filter(~chosen.c.is_shared).label("alone")
    groups = select(*by, func.count().label("num"), comparisons, alone).group_by(*by).subquery()
    return select(func.json_agg(func.json_build_array(*groups.c))).scalar_subquery().label("groups")


def _slates(chosen: CTE) -> Label[Any]:
    """[slates, the sum of the squares of their rankings], of slates that have several rankings: most have one."""
    shared = select(func.count().label("num")).select_from(chosen).where(chosen.c.is_shared)
    of_slate = shared.group_by(chosen.c.slate_id).subquery()
    squares = func.coalesce(func.sum(of_slate.c.num * of_slate.c.num), 0)
    return select(func.json_build_array(func.count(), squares)).select_from(of_slate).scalar_subquery().label("slates")


def _labelers(chosen: CTE) -> Label[Any]:
    each = select(chosen.c.labeler_id).distinct().subquery()
    return select(func.count()).select_from(each).scalar_subquery().label("labelers")


def _newest(chosen: CTE, num: int) -> Label[Any]:
    newest = select(chosen.c.ranking_id).order_by(chosen.c.submitted_at.desc(), chosen.c.ranking_id).limit(num)
    ids = newest.subquery()
    return select(func.json_agg(ids.c.ranking_id)).scalar_subquery().label("newest")


def _rankings(session: Session, ids: Sequence[UUID]) -> Sequence[Ranking]:
    """With what an example shows of them, the newest first."""
    query = select(Ranking).where(Ranking.id.in_(ids)).order_by(Ranking.submitted_at.desc(), Ranking.id)
    slate = selectinload(Ranking.slate)
    return session.scalars(
        query.options(
            slate.joinedload(Slate.prompt), slate.selectinload(Slate.completions), selectinload(Ranking.items)
        )
    ).all()


def _num_demonstrations(session: Session, project: Project, filter: SnapshotFilter) -> int:
    if Content.DEMONSTRATIONS not in filter.contents:
        return 0
    return session.scalars(
        select(func.count(Demonstration.id))
        .outerjoin(Labeler, Labeler.id == Demonstration.labeler_id)
        .where(*selected_demonstrations(session, project, filter))
    ).one()


def rounded(estimate: int) -> int:
    """An estimate without the digits that it does not know: 412,384 is 412,000."""
    return int(float(f"{estimate:.{DIGITS_OF_ESTIMATES}g}"))

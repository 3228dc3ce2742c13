"""Win rates of every version against every other, from all blind comparisons a project ever made. Changes nothing."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from app.labeling.models import Completion, Ranking, RankingItem, Slate, SlateKind
from app.policies.evaluation import WinRate, win_rate_from
from app.policies.models import PolicyVersion
from app.policies.sequential import Tally
from app.policies.strengths import Pair, Strength, strengths_of
from app.projects.models import Project
from app.rounds.models import Round


@dataclass(frozen=True)
class Standing:
    """A version among those it was compared with."""

    version: PolicyVersion
    strength: Strength
    num_comparisons: int


@dataclass(frozen=True)
class WinRates:
    """What people's blind comparisons say of all versions.

    groups: versions with a common scale, the strongest first.  pairs: by both versions' numbers, either way round.
    never_compared: versions of which nothing is known.
    """

    groups: list[list[Standing]]
    pairs: dict[Pair, WinRate]
    never_compared: list[PolicyVersion]

    @property
    def compared(self) -> list[PolicyVersion]:
        """Rows and columns of the matrix, in the order of their numbers."""
        versions = [standing.version for group in self.groups for standing in group]
        return sorted(versions, key=lambda version: version.number)

    @property
    def num_comparisons(self) -> int:
        return sum(rate.num_comparisons for rate in self.pairs.values()) // 2


def win_rates(session: Session, project: Project) -> WinRates:
    """Every pair's win rate, and every version's strength."""
    versions = {
        version.id: version
        for version in session.scalars(
            select(PolicyVersion).where(PolicyVersion.project_id == project.id).order_by(PolicyVersion.number)
        )
    }
    tallies = {
        (versions[first].number, versions[second].number): tally
        for (first, second), tally in tallies_between(session, project).items()
    }
    strengths = strengths_of(tallies)
    nums = dict.fromkeys(strengths, 0)
    for pair, tally in tallies.items():
        for number in pair:
            nums[number] += tally.num
    standings = [
        Standing(version, strengths[version.number], nums[version.number])
        for version in versions.values()
        if version.number in strengths
    ]
    return WinRates(
        groups=_by_group(standings),
        pairs=_both_ways(tallies),
        never_compared=[version for version in versions.values() if version.number not in strengths],
    )


def tallies_between(session: Session, project: Project) -> dict[Pair, Tally]:
    """(id of a version, a greater id) -> outcomes from the first one's view, over every comparison that counts.

    Counted by the database: a project may have made a hundred thousand of them.
    """
    one, other = aliased(Completion), aliased(Completion)
    of_one, of_other = aliased(RankingItem), aliased(RankingItem)
    rows = session.execute(
        select(
            one.policy_version_id,
            other.policy_version_id,
            func.count().filter(of_one.rank < of_other.rank),
            func.count().filter(of_one.rank == of_other.rank),
            func.count().filter(of_one.rank > of_other.rank),
        )
        .select_from(Round)
        .join(Slate, Slate.round_id == Round.id)  # by the rounds: an index holds the slates that belong to one
        .join(Ranking, Ranking.slate_id == Slate.id)
        .join(one, one.slate_id == Slate.id)
        .join(other, (other.slate_id == Slate.id) & (other.policy_version_id > one.policy_version_id))
        .join(of_one, (of_one.ranking_id == Ranking.id) & (of_one.completion_id == one.id))
        .join(of_other, (of_other.ranking_id == Ranking.id) & (of_other.completion_id == other.id))
        .where(
            Round.project_id == project.id,
            Slate.kind == SlateKind.EVALUATION,
            Ranking.counted,
            Ranking.retracted_at.is_(None),
        )
        .group_by(one.policy_version_id, other.policy_version_id)
    )
    return {
        (first, second): Tally(wins, ties, losses)
        for first, second, wins, ties, losses in rows
        if first is not None and second is not None  # a greater id than none is none: said for the type alone
    }


def _by_group(standings: Sequence[Standing]) -> list[list[Standing]]:
    groups: dict[int, list[Standing]] = {}
    for standing in standings:
        groups.setdefault(standing.strength.group, []).append(standing)
    return [
        sorted(groups[number], key=lambda standing: (-standing.strength.value, standing.version.number))
        for number in sorted(groups)
    ]


def _both_ways(tallies: dict[Pair, Tally]) -> dict[Pair, WinRate]:
    pairs = {}
    for (first, second), tally in tallies.items():
        for pair, seen in (((first, second), tally), ((second, first), tally.reversed)):
            if (rate := win_rate_from(seen)) is not None:
                pairs[pair] = rate
    return pairs


PAIR_COLUMNS = ("version", "against", "comparisons", "won", "tied", "lost", "win_rate", "low", "high")
STRENGTH_COLUMNS = ("version", "state", "group", "comparisons", "strength", "low", "high", "win_rate_over_first")


def pairs_as_csv(found: WinRates) -> str:
    """RFC 4180: a row for each pair and direction, numbers to the last digit."""
    return _csv(
        PAIR_COLUMNS,
        [
            (*pair, rate.num_comparisons, rate.wins, rate.ties, rate.losses, rate.rate, rate.low, rate.high)
            for pair, rate in sorted(found.pairs.items())
        ],
    )


def strengths_as_csv(found: WinRates) -> str:
    """RFC 4180: a row for each version that was compared, the strongest of each group first."""
    return _csv(
        STRENGTH_COLUMNS,
        [
            (
                *(standing.version.number, standing.version.state.value),
                *(standing.strength.group, standing.num_comparisons),
                *(standing.strength.value, standing.strength.low, standing.strength.high, standing.strength.rate),
            )
            for group in found.groups
            for standing in group
        ],
    )


def _csv(columns: Sequence[str], rows: Sequence[Sequence[str | float]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([cell if isinstance(cell, str) else repr(cell) for cell in row] for row in rows)
    return text.getvalue()

"""What the quality page says: agreement by person, week, policies and prompts; how each person works; suggestions."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.labeling.models import Ranking, Slate
from app.people.models import Account, Labeler, Membership, Role
from app.quality import conduct
from app.quality.agreement import Blocks, Bools, Estimate, Ints, interval_distances, make_blocks, nominal_distances
from app.quality.conduct import Pace
from app.quality.entry_models import ReferenceRanking
from app.quality.judgements import (
    REFERENCE,
    Filter,
    Judgements,
    make_digests,
    read_flags,
    read_judgements,
    read_versions,
)
from app.quality.pairs import Agreement, RankingPairs, agreements, alpha_of, comparisons_between, pairs_of

# Agreement that others report: Bai et al. 2022 (HH, unscreened crowd), Ouyang et al. 2022 (InstructGPT).
REFERENCES = {"HH-RLHF": 0.63, "InstructGPT": 0.73, "InstructGPT, held-out": 0.77}
# When the page suggests a step to the admin. It never takes one.
LOW_AGREEMENT = 0.63  # the interval lies below what an unscreened crowd reaches
POSITION_PULL = 0.05  # away from one half, and the interval is too
FAST_SHARE = 0.20  # of the timed rankings
A_WEEK_S = 7 * 86_400
FIRST_MONDAY_S = 4 * 86_400  # 5 January 1970
REPORTS_KEPT = 16  # by this process: a page and its charts are one computation
WRITTEN_BY_PEOPLE = 0


class Between(StrEnum):
    """Whose agreement the charts show."""

    LABELERS = "labelers"
    RESEARCHERS = "researchers"
    ALL = "all"


@dataclass(frozen=True)
class Line:
    """A group of pairs of rankings."""

    label: str
    agreement: Agreement


@dataclass(frozen=True)
class PolicyPair:
    """Comparisons between completions of two policy versions. None: a person wrote it."""

    versions: tuple[int | None, int | None]
    alike: Estimate

    @property
    def label(self) -> str:
        """Two numbers, or one and the people who wrote the other."""
        if None not in self.versions:
            return "versions {} and {}".format(*self.versions)
        return " and ".join("people" if number is None else f"version {number}" for number in self.versions)


@dataclass(frozen=True)
class PersonLine:
    """Whoever ranked in the project."""

    labeler_id: int
    is_researcher: bool
    num_rankings: int
    with_labelers: Agreement
    with_researchers: Agreement
    with_themselves: Estimate  # on repeated slates
    first_preferred: Estimate
    pace: Pace
    ties: float | None
    flags: Sequence[tuple[str, int]] = ()

    @property
    def num_flags(self) -> int:
        return sum(num for _, num in self.flags)

    @property
    def suggestions(self) -> list[str]:
        """What an admin should look at, in words, with the threshold that was crossed."""
        return list(self._suggestions())

    def _suggestions(self) -> Iterator[str]:
        alike, first = self.with_labelers.alike, self.first_preferred
        if alike.high is not None and alike.high < LOW_AGREEMENT:
            yield f"low agreement: surely below {LOW_AGREEMENT:.0%}"
        if first.value is not None and first.low is not None and first.high is not None:
            is_sure = first.low > 0.5 or first.high < 0.5
            if is_sure and abs(first.value - 0.5) >= POSITION_PULL:
                yield f"position bias: {POSITION_PULL:.0%} or more away from one half"
        if self.pace.fast is not None and self.pace.fast > FAST_SHARE:
            yield f"fast answers: more than {FAST_SHARE:.0%} below {conduct.FAST:.0%} of the usual time"


@dataclass(frozen=True)
class QualityReport:
    """Everything on the quality page. Persons are by id: who may read names is the page's business."""

    num_rankings: int
    num_shared: int  # slates that two or more people ranked, a reference counted as one
    overall: Sequence[Line]  # between labelers, with researchers, between researchers
    weeks: Sequence[Line]
    prompt_kinds: Sequence[Line]
    policy_pairs: Sequence[PolicyPair]
    people: Sequence[PersonLine]
    usual_pace_s: float | None  # per 1,000 characters
    first_preferred: Estimate  # of everybody together
    alpha_of_qualities: float | None  # Krippendorff's, of ratings from 1 to 7 as an interval scale
    alpha_of_flags: float | None  # of whether a completion has any flag, nominal
    version: str = ""  # names the rankings and the filter that it was made from
    made_at: datetime | None = None  # where it was kept; else it says what holds now


_reports: OrderedDict[tuple[int, str], QualityReport] = OrderedDict()


def quality_report(session: Session, project_id: int, chosen: Filter, between: Between) -> QualityReport:
    """The report of the rankings that the filter chooses, as the database has them now."""
    make_digests(session, project_id)
    return report_of_digests(session, project_id, chosen, between)


def report_of_digests(session: Session, project_id: int, chosen: Filter, between: Between) -> QualityReport:
    """The same of what has been digested: nobody waits for it."""
    researchers = researcher_ids(session, project_id)
    told = (session.connection().engine.url, chosen, between, researchers, _fingerprint(session, project_id))
    version = hashlib.sha256(repr(told).encode()).hexdigest()[:16]
    found = find_report(project_id, version)
    if found is None:
        made = _make_report(session, project_id, chosen, between, researchers)
        found = _reports[project_id, version] = replace(made, version=version)
        while len(_reports) > REPORTS_KEPT:
            _reports.popitem(last=False)
    return found


def find_report(project_id: int, version: str) -> QualityReport | None:
    """A report that this process made before, so that a page's charts show what the page says."""
    return _reports.get((project_id, version))


def researcher_ids(session: Session, project_id: int) -> frozenset[int]:
    """The labelers who are researchers or admins: theirs is the judgement that others are held against."""
    leads = (
        select(Labeler.id)
        .join(Account, Account.id == Labeler.account_id)
        .outerjoin(Membership, (Membership.account_id == Account.id) & (Membership.project_id == Labeler.project_id))
        .where(Labeler.project_id == project_id)
        .where(Account.is_site_admin | Membership.role.in_((Role.RESEARCHER, Role.ADMIN)))
    )
    return frozenset(session.scalars(leads))


def _fingerprint(session: Session, project_id: int) -> tuple[Any, ...]:
    """Changes whenever a ranking is added or taken back, or a reference made: rankings change in no other way."""
    rankings = session.execute(
        select(func.count(), func.count(Ranking.retracted_at), func.max(Ranking.submitted_at)).where(
            Ranking.project_id == project_id
        )
    ).one()
    references = select(func.count()).select_from(ReferenceRanking).join(Slate, Slate.id == ReferenceRanking.slate_id)
    return (*rankings, session.scalar(references.where(Slate.project_id == project_id)))


def _make_report(
    session: Session, project_id: int, chosen: Filter, between: Between, researchers: frozenset[int]
) -> QualityReport:
    judgements = read_judgements(session, project_id, chosen)
    pairs = pairs_of(judgements.slate, judgements.labeler, judgements.prompt, judgements.ranks, judgements.is_pick)
    blocks = make_blocks(int(judgements.prompt.max(initial=-1)) + 1)
    leads = np.isin(judgements.labeler, [REFERENCE, *researchers])
    num_leads = leads[pairs.first].astype(int) + leads[pairs.second]
    rows = np.nonzero(_shown(between, num_leads))[0]
    people = np.unique(judgements.labeler[judgements.labeler != REFERENCE])
    own_places = _places_of(people, judgements.labeler)
    everyone = np.where(own_places >= 0, 0, -1)
    usual = conduct.paces(judgements, own_places, len(people))[1]
    return QualityReport(
        num_rankings=int((own_places >= 0).sum()),
        num_shared=len(np.unique(judgements.slate[pairs.first])),
        overall=_overall(pairs, num_leads, blocks),
        weeks=_weeks(judgements, pairs, rows, blocks),
        prompt_kinds=_prompt_kinds(judgements, pairs, rows, blocks),
        policy_pairs=_policy_pairs(session, project_id, judgements, pairs, rows, blocks),
        people=_people(
            judgements,
            pairs,
            leads,
            people,
            own_places,
            researchers,
            read_flags(session, project_id, chosen),
            blocks,
        ),
        usual_pace_s=usual,
        first_preferred=conduct.preferences_for_the_first_shown(judgements, everyone, 1, blocks)[0],
        alpha_of_qualities=alpha_of(judgements.slate, judgements.qualities, interval_distances),
        alpha_of_flags=alpha_of(judgements.slate, judgements.flagged, nominal_distances),
    )


def _shown(between: Between, num_leads: Ints) -> Bools:
    if between is Between.LABELERS:
        return np.asarray(num_leads == 0)
    return np.asarray(num_leads == 1 if between is Between.RESEARCHERS else num_leads >= 0)


def _places_of(people: Ints, labeler: Ints) -> Ints:
    """Where each labeler stands in the sorted array of people; -1: nowhere."""
    place = np.minimum(np.searchsorted(people, labeler), max(len(people) - 1, 0))
    return np.asarray(np.where(people[place] == labeler, place, -1)) if len(people) else np.full(len(labeler), -1)


def _overall(pairs: RankingPairs, num_leads: Ints, blocks: Blocks) -> list[Line]:
    labels = ("Between labelers", "Labelers with researchers", "Between researchers")
    found = agreements(pairs, np.arange(len(pairs.first)), num_leads, len(labels), blocks)
    return [Line(label, agreement) for label, agreement in zip(labels, found, strict=True)]


def _weeks(judgements: Judgements, pairs: RankingPairs, rows: Ints, blocks: Blocks) -> list[Line]:
    """By the week in which the second of the two rankings came; a reference is of no week."""
    at = np.where(judgements.labeler == REFERENCE, 0, judgements.at)
    week = (np.maximum(at[pairs.first[rows]], at[pairs.second[rows]]) - FIRST_MONDAY_S) // A_WEEK_S
    numbers, group = np.unique(week, return_inverse=True)
    found = agreements(pairs, rows, group, len(numbers), blocks)
    mondays = [date(1970, 1, 5) + timedelta(weeks=int(number)) for number in numbers]
    return [Line(monday.isoformat(), agreement) for monday, agreement in zip(mondays, found, strict=True)]


def _prompt_kinds(judgements: Judgements, pairs: RankingPairs, rows: Ints, blocks: Blocks) -> list[Line]:
    kinds, group = np.unique(judgements.prompt_kind[pairs.first[rows]], return_inverse=True)
    found = agreements(pairs, rows, group, len(kinds), blocks)
    names = [judgements.prompt_kinds[kind].replace("_", " ") for kind in kinds]
    lines = [Line(name, agreement) for name, agreement in zip(names, found, strict=True)]
    return sorted(lines, key=lambda line: line.label)  # numbers of kinds are in the order of the first rows


def _policy_pairs(
    session: Session, project_id: int, judgements: Judgements, pairs: RankingPairs, rows: Ints, blocks: Blocks
) -> list[PolicyPair]:
    if not len(rows):
        return []
    versions = read_versions(session, project_id, judgements)
    chosen = pairs.at(rows)
    names, found = comparisons_between(chosen, versions[judgements.slate[chosen.first]], blocks)
    return [PolicyPair((low or None, high or None), alike) for (low, high), alike in zip(names, found, strict=True)]


def _people(
    judgements: Judgements,
    pairs: RankingPairs,
    leads: Bools,
    people: Ints,
    own_places: Ints,
    researchers: frozenset[int],
    flags: Mapping[int, Sequence[tuple[str, int]]],
    blocks: Blocks,
) -> list[PersonLine]:
    num = len(people)
    # Each pair is one of either person's: with a labeler, or with a researcher, as the other one is.
    rows = np.tile(np.arange(len(pairs.first)), 2)
    mine = np.concatenate([own_places[pairs.first], own_places[pairs.second]])
    other_leads = np.concatenate([leads[pairs.second], leads[pairs.first]])
    with_labelers = agreements(pairs, rows, np.where(other_leads, -1, mine), num, blocks)
    with_researchers = agreements(pairs, rows, np.where(other_leads, mine, -1), num, blocks)
    drift = conduct.repeated(judgements)
    again = agreements(drift, np.arange(len(drift.first)), own_places[drift.first], num, blocks)
    first_preferred = conduct.preferences_for_the_first_shown(judgements, own_places, num, blocks)
    pace, _ = conduct.paces(judgements, own_places, num)
    ties = conduct.tie_shares(judgements, own_places, num)
    num_rankings = np.bincount(own_places[own_places >= 0], minlength=num)
    return [
        PersonLine(
            labeler_id=int(labeler_id),
            is_researcher=int(labeler_id) in researchers,
            num_rankings=int(num_rankings[place]),
            with_labelers=with_labelers[place],
            with_researchers=with_researchers[place],
            with_themselves=again[place].alike,
            first_preferred=first_preferred[place],
            pace=pace[place],
            ties=ties[place],
            flags=flags.get(int(labeler_id), ()),
        )
        for place, labeler_id in enumerate(people)
    ]

"""Which labels somebody chooses: one filter for the page, its address, the API and the command line."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import ColumnElement, any_, literal, literal_column, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.datasets.errors import BadFilter
from app.datasets.facts import RankingFacts
from app.datasets.labeler_groups import LabelerGroup, labelers_in
from app.labeling.models import FITTING_KINDS, AskedBy, Demonstration, Ranking, SlateKind, Strength
from app.people.models import Labeler
from app.projects.models import Project
from app.prompts.models import PromptKind, Split

Share = Annotated[float, Field(ge=0, le=1)]


class Content(StrEnum):
    """What a snapshot may hold."""

    RANKINGS = "rankings"
    DEMONSTRATIONS = "demonstrations"


class Ties(StrEnum):
    """Whether a ranking holds completions to be equally good."""

    WITH = "with"
    WITHOUT = "without"


class Origin(StrEnum):
    """Where a label was given."""

    HERE = "here"
    IMPORTED = "imported"


class SnapshotFilter(BaseModel):
    """Which labels a snapshot takes. Without any choice: rankings that count and fit the reward model, and what
    people wrote. Splits, kinds of prompts, people, origins and dates choose among both, all else among rankings alone.
    An empty tuple and None choose nothing; but contents, kinds and splits name at least one (check_filter).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    contents: tuple[Content, ...] = tuple(Content)
    kinds: tuple[SlateKind, ...] = FITTING_KINDS
    splits: tuple[Split, ...] = tuple(Split)
    prompt_kinds: tuple[PromptKind, ...] = ()
    policy_versions: tuple[int, ...] = ()  # numbers; a slate is in when one of its completions is theirs
    labelers: tuple[str, ...] = ()  # pseudonyms
    labeler_groups: tuple[LabelerGroup, ...] = ()  # of any of them
    without_labeler_groups: tuple[LabelerGroup, ...] = ()  # of none of them
    since: AwareDatetime | None = None  # inclusive
    until: AwareDatetime | None = None  # exclusive
    min_k: int | None = None
    max_k: int | None = None
    min_agreement: Share | None = None  # of the slate's rankings; where one alone counts there is none to choose by
    max_agreement: Share | None = None
    flags: tuple[str, ...] = ()  # one of them is on a completion
    without_flags: tuple[str, ...] = ()  # none of them is
    ties: Ties | None = None
    strengths: tuple[Strength, ...] = ()
    asked_by: tuple[AskedBy, ...] = ()
    origins: tuple[Origin, ...] = ()
    is_shared: bool | None = None  # two or more rankings of the slate count
    is_adjudicated: bool | None = None  # a researcher decided the slate


EVERYTHING_THAT_FITS = SnapshotFilter()


def filter_of(**given: Any) -> SnapshotFilter:
    """A filter from what a form or a command line gives; what is empty is left to the default.

    Dates are ISO texts, UTC unless they say otherwise.  Raises BadFilter.
    """
    said = {name: value for name, value in given.items() if value is not None and value not in ("", (), [])}
    try:
        for name in ("since", "until"):
            if name in said:
                moment = datetime.fromisoformat(said[name])
                said[name] = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        filter = SnapshotFilter.model_validate(said)
    except ValidationError as error:
        problem = error.errors()[0]
        raise BadFilter(f"{problem['loc'][0]} cannot be {problem['input']!r}: {problem['msg']}.") from error
    except ValueError as error:
        raise BadFilter(f"A date is not an ISO date: {error}.") from error
    check_filter(filter)
    return filter


def check_filter(filter: SnapshotFilter) -> None:
    """Raises BadFilter where a range ends before it begins, or nothing is named of what there must be one of.

    Not when a filter is read: snapshots keep theirs, whatever is refused by now.
    """
    for name in ("contents", "kinds", "splits"):
        if not getattr(filter, name):
            raise BadFilter(f"{name} is empty, which leaves nothing: name at least one, or leave the field out.")
    if filter.since and filter.until and filter.since >= filter.until:
        raise BadFilter(f"The dates leave nothing: {filter.since:%Y-%m-%d %H:%M} is not before the end.")
    for name, low, high in (
        ("K", filter.min_k, filter.max_k),
        ("agreement", filter.min_agreement, filter.max_agreement),
    ):
        if low is not None and high is not None and low > high:
            raise BadFilter(f"The range of {name} leaves nothing: {low:g} is above {high:g}.")


def selected(session: Session, project: Project, filter: SnapshotFilter) -> list[ColumnElement[bool]]:
    """The conditions on rankings that the filter stands for.

    What may change while a snapshot waits for the ranking's lock is asked of the ranking itself, once more.
    """
    facts = select(RankingFacts.ranking_id).where(*chosen_facts(session, project, filter))
    return [
        Ranking.project_id == project.id,
        Ranking.counted.is_(True),
        Ranking.retracted_at.is_(None),
        Ranking.id.in_(facts),
    ]


def chosen_facts(session: Session, project: Project, filter: SnapshotFilter) -> list[ColumnElement[bool]]:
    """The same on RankingFacts alone: what is counted and shown before anything is frozen."""
    return [RankingFacts.project_id == project.id, *_of_slates(filter), *_of_people(session, project, filter)]


def _of_slates(filter: SnapshotFilter) -> list[ColumnElement[bool]]:
    facts, found = RankingFacts, list[ColumnElement[bool]]()
    if set(filter.kinds) != set(SlateKind):
        found.append(facts.kind.in_(filter.kinds))
    if set(filter.splits) != set(Split):
        found.append(facts.split.in_(filter.splits))
    for column, values in (
        (facts.prompt_kind, filter.prompt_kinds),
        (facts.strength, filter.strengths),
        (facts.asked_by, filter.asked_by),
    ):
        if values:
            found.append(column.in_(values))
    if filter.policy_versions:
        found.append(or_(*(literal(number) == any_(facts.policy_versions) for number in filter.policy_versions)))
    if filter.flags:  # the first is what the index holds
        found += [facts.flags != literal_column("'{}'::text[]"), facts.flags.overlap(list(filter.flags))]
    if filter.without_flags:
        found.append(~facts.flags.overlap(list(filter.without_flags)))
    if filter.ties is not None:
        found.append(facts.has_ties.is_(filter.ties is Ties.WITH))
    if len(set(filter.origins)) == 1:
        found.append(facts.is_imported.is_(filter.origins[0] is Origin.IMPORTED))
    if filter.is_shared is not None:
        found.append(facts.is_shared.is_(filter.is_shared))
    if filter.is_adjudicated is not None:
        found.append(facts.is_adjudicated.is_(filter.is_adjudicated))
    found += between(facts.k, filter.min_k, filter.max_k)
    found += between(facts.agreement, filter.min_agreement, filter.max_agreement)
    return found + within(filter, facts.submitted_at)


def _of_people(session: Session, project: Project, filter: SnapshotFilter) -> list[ColumnElement[bool]]:
    facts, found = RankingFacts, list[ColumnElement[bool]]()
    if filter.labelers:
        named = select(Labeler.id).where(Labeler.project_id == project.id, Labeler.pseudonym.in_(filter.labelers))
        found.append(facts.labeler_id.in_(session.scalars(named).all()))
    if filter.labeler_groups:
        found.append(facts.labeler_id.in_(labelers_in(session, project, filter.labeler_groups)))
    if filter.without_labeler_groups:
        found.append(facts.labeler_id.not_in(labelers_in(session, project, filter.without_labeler_groups)))
    return found


def selected_demonstrations(session: Session, project: Project, filter: SnapshotFilter) -> list[ColumnElement[bool]]:
    """The conditions on demonstrations, joined to their labeler."""
    conditions: list[ColumnElement[bool]] = [
        Demonstration.project_id == project.id,
        Demonstration.retracted_at.is_(None),
    ]
    if set(filter.splits) != set(Split):
        conditions.append(Demonstration.split.in_(filter.splits))
    if filter.prompt_kinds:
        conditions.append(Demonstration.prompt_kind.in_(filter.prompt_kinds))
    if filter.labelers:
        conditions.append(Labeler.pseudonym.in_(filter.labelers))
    if filter.labeler_groups:
        conditions.append(Demonstration.labeler_id.in_(labelers_in(session, project, filter.labeler_groups)))
    if filter.without_labeler_groups:  # nobody named is of no group
        left_out = labelers_in(session, project, filter.without_labeler_groups)
        conditions.append(Demonstration.labeler_id.is_(None) | Demonstration.labeler_id.not_in(left_out))
    if len(set(filter.origins)) == 1:
        is_imported = Demonstration.import_id.is_not(None)
        conditions.append(is_imported if filter.origins[0] is Origin.IMPORTED else ~is_imported)
    return conditions + within(filter, Demonstration.created_at)


def within(filter: SnapshotFilter, at: InstrumentedAttribute[datetime]) -> list[ColumnElement[bool]]:
    since = [at >= filter.since] if filter.since else []
    return since + ([at < filter.until] if filter.until else [])


def between(column: InstrumentedAttribute[Any], low: float | None, high: float | None) -> list[ColumnElement[bool]]:
    """Both ends included; null is in no range."""
    least = [column >= low] if low is not None else []
    return least + ([column <= high] if high is not None else [])

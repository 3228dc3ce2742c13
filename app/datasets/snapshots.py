"""Freezing a choice of rankings and demonstrations, for good.

What is frozen cannot be retracted: freezing takes a share lock on each row, which waits for retractions that are under
way, and a retraction that comes later finds the row in the snapshot (a trigger refuses it).
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError
from sqlalchemy import ColumnElement, exists, func, insert, literal, select, text
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased
from sqlalchemy.orm.attributes import set_committed_value

from app.datasets.breakdowns import count_labels
from app.datasets.demonstrations import demonstration_rows, freeze_demonstrations
from app.datasets.errors import BadFilter, NothingSelected, SnapshotNameTaken, SnapshotNotFound
from app.datasets.kwise import kwise_line
from app.datasets.models import Snapshot, SnapshotDemonstration, SnapshotRanking
from app.datasets.reading import ranking_rows
from app.datasets.rows import DemonstrationRow, RankingRow
from app.datasets.sft import sft_line
from app.labeling.models import FITTING_KINDS, Completion, Demonstration, Ranking, RankingItem, Slate, SlateKind
from app.people.models import Account, Labeler
from app.policies.models import PolicyVersion
from app.projects.models import Project
from app.prompts.models import Prompt, Split
from app.quality.models import Adjudication

EXPORTER_VERSION = 3  # raised when the bytes of an export change: a snapshot says which exporter hashed it


class Content(StrEnum):
    """What a snapshot may hold."""

    RANKINGS = "rankings"
    DEMONSTRATIONS = "demonstrations"


class SnapshotFilter(BaseModel):
    """Which labels a snapshot takes. Without any choice: rankings that count and fit the reward model, and what
    people wrote. Kinds of slates and policy versions are of rankings alone; all else holds for demonstrations too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    contents: tuple[Content, ...] = tuple(Content)
    kinds: tuple[SlateKind, ...] = FITTING_KINDS
    splits: tuple[Split, ...] = tuple(Split)
    policy_versions: tuple[int, ...] = ()  # numbers; a slate is in when one of its completions is theirs; (): any
    labelers: tuple[str, ...] = ()  # pseudonyms; (): all
    since: AwareDatetime | None = None  # inclusive
    until: AwareDatetime | None = None  # exclusive


EVERYTHING_THAT_FITS = SnapshotFilter()


def filter_of(**given: Any) -> SnapshotFilter:
    """A filter from what a form or a command line gives; what is empty is left to the default.

    Dates are ISO texts, UTC unless they say otherwise.  Raises BadFilter.
    """
    said = {name: value for name, value in given.items() if value}
    try:
        for name in ("since", "until"):
            if name in said:
                moment = datetime.fromisoformat(said[name])
                said[name] = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return SnapshotFilter.model_validate(said)
    except ValidationError as error:
        problem = error.errors()[0]
        raise BadFilter(f"{problem['loc'][0]} cannot be {problem['input']!r}: {problem['msg']}.") from error
    except ValueError as error:
        raise BadFilter(f"A date is not an ISO date: {error}.") from error


@dataclass
class Counts:
    """What a snapshot holds, counted while its rows pass. The rankings' first, then the demonstrations'."""

    rankings: int = 0
    comparisons: int = 0
    conversational: int = 0  # rankings whose prompt has turns
    with_strength: int = 0  # rankings that say how much better the better one is
    picks: int = 0  # rankings that compare one with the others alone
    decided: set[UUID] = field(default_factory=set)  # slates with a researcher's decision
    kinds: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    sizes: Counter[int] = field(default_factory=Counter)  # K -> rankings
    policies: Counter[int] = field(default_factory=Counter)  # version number -> completions
    labelers: set[str] = field(default_factory=set)
    demonstrations: int = 0  # pieces: a whole conversation is one
    demonstration_splits: Counter[str] = field(default_factory=Counter)
    prompt_kinds: Counter[str] = field(default_factory=Counter)
    with_suggestion: int = 0
    writers: set[str] = field(default_factory=set)

    def add(self, row: RankingRow) -> None:
        self.rankings += 1
        self.comparisons += row.num_comparisons
        self.conversational += row.is_conversational
        self.with_strength += row.strength is not None
        self.picks += row.is_pick
        if row.decision is not None:
            self.decided.add(row.slate_id)
        self.kinds[row.kind.value] += 1
        self.splits[row.split.value] += 1
        self.sizes[len(row.ranks)] += 1
        self.policies.update(
            completion.policy_number for completion in row.completions if completion.policy_number is not None
        )
        self.labelers.add(row.pseudonym)

    def add_demonstration(self, row: DemonstrationRow) -> None:
        self.demonstrations += 1
        self.demonstration_splits[row.split.value] += 1
        self.prompt_kinds[row.prompt_kind.value] += 1
        self.with_suggestion += row.used_suggestion
        if row.pseudonym is not None:
            self.writers.add(row.pseudonym)

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": dict(sorted(self.kinds.items())),
            "split": dict(sorted(self.splits.items())),
            "k": {str(k): count for k, count in sorted(self.sizes.items())},
            "policy_version": {str(number): count for number, count in sorted(self.policies.items())},
            "labelers": len(self.labelers),
            "conversational": self.conversational,
            "with_strength": self.with_strength,
            "picks": self.picks,
            "adjudicated": len(self.decided),
            "demonstration_split": dict(sorted(self.demonstration_splits.items())),
            "demonstration_prompt_kind": dict(sorted(self.prompt_kinds.items())),
            "with_suggestion": self.with_suggestion,
            "writers": len(self.writers),
        }


def create_snapshot(
    session: Session,
    project: Project,
    *,
    name: str,
    filter: SnapshotFilter = EVERYTHING_THAT_FITS,
    account: Account | None,
    now: datetime,
) -> Snapshot:
    """Freeze the rankings and demonstrations that the filter selects, under the name.

    Raises BadFilter, SnapshotNameTaken, NothingSelected.
    """
    name = name.strip()
    check_choice(session, project, name, filter)
    snapshot_id = session.scalars(text("SELECT nextval('snapshot_id_seq')")).one()
    if Content.RANKINGS in filter.contents:
        freeze_rankings(session, snapshot_id, selected(project, filter))
    if Content.DEMONSTRATIONS in filter.contents:
        freeze_demonstrations(session, snapshot_id, selected_demonstrations(project, filter))
    chosen = filter.model_dump(mode="json")
    return seal_snapshot(session, snapshot_id, project, name=name, filter=chosen, account=account, now=now)


def seal_snapshot(
    session: Session,
    snapshot_id: int,
    project: Project,
    *,
    name: str,
    filter: dict[str, Any],
    account: Account | None,
    now: datetime,
) -> Snapshot:
    """Hash and count the rows that are frozen under the id, and write their snapshot down.  Raises NothingSelected."""
    digest, sft_digest, counts = hashlib.sha256(), hashlib.sha256(), Counts()
    frozen = SnapshotDemonstration.snapshot_id == snapshot_id  # more than its rows: a conversation has several
    num_demonstrations = session.scalars(select(func.count(SnapshotDemonstration.position)).where(frozen)).one()
    for row in ranking_rows(session, snapshot_id):
        digest.update(kwise_line(row))
        counts.add(row)
    for demonstration in demonstration_rows(session, snapshot_id):
        sft_digest.update(sft_line(demonstration))
        counts.add_demonstration(demonstration)
    if counts.rankings == num_demonstrations == 0:
        raise NothingSelected()
    snapshot = Snapshot(
        id=snapshot_id,
        project_id=project.id,
        name=name,
        filter=filter,
        num_rankings=counts.rankings,
        num_comparisons=counts.comparisons,
        num_demonstrations=num_demonstrations,
        counts=counts.as_json(),
        sha256=digest.hexdigest(),
        sft_sha256=sft_digest.hexdigest() if num_demonstrations else None,
        exporter_version=EXPORTER_VERSION,
        created_by=None if account is None else account.id,
        created_at=now,
    )
    session.add(snapshot)
    session.flush()
    set_committed_value(snapshot, "redaction", None)  # known, and not to be looked up when a file is written
    count_labels(session, snapshot.id)
    return snapshot


def check_choice(session: Session, project: Project, name: str, filter: SnapshotFilter) -> None:
    if not name:
        raise BadFilter("A snapshot needs a name; papers will cite it.")
    check_dates(filter)
    # One snapshot at a time in a project, so that two of one name cannot pass this check together.
    session.execute(select(Project.id).where(Project.id == project.id).with_for_update(key_share=True))
    if session.scalar(select(exists().where(Snapshot.project_id == project.id, Snapshot.name == name))):
        raise SnapshotNameTaken(name)


def check_dates(filter: SnapshotFilter) -> None:
    if filter.since and filter.until and filter.since >= filter.until:
        raise BadFilter(f"The dates leave nothing: {filter.since:%Y-%m-%d %H:%M} is not before the end.")


def selected(project: Project, filter: SnapshotFilter) -> list[ColumnElement[bool]]:
    """The conditions on rankings, joined to their slate, prompt and labeler, that the filter stands for."""
    conditions: list[ColumnElement[bool]] = [
        Ranking.project_id == project.id,
        Ranking.counted.is_(True),
        Ranking.retracted_at.is_(None),
        Slate.kind.in_(filter.kinds),
        Prompt.split.in_(filter.splits),
    ]
    if filter.policy_versions:
        conditions.append(
            exists()
            .where(Completion.slate_id == Slate.id, Completion.policy_version_id == PolicyVersion.id)
            .where(PolicyVersion.number.in_(filter.policy_versions))
        )
    if filter.labelers:
        conditions.append(Labeler.pseudonym.in_(filter.labelers))
    return conditions + within(filter, Ranking.submitted_at)


def selected_demonstrations(project: Project, filter: SnapshotFilter) -> list[ColumnElement[bool]]:
    """The conditions on demonstrations, joined to their prompt and labeler."""
    conditions: list[ColumnElement[bool]] = [
        Prompt.project_id == project.id,
        Prompt.split.in_(filter.splits),
        Demonstration.retracted_at.is_(None),
    ]
    if filter.labelers:
        conditions.append(Labeler.pseudonym.in_(filter.labelers))
    return conditions + within(filter, Demonstration.created_at)


def within(filter: SnapshotFilter, at: InstrumentedAttribute[datetime]) -> list[ColumnElement[bool]]:
    since = [at >= filter.since] if filter.since else []
    return since + ([at < filter.until] if filter.until else [])


@dataclass(frozen=True)
class Preview:
    """What a filter selects now, before anything is frozen."""

    num_rankings: int
    num_comparisons: int
    num_demonstrations: int
    kinds: dict[str, int]
    splits: dict[str, int]
    labelers: int
    examples: Sequence[Ranking]  # the newest


def preview(session: Session, project: Project, filter: SnapshotFilter, *, num_examples: int = 3) -> Preview:
    """Count what the filter selects. Raises BadFilter."""
    check_dates(filter)
    rankings = (
        select(Ranking.id, Ranking.submitted_at, Ranking.labeler_id, Slate.kind, Prompt.split)
        .join(Slate, Slate.id == Ranking.slate_id)
        .join(Prompt, Prompt.id == Slate.prompt_id)
        .join(Labeler, Labeler.id == Ranking.labeler_id)
        .where(*selected(project, filter), literal(Content.RANKINGS in filter.contents))
        .cte("selected")
    )
    better, worse = aliased(RankingItem), aliased(RankingItem)
    comparisons = (
        select(func.count())
        .select_from(rankings)
        .join(better, better.ranking_id == rankings.c.id)
        .join(worse, (worse.ranking_id == rankings.c.id) & (better.rank < worse.rank))
    )
    demonstrations = (
        select(func.count(Demonstration.id))
        .join(Prompt, Prompt.id == Demonstration.prompt_id)
        .outerjoin(Labeler, Labeler.id == Demonstration.labeler_id)
        .where(*selected_demonstrations(project, filter), literal(Content.DEMONSTRATIONS in filter.contents))
    )
    kinds = select(rankings.c.kind, func.count()).group_by(rankings.c.kind).order_by(rankings.c.kind)
    splits = select(rankings.c.split, func.count()).group_by(rankings.c.split)
    newest = select(rankings.c.id).order_by(rankings.c.submitted_at.desc(), rankings.c.id).limit(num_examples)
    by_kind = {kind.value: count for kind, count in session.execute(kinds)}
    by_split: dict[Split, int] = dict(session.execute(splits).all())
    return Preview(
        num_rankings=sum(by_kind.values()),
        num_comparisons=session.scalars(comparisons).one(),
        num_demonstrations=session.scalars(demonstrations).one(),
        kinds=by_kind,
        splits={split.value: by_split[split] for split in Split if split in by_split},
        labelers=session.scalars(select(func.count(rankings.c.labeler_id.distinct()))).one(),
        examples=session.scalars(
            select(Ranking).where(Ranking.id.in_(newest)).order_by(Ranking.submitted_at.desc(), Ranking.id)
        ).all(),
    )


def freeze_rankings(session: Session, snapshot_id: int, conditions: Sequence[ColumnElement[bool]]) -> None:
    """Write down which rankings are selected, in which order, and whether their slate is decided by now.

    conditions: on rankings, joined to their slate, prompt and labeler. Their snapshot follows before the commit.
    """
    is_adjudicated = exists().where(Adjudication.slate_id == Ranking.slate_id)
    chosen = (
        select(Ranking.id, Ranking.submitted_at, Labeler.pseudonym, is_adjudicated.label("is_adjudicated"))
        .join(Slate, Slate.id == Ranking.slate_id)
        .join(Prompt, Prompt.id == Slate.prompt_id)
        .join(Labeler, Labeler.id == Ranking.labeler_id)
        .where(*conditions)
        .with_for_update(read=True, of=Ranking)
        .cte("chosen")
    )
    position = func.row_number().over(order_by=(chosen.c.submitted_at, chosen.c.id))
    session.execute(
        insert(SnapshotRanking).from_select(
            ["snapshot_id", "position", "ranking_id", "pseudonym", "is_adjudicated"],
            select(literal(snapshot_id), position, chosen.c.id, chosen.c.pseudonym, chosen.c.is_adjudicated),
        )
    )


def find_snapshot(session: Session, project: Project, snapshot_id: int) -> Snapshot:
    """Raises SnapshotNotFound, also for another project's."""
    snapshot = session.get(Snapshot, snapshot_id)
    if snapshot is None or snapshot.project_id != project.id:
        raise SnapshotNotFound(snapshot_id)
    return snapshot


def list_snapshots(session: Session, project: Project) -> Sequence[Snapshot]:
    """The project's snapshots, the newest first."""
    return session.scalars(select(Snapshot).where(Snapshot.project_id == project.id).order_by(Snapshot.id.desc())).all()

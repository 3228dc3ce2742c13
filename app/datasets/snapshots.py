"""Freezing a choice of rankings, and reading it back: always the same rows, in the same order.

A frozen ranking cannot be retracted: freezing takes a share lock on each ranking, which waits for retractions that are
under way, and a retraction that comes later finds the ranking in the snapshot (a trigger refuses it).
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError
from sqlalchemy import ColumnElement, Select, exists, func, insert, literal, select, text
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session, aliased

from app.datasets.errors import BadFilter, NothingSelected, SnapshotNameTaken, SnapshotNotFound
from app.datasets.kwise import kwise_line
from app.datasets.models import Snapshot, SnapshotRanking
from app.datasets.rows import CompletionRow, RankingRow
from app.labeling.models import FITTING_KINDS, Completion, Ranking, RankingItem, Slate, SlateKind
from app.people.models import Account, Labeler
from app.policies.models import PolicyVersion
from app.projects.models import Project
from app.prompts.models import Prompt, Split

EXPORTER_VERSION = 2  # raised when the bytes of an export change: a snapshot says which exporter hashed it
ROWS_PER_FETCH = 200  # of about 10 kB each


class SnapshotFilter(BaseModel):
    """Which rankings a snapshot takes. Without any choice: all that count and fit the reward model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
    """What a snapshot holds, counted while its rows pass."""

    rankings: int = 0
    comparisons: int = 0
    conversational: int = 0  # rankings whose prompt has turns
    with_strength: int = 0  # rankings that say how much better the better one is
    kinds: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    sizes: Counter[int] = field(default_factory=Counter)  # K -> rankings
    policies: Counter[int] = field(default_factory=Counter)  # version number -> completions
    labelers: Counter[str] = field(default_factory=Counter)

    def add(self, row: RankingRow) -> None:
        self.rankings += 1
        self.comparisons += row.num_comparisons
        self.conversational += row.is_conversational
        self.with_strength += row.strength is not None
        self.kinds[row.kind.value] += 1
        self.splits[row.split.value] += 1
        self.sizes[len(row.ranks)] += 1
        self.policies.update(
            completion.policy_number for completion in row.completions if completion.policy_number is not None
        )
        self.labelers[row.pseudonym] += 1

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": dict(sorted(self.kinds.items())),
            "split": dict(sorted(self.splits.items())),
            "k": {str(k): count for k, count in sorted(self.sizes.items())},
            "policy_version": {str(number): count for number, count in sorted(self.policies.items())},
            "labelers": len(self.labelers),
            "conversational": self.conversational,
            "with_strength": self.with_strength,
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
    """Freeze the rankings that the filter selects, under the name.

    Raises BadFilter, SnapshotNameTaken, NothingSelected.
    """
    name = name.strip()
    check_choice(session, project, name, filter)
    snapshot_id = session.scalars(text("SELECT nextval('snapshot_id_seq')")).one()
    freeze(session, project, snapshot_id, filter)
    digest, counts = hashlib.sha256(), Counts()
    for row in rows_of(session, snapshot_id):
        digest.update(kwise_line(row))
        counts.add(row)
    if counts.rankings == 0:
        raise NothingSelected()
    snapshot = Snapshot(
        id=snapshot_id,
        project_id=project.id,
        name=name,
        filter=filter.model_dump(mode="json"),
        num_rankings=counts.rankings,
        num_comparisons=counts.comparisons,
        counts=counts.as_json(),
        sha256=digest.hexdigest(),
        exporter_version=EXPORTER_VERSION,
        created_by=None if account is None else account.id,
        created_at=now,
    )
    session.add(snapshot)
    session.flush()
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
    if filter.since:
        conditions.append(Ranking.submitted_at >= filter.since)
    if filter.until:
        conditions.append(Ranking.submitted_at < filter.until)
    return conditions


@dataclass(frozen=True)
class Preview:
    """What a filter selects now, before anything is frozen."""

    num_rankings: int
    num_comparisons: int
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
        .where(*selected(project, filter))
        .cte("selected")
    )
    better, worse = aliased(RankingItem), aliased(RankingItem)
    comparisons = (
        select(func.count())
        .select_from(rankings)
        .join(better, better.ranking_id == rankings.c.id)
        .join(worse, (worse.ranking_id == rankings.c.id) & (better.rank < worse.rank))
    )
    kinds = select(rankings.c.kind, func.count()).group_by(rankings.c.kind).order_by(rankings.c.kind)
    splits = select(rankings.c.split, func.count()).group_by(rankings.c.split)
    newest = select(rankings.c.id).order_by(rankings.c.submitted_at.desc(), rankings.c.id).limit(num_examples)
    by_kind = {kind.value: count for kind, count in session.execute(kinds)}
    by_split: dict[Split, int] = dict(session.execute(splits).all())
    return Preview(
        num_rankings=sum(by_kind.values()),
        num_comparisons=session.scalars(comparisons).one(),
        kinds=by_kind,
        splits={split.value: by_split[split] for split in Split if split in by_split},
        labelers=session.scalars(select(func.count(rankings.c.labeler_id.distinct()))).one(),
        examples=session.scalars(
            select(Ranking).where(Ranking.id.in_(newest)).order_by(Ranking.submitted_at.desc(), Ranking.id)
        ).all(),
    )


def freeze(session: Session, project: Project, snapshot_id: int, filter: SnapshotFilter) -> None:
    """Write down which rankings are selected and in which order; their snapshot follows before the commit."""
    chosen = (
        select(Ranking.id, Ranking.submitted_at, Labeler.pseudonym)
        .join(Slate, Slate.id == Ranking.slate_id)
        .join(Prompt, Prompt.id == Slate.prompt_id)
        .join(Labeler, Labeler.id == Ranking.labeler_id)
        .where(*selected(project, filter))
        .with_for_update(read=True, of=Ranking)
        .cte("chosen")
    )
    position = func.row_number().over(order_by=(chosen.c.submitted_at, chosen.c.id))
    session.execute(
        insert(SnapshotRanking).from_select(
            ["snapshot_id", "position", "ranking_id", "pseudonym"],
            select(literal(snapshot_id), position, chosen.c.id, chosen.c.pseudonym),
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


def snapshot_rows(session: Session, snapshot: Snapshot) -> Iterator[RankingRow]:
    """The snapshot's rankings in its order, through a server-side cursor: memory does not grow with the snapshot.

    The session must not commit while the rows are read.
    """
    return rows_of(session, snapshot.id)


def rows_of(session: Session, snapshot_id: int) -> Iterator[RankingRow]:
    result = session.execute(
        rows_query(snapshot_id), execution_options={"stream_results": True, "yield_per": ROWS_PER_FETCH}
    )
    with result:  # a reader who stops early leaves no open cursor
        for record in result:
            yield ranking_row(record)


def rows_between(session: Session, snapshot_id: int, first: int, last: int) -> Iterator[RankingRow]:
    """The rows at these positions, both included, counted from 1."""
    query = rows_query(snapshot_id).where(SnapshotRanking.position.between(first, last))
    return map(ranking_row, session.execute(query))


def rows_query(snapshot_id: int) -> Select[Any]:
    items = (
        select(
            func.json_agg(
                aggregate_order_by(
                    func.json_build_array(
                        Completion.id,
                        Completion.text,
                        Completion.token_ids,
                        Completion.finish_reason,
                        Completion.tokenizer_sha256,
                        PolicyVersion.number,
                        Completion.source,
                        Completion.seed,
                        Completion.temperature,
                        Completion.top_p,
                        Completion.logprob,
                        Completion.facts,
                        RankingItem.rank,
                        RankingItem.quality,
                        RankingItem.flags,
                        RankingItem.is_safe,
                    ),
                    Completion.position,
                )
            )
        )
        .select_from(RankingItem)
        .join(Completion, Completion.id == RankingItem.completion_id)
        .outerjoin(PolicyVersion, PolicyVersion.id == Completion.policy_version_id)
        .where(RankingItem.ranking_id == SnapshotRanking.ranking_id)
        .correlate(SnapshotRanking)
        .scalar_subquery()
    )
    return (
        select(
            Ranking.id,
            Ranking.slate_id,
            Slate.prompt_id,
            Prompt.group_key,
            Prompt.split,
            Slate.kind,
            Prompt.messages,
            items.label("items"),
            Ranking.order_shown,
            SnapshotRanking.pseudonym,
            Ranking.strength,
            SnapshotRanking.weight,
            Ranking.active_s,
            Ranking.submitted_at,
        )
        .select_from(SnapshotRanking)
        .join(Ranking, Ranking.id == SnapshotRanking.ranking_id)
        .join(Slate, Slate.id == Ranking.slate_id)
        .join(Prompt, Prompt.id == Slate.prompt_id)
        .where(SnapshotRanking.snapshot_id == snapshot_id)
        .order_by(SnapshotRanking.position)
    )


def ranking_row(record: Any) -> RankingRow:
    completions = [CompletionRow(UUID(item[0]), *item[1:12]) for item in record.items]
    position = {completion.id: index for index, completion in enumerate(completions)}
    return RankingRow(
        ranking_id=record.id,
        slate_id=record.slate_id,
        prompt_id=record.prompt_id,
        group_key=record.group_key,
        split=record.split,
        kind=record.kind,
        messages=record.messages,
        completions=completions,
        ranks=[item[12] for item in record.items],
        qualities=[item[13] for item in record.items],
        flags=[item[14] for item in record.items],
        are_safe=[item[15] for item in record.items],
        order_shown=[position[completion_id] for completion_id in record.order_shown],
        pseudonym=record.pseudonym,
        strength=record.strength,
        weight=record.weight,
        active_s=record.active_s,
        submitted_at=record.submitted_at.astimezone(UTC),
    )

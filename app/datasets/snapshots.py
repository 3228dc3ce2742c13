"""Freezing a choice of rankings and demonstrations, for good.

What is frozen cannot be retracted: freezing takes a share lock on each row, which waits for retractions that are under
way, and a retraction that comes later finds the row in the snapshot (a trigger refuses it).
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, exists, func, insert, literal, select, text
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from app.datasets.biases import Biases
from app.datasets.breakdowns import count_labels
from app.datasets.demonstrations import demonstration_rows, freeze_demonstrations
from app.datasets.errors import BadFilter, NothingSelected, SnapshotNameTaken, SnapshotNotFound
from app.datasets.filters import (
    EVERYTHING_THAT_FITS,
    Content,
    SnapshotFilter,
    check_filter,
    selected,
    selected_demonstrations,
)
from app.datasets.hh import num_left_out
from app.datasets.kwise import EXPORTER_VERSION, kwise_line
from app.datasets.measures import measure
from app.datasets.models import Snapshot, SnapshotDemonstration, SnapshotRanking
from app.datasets.reading import ranking_rows
from app.datasets.reliability import freeze_reliability
from app.datasets.rows import DemonstrationRow, RankingRow
from app.datasets.sft import sft_line
from app.labeling.models import Ranking, Slate
from app.people.models import Account, Labeler
from app.projects.models import Project
from app.prompts.models import Prompt
from app.quality.models import Adjudication


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
    shared_slates: int = 0  # compared by two people or more
    not_in_hh: int = 0  # comparisons
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
        self.not_in_hh += num_left_out(row)
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
            "shared_slates": self.shared_slates,
            "not_in_hh": self.not_in_hh,
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
    licence: str | None = None,
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
        freeze_rankings(session, snapshot_id, selected(session, project, filter))
    if Content.DEMONSTRATIONS in filter.contents:
        freeze_demonstrations(session, snapshot_id, selected_demonstrations(session, project, filter))
    chosen = filter.model_dump(mode="json")
    return seal_snapshot(
        session, snapshot_id, project, name=name, filter=chosen, licence=licence, account=account, now=now
    )


def seal_snapshot(
    session: Session,
    snapshot_id: int,
    project: Project,
    *,
    name: str,
    filter: dict[str, Any],
    licence: str | None,
    account: Account | None,
    now: datetime,
) -> Snapshot:
    """Hash and count the rows that are frozen under the id, and write their snapshot down.  Raises NothingSelected."""
    digest, sft_digest, counts, biases = hashlib.sha256(), hashlib.sha256(), Counts(), Biases()
    counts.shared_slates = freeze_reliability(session, snapshot_id)
    frozen = SnapshotDemonstration.snapshot_id == snapshot_id  # more than its rows: a conversation has several
    num_demonstrations = session.scalars(select(func.count(SnapshotDemonstration.position)).where(frozen)).one()
    for row in ranking_rows(session, snapshot_id):
        digest.update(kwise_line(row))
        counts.add(row)
        biases.add(row)
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
        licence=licence,
        measured=measure(session, project, snapshot_id, biases) if counts.rankings else {},
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
    check_filter(filter)
    # One snapshot at a time in a project, so that two of one name cannot pass this check together.
    session.execute(select(Project.id).where(Project.id == project.id).with_for_update(key_share=True))
    if session.scalar(select(exists().where(Snapshot.project_id == project.id, Snapshot.name == name))):
        raise SnapshotNameTaken(name)


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

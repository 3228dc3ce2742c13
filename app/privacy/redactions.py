"""Snapshots that lose labels to an erasure: each gets a successor of what is left, with a hash of its own.

The snapshot itself stays on record with its hash, its counts and the rounds that read it. No file is written from it.
"""

from collections.abc import Iterable
from datetime import datetime
from itertools import chain, count
from typing import Any

from sqlalchemy import ColumnElement, delete, exists, func, insert, literal, or_, select, text
from sqlalchemy.orm import Session

from app.datasets.errors import NothingSelected
from app.datasets.models import (
    ExportFile,
    Redaction,
    Snapshot,
    SnapshotBreakdown,
    SnapshotDemonstration,
    SnapshotLabeler,
    SnapshotRanking,
    SnapshotSlate,
)
from app.datasets.snapshots import seal_snapshot
from app.labeling.models import Ranking
from app.privacy.findings import Doomed, TouchedSnapshot
from app.privacy.models import Erasure
from app.projects.models import Project


def redact_snapshots(
    session: Session, erasure: Erasure, touched: Iterable[TouchedSnapshot], doomed: Doomed, *, now: datetime
) -> dict[int, Snapshot | None]:
    """Take the doomed labels out of every snapshot; snapshot id -> its successor, None where nothing was left.

    One that was redacted before keeps the successor that it has, which is touched in its turn.
    """
    touched = list(touched)
    successors = {}
    for each in touched:
        if each.was_redacted:
            continue
        successor = _successor(session, session.get_one(Snapshot, each.id), doomed, now)
        session.add(
            Redaction(
                snapshot_id=each.id, successor_id=None if successor is None else successor.id, erasure_id=erasure.id
            )
        )
        successors[each.id] = successor
    session.flush()
    ids = [each.id for each in touched]
    rankings = select(Ranking.id).where(_is_gone(doomed))
    session.execute(
        delete(SnapshotRanking)
        .where(SnapshotRanking.snapshot_id.in_(ids), SnapshotRanking.ranking_id.in_(rankings))
        .execution_options(synchronize_session=False)
    )
    session.execute(
        delete(SnapshotDemonstration)
        .where(SnapshotDemonstration.snapshot_id.in_(ids), _demonstration_is_gone(doomed))
        .execution_options(synchronize_session=False)
    )
    # Breakdowns are counted anew, of what is left, when somebody asks; files are not written any more.
    for derived in (SnapshotBreakdown, SnapshotLabeler, SnapshotSlate, ExportFile):
        session.execute(
            delete(derived).where(derived.snapshot_id.in_(ids)).execution_options(synchronize_session=False)
        )
    return successors


def _successor(session: Session, snapshot: Snapshot, doomed: Doomed, now: datetime) -> Snapshot | None:
    project = session.get_one(Project, snapshot.project_id)
    new_id = session.scalars(text("SELECT nextval('snapshot_id_seq')")).one()
    stays = ~exists().where(Ranking.id == SnapshotRanking.ranking_id, _is_gone(doomed))
    _copy_rows(session, SnapshotRanking, snapshot.id, new_id, stays)
    _copy_rows(session, SnapshotDemonstration, snapshot.id, new_id, ~_demonstration_is_gone(doomed))
    name = _name_of_successor(session, snapshot)
    try:
        return seal_snapshot(
            session,
            new_id,
            project,
            name=name,
            filter=snapshot.filter,
            licence=snapshot.licence,
            account=None,
            now=now,
        )
    except NothingSelected:
        return None


def _copy_rows(session: Session, table: Any, old_id: int, new_id: int, stays: ColumnElement[bool]) -> None:
    """The rows that stay, in their order, numbered anew; whatever else was frozen with a row is copied."""
    kept = [column for column in table.__table__.columns if column.name not in ("snapshot_id", "position")]
    session.execute(
        insert(table).from_select(
            ["snapshot_id", "position", *(column.name for column in kept)],
            select(literal(new_id), func.row_number().over(order_by=table.position), *kept).where(
                table.snapshot_id == old_id, stays
            ),
        )
    )


def _is_gone(doomed: Doomed) -> ColumnElement[bool]:
    return or_(Ranking.labeler_id.in_(doomed.labelers), Ranking.id.in_(doomed.others_rankings))


def _demonstration_is_gone(doomed: Doomed) -> ColumnElement[bool]:
    return SnapshotDemonstration.demonstration_id.in_([*doomed.demonstrations, *doomed.others_demonstrations])


def _name_of_successor(session: Session, snapshot: Snapshot) -> str:
    plain = f"{snapshot.name} (redacted)"
    taken = set(
        session.scalars(
            select(Snapshot.name).where(
                Snapshot.project_id == snapshot.project_id, Snapshot.name.startswith(plain, autoescape=True)
            )
        )
    )
    return next(name for name in chain([plain], (f"{plain} {i}" for i in count(2))) if name not in taken)

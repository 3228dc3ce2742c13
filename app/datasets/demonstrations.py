"""A snapshot's demonstrations: freezing them, and reading them back in their order.

A whole conversation is stored as a demonstration for each turn of the assistant, which is what a policy learns from. As
a dataset it is one conversation: its last demonstration holds all of it.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC
from typing import Any

from sqlalchemy import ColumnElement, Select, func, insert, literal, or_, select
from sqlalchemy.orm import Session

from app.datasets.models import SnapshotDemonstration
from app.datasets.rows import DemonstrationRow
from app.labeling.models import Demonstration
from app.labeling.task_models import Writing, WritingTask
from app.people.models import Labeler
from app.prompts.models import Prompt, Split


def freeze_demonstrations(session: Session, snapshot_id: int, conditions: Sequence[ColumnElement[bool]]) -> None:
    """Write down which demonstrations are selected and in which order.

    conditions: on demonstrations, joined to their labeler.
    """
    chosen = (
        select(Demonstration.id, Demonstration.created_at, Labeler.pseudonym)
        .outerjoin(Labeler, Labeler.id == Demonstration.labeler_id)
        .where(*conditions)
        .order_by(Demonstration.id)  # who takes some back locks them in this order too, and nobody waits in a circle
        .with_for_update(read=True, of=Demonstration)
        .cte("chosen")
    )
    position = func.row_number().over(order_by=(chosen.c.created_at, chosen.c.id))
    session.execute(
        insert(SnapshotDemonstration).from_select(
            ["snapshot_id", "position", "demonstration_id", "pseudonym"],
            select(literal(snapshot_id), position, chosen.c.id, chosen.c.pseudonym),
        )
    )


def demonstration_rows(session: Session, snapshot_id: int) -> Iterator[DemonstrationRow]:
    """All of them, through a server-side cursor: the session must not commit while they are read."""
    options = {"stream_results": True, "yield_per": 500}
    with session.execute(rows_query(snapshot_id), execution_options=options) as result:
        yield from map(demonstration_row, result)


def demonstrations_between(
    session: Session, snapshot_id: int, first: int, last: int, split: Split | None = None
) -> Iterator[DemonstrationRow]:
    """Those at these positions, both included, counted from 1; of one side of the split, or of all."""
    query = rows_query(snapshot_id).where(SnapshotDemonstration.position.between(first, last))
    if split is not None:
        query = query.where(Prompt.split == split)
    return map(demonstration_row, session.execute(query))


def rows_query(snapshot_id: int) -> Select[Any]:
    is_whole = or_(
        Writing.id.is_(None), Writing.task != WritingTask.BOTH_SIDES, Writing.submission_id == Demonstration.id
    )
    return (
        select(
            Demonstration.id,
            Prompt.kind,
            Prompt.group_key,
            Prompt.split,
            Prompt.messages,
            Demonstration.text,
            Writing.task,
            SnapshotDemonstration.pseudonym,
            Demonstration.suggestion.is_not(None).label("used_suggestion"),
            Demonstration.use_case,
            Demonstration.active_s,
            Demonstration.created_at,
        )
        .select_from(SnapshotDemonstration)
        .join(Demonstration, Demonstration.id == SnapshotDemonstration.demonstration_id)
        .join(Prompt, Prompt.id == Demonstration.prompt_id)
        .outerjoin(Writing, Writing.id == Demonstration.writing_id)
        .where(SnapshotDemonstration.snapshot_id == snapshot_id, is_whole)
        .order_by(SnapshotDemonstration.position)
    )


def demonstration_row(record: Any) -> DemonstrationRow:
    return DemonstrationRow(
        demonstration_id=record.id,
        prompt_kind=record.kind,
        group_key=record.group_key,
        split=record.split,
        messages=record.messages,
        text=record.text,
        task=record.task,
        pseudonym=record.pseudonym,
        used_suggestion=record.used_suggestion,
        use_case=record.use_case,
        active_s=record.active_s,
        created_at=record.created_at.astimezone(UTC),
    )

"""The format `prompts`: each prompt of a snapshot once, in turns, as TRL's GRPO and online trainers read it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Select, exists, select
from sqlalchemy.orm import Session, aliased

from app.datasets.kwise import encode
from app.datasets.models import Snapshot, SnapshotDemonstration, SnapshotRanking
from app.labeling.models import Demonstration, Ranking, Slate
from app.prompts.models import Prompt, PromptKind, Split

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A prompt, at the place of the first label that a snapshot holds for it."""

    prompt_id: int
    messages: list[dict[str, Any]]
    group_key: str
    split: Split
    kind: PromptKind


def prompts_between(
    session: Session, snapshot: Snapshot, first: int, last: int, split: Split | None
) -> Iterator[PromptRow]:
    """The prompts whose first label is at these positions, both included, counted from 1.

    The demonstrations' positions follow the rankings'.
    """
    for query, offset in ((of_rankings(snapshot.id), 0), (of_demonstrations(snapshot.id), snapshot.num_rankings)):
        position = query.selected_columns.position
        some = query.where(position.between(first - offset, last - offset)).order_by(position)
        if split is not None:
            some = some.where(Prompt.split == split)
        for row in session.execute(some):
            yield PromptRow(row.id, row.messages, row.group_key, row.split, row.kind)


def of_rankings(snapshot_id: int) -> Select[Any]:
    before, ranking, slate = aliased(SnapshotRanking), aliased(Ranking), aliased(Slate)
    was_there = (
        exists()
        .where(slate.prompt_id == Prompt.id, ranking.slate_id == slate.id, before.ranking_id == ranking.id)
        .where(before.snapshot_id == snapshot_id, before.position < SnapshotRanking.position)
        .correlate(SnapshotRanking, Prompt)
    )
    return (
        select(SnapshotRanking.position, Prompt.id, Prompt.messages, Prompt.group_key, Prompt.split, Prompt.kind)
        .join(Ranking, Ranking.id == SnapshotRanking.ranking_id)
        .join(Slate, Slate.id == Ranking.slate_id)
        .join(Prompt, Prompt.id == Slate.prompt_id)
        .where(SnapshotRanking.snapshot_id == snapshot_id, ~was_there)
    )


def of_demonstrations(snapshot_id: int) -> Select[Any]:
    before, demonstration = aliased(SnapshotDemonstration), aliased(Demonstration)
    was_there = (
        exists()
        .where(demonstration.prompt_id == Prompt.id, before.demonstration_id == demonstration.id)
        .where(before.snapshot_id == snapshot_id, before.position < SnapshotDemonstration.position)
        .correlate(SnapshotDemonstration, Prompt)
    )
    return (
        select(SnapshotDemonstration.position, Prompt.id, Prompt.messages, Prompt.group_key, Prompt.split, Prompt.kind)
        .join(Demonstration, Demonstration.id == SnapshotDemonstration.demonstration_id)
        .join(Prompt, Prompt.id == Demonstration.prompt_id)
        .where(SnapshotDemonstration.snapshot_id == snapshot_id, ~was_there, ~has_ranking(snapshot_id))
    )


def has_ranking(snapshot_id: int) -> ColumnElement[bool]:
    """Whether the snapshot holds a ranking of the prompt."""
    return (
        exists()
        .where(Slate.prompt_id == Prompt.id, Ranking.slate_id == Slate.id, SnapshotRanking.ranking_id == Ranking.id)
        .where(SnapshotRanking.snapshot_id == snapshot_id)
        .correlate(Prompt)
    )


class Prompts:
    """`prompt` in turns, with where it comes from and on which side of the split it is."""

    def columns(self, row: PromptRow) -> Iterator[dict[str, Any]]:
        yield {
            "prompt": row.messages,
            "prompt_id": f"prompt-{row.prompt_id}",
            "group": row.group_key,
            "split": row.split.value,
            "prompt_kind": row.kind.value,
        }

    def lines(self, row: PromptRow) -> bytes:
        return b"".join(encode(record).encode() + b"\n" for record in self.columns(row))

    def schema(self) -> "pa.Schema":
        import pyarrow as pa

        return pa.schema(
            [
                ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
                ("prompt_id", pa.string()),
                ("group", pa.string()),
                ("split", pa.string()),
                ("prompt_kind", pa.string()),
            ]
        )

"""Reading a snapshot's rankings back: always the same rows, in the same order, in bounded memory."""

from collections.abc import Iterator
from datetime import UTC
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session

from app.datasets.models import SnapshotRanking
from app.datasets.rows import CompletionRow, Decision, RankingRow
from app.labeling.models import Completion, Ranking, RankingItem, Slate
from app.policies.models import PolicyVersion
from app.prompts.models import Prompt
from app.quality.models import Adjudication

ROWS_PER_FETCH = 200  # of about 10 kB each


def ranking_rows(session: Session, snapshot_id: int) -> Iterator[RankingRow]:
    """The snapshot's rankings through a server-side cursor: memory does not grow with the snapshot.

    The session must not commit while the rows are read.
    """
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
    # What was decided after the freeze is none of the snapshot's.
    decided = SnapshotRanking.is_adjudicated & (Adjudication.slate_id == Ranking.slate_id)
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
            Ranking.is_pick,
            Ranking.strength,
            SnapshotRanking.weight,
            Ranking.active_s,
            Ranking.submitted_at,
            Adjudication.ranks.label("decided_ranks"),
            Adjudication.num_rankings.label("decided_on"),
            Adjudication.created_at.label("decided_at"),
        )
        .select_from(SnapshotRanking)
        .join(Ranking, Ranking.id == SnapshotRanking.ranking_id)
        .join(Slate, Slate.id == Ranking.slate_id)
        .join(Prompt, Prompt.id == Slate.prompt_id)
        .outerjoin(Adjudication, decided)
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
        is_pick=record.is_pick,
        strength=record.strength,
        weight=record.weight,
        active_s=record.active_s,
        submitted_at=record.submitted_at.astimezone(UTC),
        decision=decision_of(record, completions),
    )


def decision_of(record: Any, completions: list[CompletionRow]) -> Decision | None:
    if record.decided_ranks is None:
        return None
    return Decision(
        ranks=[record.decided_ranks[str(completion.id)] for completion in completions],
        num_rankings=record.decided_on,
        decided_at=record.decided_at.astimezone(UTC),
    )

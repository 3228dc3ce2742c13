"""Reading a snapshot's rankings back: always the same rows, in the same order, in bounded memory."""

from collections.abc import Iterator
from datetime import UTC
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    ScalarSelect,
    Select,
    Text,
    and_,
    bindparam,
    case,
    cast,
    exists,
    func,
    select,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session, aliased

from app.datasets.models import SnapshotLabeler, SnapshotRanking, SnapshotSlate
from app.datasets.rows import CompletionRow, Decision, RankingRow
from app.labeling.models import Completion, Ranking, RankingItem, Slate
from app.policies.models import PolicyVersion
from app.prompts.models import Prompt, Split
from app.quality.models import Adjudication

ROWS_PER_FETCH = 200  # of about 10 kB each


def ranking_rows(session: Session, snapshot_id: int) -> Iterator[RankingRow]:
    """The snapshot's rankings through a server-side cursor: memory does not grow with the snapshot.

    The session must not commit while the rows are read.
    """
    result = session.execute(
        rows_query(),
        {"snapshot_id": snapshot_id},
        execution_options={"stream_results": True, "yield_per": ROWS_PER_FETCH},
    )
    with result:  # a reader who stops early leaves no open cursor
        for record in result:
            yield ranking_row(record)


def rows_between(
    session: Session, snapshot_id: int, first: int, last: int, split: Split | None = None
) -> Iterator[RankingRow]:
    """The rows at these positions, both included, counted from 1; of one side of the split, or of all."""
    bound = {"snapshot_id": snapshot_id, "first": first, "last": last}
    return map(ranking_row, session.execute(rows_between_query(split), bound))


# Built once: putting the query together costs as much as a hundred rows do.
@lru_cache(maxsize=1 + len(Split))
def rows_between_query(split: Split | None) -> Select[Any]:
    query = rows_query().where(SnapshotRanking.position.between(bindparam("first"), bindparam("last")))
    return query if split is None else query.where(Prompt.split == split)


@lru_cache(maxsize=1)
def rows_query() -> Select[Any]:
    """Of the snapshot that is bound as `snapshot_id`."""
    # What was decided after the freeze is none of the snapshot's.
    decided = SnapshotRanking.is_adjudicated & (Adjudication.slate_id == Ranking.slate_id)
    return (
        select(*columns_told())
        .select_from(SnapshotRanking)
        .join(Ranking, Ranking.id == SnapshotRanking.ranking_id)
        .join(Slate, Slate.id == Ranking.slate_id)
        .join(Prompt, Prompt.id == Slate.prompt_id)
        .outerjoin(Adjudication, decided)
        .outerjoin(
            SnapshotSlate,
            and_(SnapshotSlate.snapshot_id == SnapshotRanking.snapshot_id, SnapshotSlate.slate_id == Ranking.slate_id),
        )
        .outerjoin(
            SnapshotLabeler,
            and_(
                SnapshotLabeler.snapshot_id == SnapshotRanking.snapshot_id,
                SnapshotLabeler.pseudonym == SnapshotRanking.pseudonym,
            ),
        )
        .where(SnapshotRanking.snapshot_id == bindparam("snapshot_id"))
        .order_by(SnapshotRanking.position)
    )


def columns_told() -> list[Any]:
    """What a row says of its ranking, under the names that ranking_row reads."""
    return [
        Ranking.id,
        Ranking.slate_id,
        Slate.prompt_id,
        Prompt.group_key,
        Prompt.split,
        Slate.kind,
        Prompt.messages,
        completions_told().label("told"),
        cast(Ranking.order_shown, ARRAY(Text)).label("order_shown"),  # ids are texts here: they are only written
        SnapshotRanking.pseudonym,
        Ranking.is_pick,
        Ranking.strength,
        SnapshotRanking.weight,
        Ranking.active_s,
        Ranking.submitted_at,
        Adjudication.ranks.label("decided_ranks"),
        Adjudication.num_rankings.label("decided_on"),
        Adjudication.created_at.label("decided_at"),
        is_first_of_decided(),
        SnapshotSlate.agreement,
        SnapshotLabeler.reliability,
        func.coalesce(SnapshotLabeler.weight, 1.0).label("reliability_weight"),  # frozen before there were weights
        Slate.asked_by,
        Slate.disagreement,
    ]


def completions_told() -> ScalarSelect[Any]:
    """A ranking's completions with what was said of each, as one array in the order of their positions."""
    return (
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


def is_first_of_decided() -> ColumnElement[bool]:
    """Whether a ranking is the first of its slate's in the snapshot; looked up only where the slate was decided."""
    before, of_same_slate = aliased(SnapshotRanking), aliased(Ranking)
    has_one_before = (
        exists()
        .where(before.snapshot_id == SnapshotRanking.snapshot_id, before.position < SnapshotRanking.position)
        .where(of_same_slate.id == before.ranking_id, of_same_slate.slate_id == Ranking.slate_id)
        .correlate(SnapshotRanking, Ranking)
    )
    return case((SnapshotRanking.is_adjudicated, ~has_one_before), else_=False).label("is_first_of_decided")


def ranking_row(record: Any) -> RankingRow:
    completions = [CompletionRow(*item[:12]) for item in record.told]
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
        ranks=[item[12] for item in record.told],
        qualities=[item[13] for item in record.told],
        flags=[item[14] for item in record.told],
        are_safe=[item[15] for item in record.told],
        order_shown=[position[completion_id] for completion_id in record.order_shown],
        pseudonym=record.pseudonym,
        is_pick=record.is_pick,
        strength=record.strength,
        weight=record.weight,
        active_s=record.active_s,
        submitted_at=record.submitted_at.astimezone(UTC),
        decision=decision_of(record, completions),
        is_first_of_decided=record.is_first_of_decided,
        agreement=record.agreement,
        reliability=record.reliability,
        reliability_weight=record.reliability_weight,
        asked_by=record.asked_by,
        disagreement=record.disagreement,
    )


def decision_of(record: Any, completions: list[CompletionRow]) -> Decision | None:
    if record.decided_ranks is None:
        return None
    return Decision(
        ranks=[record.decided_ranks[completion.id] for completion in completions],
        num_rankings=record.decided_on,
        decided_at=record.decided_at.astimezone(UTC),
    )

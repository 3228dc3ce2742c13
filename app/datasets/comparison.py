"""Two snapshots side by side: what came, what went, and what both hold but derived otherwise.

Snapshots change by the erasure of a person alone, so a process keeps the comparisons of those that lost nothing.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.datasets.filter_words import choices_of
from app.datasets.filters import SnapshotFilter
from app.datasets.models import Snapshot, SnapshotRanking
from app.datasets.reading import ranking_row, rows_query
from app.datasets.rows import RankingRow
from app.db import SessionFactory

NUM_EXAMPLES = 3
KEPT = 32  # comparisons, by this process

# Every ranking of either snapshot once; `differs`: what the two say of it besides which it is.
BOTH = """
SELECT ranking_id, one.position AS one_position, other.position AS other_position, one.weight AS one_weight,
       other.weight AS other_weight, one.is_adjudicated AS one_is_adjudicated,
       other.is_adjudicated AS other_is_adjudicated, coalesce(other.pseudonym, one.pseudonym) AS labeler,
       (one.weight, one.is_adjudicated) IS DISTINCT FROM (other.weight, other.is_adjudicated) AS differs
FROM (SELECT * FROM snapshot_ranking WHERE snapshot_id = {one}) AS one
FULL JOIN (SELECT * FROM snapshot_ranking WHERE snapshot_id = {other}) AS other USING (ranking_id)
"""
COUNT = f"""
WITH both_sides AS MATERIALIZED ({BOTH.format(one=":one", other=":other")})
SELECT count(*) FILTER (WHERE one_position IS NULL) AS added,
       count(*) FILTER (WHERE other_position IS NULL) AS removed,
       count(*) FILTER (WHERE one_position IS NOT NULL AND other_position IS NOT NULL) AS common,
       count(*) FILTER (WHERE one_position IS NOT NULL AND other_position IS NOT NULL AND differs) AS changed,
       ARRAY(SELECT other_position FROM both_sides WHERE one_position IS NULL ORDER BY 1 LIMIT {NUM_EXAMPLES})
           AS first_added,
       ARRAY(SELECT one_position FROM both_sides WHERE other_position IS NULL ORDER BY 1 LIMIT {NUM_EXAMPLES})
           AS first_removed,
       ARRAY(SELECT other_position FROM both_sides WHERE one_position IS NOT NULL AND differs
             AND other_position IS NOT NULL ORDER BY 1 LIMIT {NUM_EXAMPLES}) AS first_changed
FROM both_sides
"""  # noqa: S608 - constants of ours
COUNT_DEMONSTRATIONS = """
SELECT count(*) FILTER (WHERE one.position IS NULL) AS added, count(*) FILTER (WHERE other.position IS NULL) AS removed,
       count(*) FILTER (WHERE one.position IS NOT NULL AND other.position IS NOT NULL) AS common
FROM (SELECT * FROM snapshot_demonstration WHERE snapshot_id = :one) AS one
FULL JOIN (SELECT * FROM snapshot_demonstration WHERE snapshot_id = :other) AS other USING (demonstration_id)
"""


class Difference(StrEnum):
    """How a ranking of one of two snapshots stands to the other."""

    ADDED = "added"  # the other one alone holds it
    REMOVED = "removed"  # the one alone does
    CHANGED = "changed"  # both do, with another weight, or decided in one of them alone


WHERE = {
    Difference.ADDED: "one_position IS NULL",
    Difference.REMOVED: "other_position IS NULL",
    Difference.CHANGED: "one_position IS NOT NULL AND other_position IS NOT NULL AND differs",
}


@dataclass(frozen=True)
class Numbers:
    """What came and went. first: positions of examples, of the snapshot that holds them."""

    added: int
    removed: int
    common: int
    changed: int  # among the common ones
    first: dict[Difference, list[int]]
    demonstrations: tuple[int, int, int]  # added, removed, common


@dataclass(frozen=True)
class SnapshotComparison:
    """From `one` to `other`."""

    one: Snapshot
    other: Snapshot
    numbers: Numbers
    only_one_chose: list[str]  # in words
    only_other_chose: list[str]
    counts: dict[str, list[tuple[str, int, int]]]  # what -> (name, in one, in the other)


COUNTED = {"kind": "Kinds of slates", "split": "Splits", "k": "K", "policy_version": "Completions by policy version"}

_kept: OrderedDict[tuple[object, ...], Numbers] = OrderedDict()


def compare(session: Session, one: Snapshot, other: Snapshot) -> SnapshotComparison:
    """What differs between two snapshots of a project."""
    chose, other_chose = (
        [choice.words for choice in choices_of(SnapshotFilter.model_validate(each.filter))] for each in (one, other)
    )
    return SnapshotComparison(
        one=one,
        other=other,
        numbers=numbers_of(session, one, other),
        only_one_chose=[words for words in chose if words not in other_chose],
        only_other_chose=[words for words in other_chose if words not in chose],
        counts={title: side_by_side(one.counts[key], other.counts[key]) for key, title in COUNTED.items()},
    )


def numbers_of(session: Session, one: Snapshot, other: Snapshot) -> Numbers:
    """Counted in one pass over both, the first time that somebody asks; of a redacted one every time.

    A redacted snapshot loses rows with each further erasure, and keeps its hash.
    """
    if one.redaction is not None or other.redaction is not None:
        return count(session, one, other)
    key = tuple(fact for each in (one, other) for fact in (each.id, each.sha256, each.sft_sha256))
    if (known := _kept.get(key)) is not None:
        return known
    counted = _kept[key] = count(session, one, other)
    while len(_kept) > KEPT:
        _kept.popitem(last=False)
    return counted


def count(session: Session, one: Snapshot, other: Snapshot) -> Numbers:
    """What both hold by now."""
    given = {"one": one.id, "other": other.id}
    session.execute(text("SELECT set_config('work_mem', '64MB', true), set_config('jit', 'off', true)"))
    row = session.execute(text(COUNT), given).one()
    written = session.execute(text(COUNT_DEMONSTRATIONS), given).one()
    return Numbers(
        added=row.added,
        removed=row.removed,
        common=row.common,
        changed=row.changed,
        first={
            Difference.ADDED: row.first_added,
            Difference.REMOVED: row.first_removed,
            Difference.CHANGED: row.first_changed,
        },
        demonstrations=(written.added, written.removed, written.common),
    )


def forget() -> None:
    """Drop what this process keeps: the next comparison is counted anew."""
    _kept.clear()


def side_by_side(one: dict[str, int], other: dict[str, int]) -> list[tuple[str, int, int]]:
    """Name, in one, in the other; numbers by size."""
    names = sorted(one.keys() | other.keys(), key=lambda name: (len(name), name))
    return [(name, one.get(name, 0), other.get(name, 0)) for name in names]


def examples(session: Session, found: SnapshotComparison, difference: Difference) -> Sequence[RankingRow]:
    """The first rankings that differ so, in the order of the snapshot that holds them."""
    holder = found.one if difference is Difference.REMOVED else found.other
    positions = found.numbers.first[difference]
    if not positions:
        return []
    query = rows_query().where(SnapshotRanking.position.in_(positions))
    return [ranking_row(record) for record in session.execute(query, {"snapshot_id": holder.id})]


def differing_csv(one_id: int, other_id: int, difference: Difference) -> Iterator[bytes]:
    """Every ranking that differs so, as CSV with a header, in a read-only session of its own."""
    statement = f"""
    COPY (
        SELECT ranking_id, ranking.slate_id, slate.kind, prompt.split, labeler, ranking.submitted_at,
               one_position, other_position, one_weight, other_weight, one_is_adjudicated, other_is_adjudicated
        FROM ({BOTH.format(one="%(one)s", other="%(other)s")}) AS both_sides
        JOIN ranking ON ranking.id = ranking_id
        JOIN slate ON slate.id = ranking.slate_id
        JOIN prompt ON prompt.id = slate.prompt_id
        WHERE {WHERE[difference]}
        ORDER BY coalesce(other_position, one_position)
    ) TO STDOUT (FORMAT csv, HEADER)
    """  # noqa: S608 - constants of ours; what people choose is a parameter
    with SessionFactory() as session:
        session.execute(text("SET TRANSACTION READ ONLY"))
        connection: Any = session.connection().connection.driver_connection
        with connection.cursor() as cursor, cursor.copy(statement, {"one": one_id, "other": other_id}) as copy:
            for block in copy:
                yield bytes(block)

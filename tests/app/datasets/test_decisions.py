"""Researchers' decisions in datasets: frozen with the snapshot, beside the labelers' rankings or in their place."""

import io
import json
from collections.abc import Callable
from typing import Any

import pyarrow.parquet as pq
import pytest
from sqlalchemy.orm import Session

from app.datasets.export_choices import ExportChoice
from app.datasets.exports import export_chunks
from app.datasets.imports import import_file
from app.datasets.models import Snapshot
from app.datasets.reading import ranking_rows
from app.datasets.snapshots import create_snapshot
from app.labeling.models import Slate, SlateKind, Strength
from app.projects.models import Project
from app.quality.models import Adjudication
from tests.app.datasets.conftest import NOW, AddRanking, days, make_project
from tests.app.loop import make_account

TEXTS = ("a", "b", "c", "d")

Decide = Callable[..., None]


@pytest.fixture
def decide(session: Session) -> Decide:
    """Decides a slate: `decide(slate, (1, 1, 2, 3))`, in the order of its completions."""
    account = make_account(session, "Rosa")

    def decide(slate: Slate, ranks: tuple[int, ...]) -> None:
        session.add(
            Adjudication(
                slate_id=slate.id,
                ranks={str(each.id): rank for each, rank in zip(slate.completions, ranks, strict=True)},
                reason="Rosa says that Ada is right.",
                num_rankings=2,
                account_id=account.id,
                created_at=NOW + days(1),
            )
        )
        session.commit()

    return decide


def freeze(session: Session, project: Project, name: str = "May") -> Snapshot:
    snapshot = create_snapshot(session, project, name=name, account=None, now=NOW)
    session.commit()
    return snapshot


def records(snapshot: Snapshot, **choice: Any) -> list[dict[str, Any]]:
    content = b"".join(export_chunks(snapshot, ExportChoice(**choice)))
    if choice.get("file") == "parquet":
        rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(content)).to_pylist()
        return rows
    return [json.loads(line) for line in content.splitlines()]


def test_kwise_keeps_every_ranking_and_says_what_was_decided(
    session: Session, garden: Project, add_ranking: AddRanking, decide: Decide
) -> None:
    slate = add_ranking((1, 2, 3, 4)).slate
    add_ranking((4, 3, 2, 1), slate=slate, labeler="Otto", submitted_at=NOW + days(1))
    add_ranking((1, 2, 2, 3), submitted_at=NOW + days(2))
    decide(slate, (2, 1, 1, 3))
    snapshot = freeze(session, garden)
    decision = {"ranks": [2, 1, 1, 3], "num_rankings": 2, "decided_at": "2026-05-05T12:00:00+00:00"}
    rows = records(snapshot)
    assert [[each["rank"] for each in row["completions"]] for row in rows] == [
        [1, 2, 3, 4], [4, 3, 2, 1], [1, 2, 2, 3]
    ]  # fmt: skip
    assert [row["adjudication"] for row in rows] == [decision, decision, None]
    assert snapshot.counts["adjudicated"] == 1
    assert "Rosa" not in json.dumps(rows)
    parquet = records(snapshot, file="parquet")
    assert parquet[0]["adjudication"] == decision | {"decided_at": NOW + days(1)}
    assert parquet[2]["adjudication"] is None


def test_pairs_are_as_given_and_marked_or_the_decision_alone(
    session: Session, garden: Project, add_ranking: AddRanking, decide: Decide
) -> None:
    slate = add_ranking((1, 2), texts=("a", "b"), kind=SlateKind.PAIR).slate
    add_ranking((1, 2), texts=("c", "d"), kind=SlateKind.PAIR, submitted_at=NOW + days(1))
    add_ranking((1, 2), slate=slate, labeler="Otto", submitted_at=NOW + days(2))
    decide(slate, (2, 1))
    snapshot = freeze(session, garden)
    given = records(snapshot, format="pairs")
    assert [(pair["chosen"], pair["adjudicated"]) for pair in given] == [("a", True), ("c", False), ("a", True)]
    assert all(pair["labeler"] and pair["ranking_id"] for pair in given)
    for file in ("jsonl", "parquet"):
        decided = records(snapshot, format="pairs", labels="adjudicated", file=file)
        assert [(pair["chosen"], pair["rejected"], pair["chosen_rank"]) for pair in decided] == [
            ("b", "a", 1), ("c", "d", 1)
        ]  # fmt: skip
        assert [(pair["labeler"] is None, pair["ranking_id"] is None) for pair in decided] == [
            (True, True), (False, False)
        ]  # fmt: skip


def test_a_tie_that_was_decided_is_one_though_a_labeler_had_picked(
    session: Session, garden: Project, add_ranking: AddRanking, decide: Decide
) -> None:
    slate = add_ranking((1, 2, 2, 2), texts=TEXTS, kind=SlateKind.CONVERSATION, is_pick=True).slate
    decide(slate, (1, 2, 2, 3))
    pairs = records(freeze(session, garden), format="pairs", labels="adjudicated", ties="keep")
    assert [(pair["chosen"], pair["rejected"], pair["tie"]) for pair in pairs] == [
        ("a", "b", False), ("a", "c", False), ("a", "d", False),
        ("b", "c", True), ("b", "d", False), ("c", "d", False),
    ]  # fmt: skip


def test_decisions_have_no_strength_so_pairs_with_them_have_no_margin(
    session: Session, garden: Project, add_ranking: AddRanking, decide: Decide
) -> None:
    slate = add_ranking((1, 2), kind=SlateKind.PAIR, strength=Strength.BETTER).slate
    decide(slate, (1, 2))
    snapshot = freeze(session, garden)
    assert "margin" in records(snapshot, format="pairs")[0]
    (decided,) = records(snapshot, format="pairs", labels="adjudicated")
    assert "margin" not in decided
    assert decided["strength"] is None


def test_what_is_decided_after_the_freeze_changes_nothing_of_the_snapshot(
    session: Session, garden: Project, add_ranking: AddRanking, decide: Decide
) -> None:
    slate = add_ranking((1, 2, 3, 4)).slate
    snapshot = freeze(session, garden)
    choices = [ExportChoice(), ExportChoice(format="pairs", labels="adjudicated")]
    before = [b"".join(export_chunks(snapshot, choice)) for choice in choices]
    decide(slate, (4, 3, 2, 1))
    assert [b"".join(export_chunks(snapshot, choice)) for choice in choices] == before
    later = freeze(session, garden, "June")
    assert [row.decision is None for row in ranking_rows(session, later.id)] == [False]
    assert b"".join(export_chunks(later, choices[1])) != before[1]


def test_an_import_says_that_it_keeps_no_decision(
    session: Session, garden: Project, add_ranking: AddRanking, decide: Decide
) -> None:
    decide(add_ranking((1, 2, 3, 4)).slate, (4, 3, 2, 1))
    exported = b"".join(export_chunks(freeze(session, garden), ExportChoice()))
    other = make_project(session, "other")
    imported = import_file(session, other, "rankings", io.BytesIO(exported), "kwise.jsonl", now=NOW)
    assert imported.report["counts"]["adjudication_not_kept"] == 1
    (row,) = ranking_rows(session, freeze(session, other).id)
    assert (row.ranks, row.decision) == ([1, 2, 3, 4], None)

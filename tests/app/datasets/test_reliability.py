"""How far labelers agree, as it is frozen with a snapshot, and what that makes their rankings weigh."""

from collections import defaultdict
from itertools import combinations
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.datasets import reliability
from app.datasets.errors import BadExport
from app.datasets.models import Snapshot, SnapshotLabeler, SnapshotSlate
from app.datasets.reliability import SharedRanking, Tally, compared, whole_slates
from app.labeling.models import SlateKind
from app.projects.models import Project
from tests.app.conftest import Person
from tests.app.datasets.conftest import AddRanking, days
from tests.app.datasets.test_exports import NOW, freeze, records


def labelers(session: Session, snapshot: Snapshot) -> dict[int, SnapshotLabeler]:
    """By how long their names are: pseudonyms of these tests tell it."""
    found = session.query(SnapshotLabeler).filter_by(snapshot_id=snapshot.id)
    return {int(labeler.pseudonym.split("-")[1]): labeler for labeler in found}


def rank_one_slate(add_ranking: AddRanking) -> None:
    """Three people on one slate, one of them the other way round; and one of them alone on another slate."""
    first = add_ranking((1, 2, 3, 4), labeler="a")
    add_ranking((1, 2, 3, 4), labeler="bb", slate=first.slate)
    add_ranking((4, 3, 2, 1), labeler="ccc", slate=first.slate)
    add_ranking((1, 2, 3, 4), labeler="a", prompt="And where?")


def test_agreement_reliability_and_weight_are_those_worked_out_by_hand(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    rank_one_slate(add_ranking)
    snapshot = freeze(session, garden)
    # Of the three pairings one agrees on everything and two on nothing.
    (slate,) = session.query(SnapshotSlate)
    assert slate.agreement == pytest.approx(1 / 3)
    of = labelers(session, snapshot)
    assert [(of[n].num_rankings, of[n].num_pairings, of[n].agreement) for n in (1, 2, 3)] == [
        (2, 2, 0.5), (1, 2, 0.5), (1, 2, 0.0)
    ]  # fmt: skip
    # Drawn to the mean of all six, 1/3, as if by ten more: (1 + 10/3) / 12 and (0 + 10/3) / 12, all below chance.
    assert of[1].reliability == pytest.approx(13 / 36)
    assert of[3].reliability == pytest.approx(10 / 36)
    assert {labeler.weight for labeler in of.values()} == {1.0}


def test_who_agrees_with_others_weighs_more_and_the_mean_over_rankings_is_one(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    for number in range(3):
        first = add_ranking((1, 2), kind=SlateKind.PAIR, prompt=f"Q{number}", labeler="a")
        add_ranking((1, 2), labeler="bb", slate=first.slate)
    first = add_ranking((1, 2, 3, 4), prompt="Q", labeler="a")
    add_ranking((1, 2, 4, 3), labeler="ccc", slate=first.slate)
    add_ranking((1, 2), kind=SlateKind.PAIR, prompt="R", labeler="dddd")
    snapshot = freeze(session, garden)
    of = labelers(session, snapshot)
    # Pairings: a 3 + 5/6 of 4, b 3 of 3, c 5/6 of 1; together 7 2/3 of 8. What exceeds chance is 2 r - 1.
    mean = (23 / 3) / 8
    r = {
        1: (23 / 6 + 10 * mean) / 14,
        2: (3 + 10 * mean) / 13,
        3: (5 / 6 + 10 * mean) / 11,
        4: mean,
    }
    assert {n: of[n].reliability for n in of} == pytest.approx(r)
    total = sum((2 * r[n] - 1) * num for n, num in ((1, 4), (2, 3), (3, 1), (4, 1))) / 9
    assert {n: of[n].weight for n in of} == pytest.approx({n: (2 * r[n] - 1) / total for n in r})
    weights = [row["weight"] for row in records(snapshot, weights="reliability")]
    assert sum(weights) / len(weights) == pytest.approx(1)
    assert {row["weight"] for row in records(snapshot)} == {1.0}


def test_ties_count_half_and_what_a_pick_left_uncompared_does_not_count(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    tied = add_ranking((1, 1), kind=SlateKind.PAIR, prompt="Tied?", labeler="a")
    add_ranking((1, 2), labeler="bb", slate=tied.slate)
    picked = add_ranking((1, 2, 2, 2), prompt="Picked?", labeler="a", is_pick=True)
    add_ranking((2, 1, 4, 3), labeler="bb", slate=picked.slate)
    freeze(session, garden)
    slates = {slate.slate_id: slate.agreement for slate in session.query(SnapshotSlate)}
    assert slates == pytest.approx({tied.slate_id: 0.5, picked.slate_id: 2 / 3})


def test_a_snapshot_keeps_what_was_known_when_it_was_frozen(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    first = add_ranking(labeler="a")
    snapshot = freeze(session, garden)
    add_ranking(labeler="bb", slate=first.slate, submitted_at=NOW + days(1))
    later = freeze(session, garden, "June")
    assert [row["agreement"] for row in records(snapshot)] == [None]
    assert [row["agreement"] for row in records(later)] == [1.0, 1.0]
    assert [row["reliability"] for row in records(snapshot)] == [None]
    assert {pair["agreement"] for pair in records(later, format="pairs")} == {1.0}


@pytest.mark.parametrize("table", ["snapshot_labeler", "snapshot_slate"])
def test_the_database_refuses_to_change_what_was_frozen(
    session: Session, garden: Project, add_ranking: AddRanking, table: str
) -> None:
    add_ranking(labeler="bb", slate=add_ranking(labeler="a").slate)
    freeze(session, garden)
    with pytest.raises(IntegrityError, match="append-only"):
        session.execute(text(f"DELETE FROM {table}"))


def test_what_was_compared_is_written_before_more_is_read(
    session: Session, garden: Project, add_ranking: AddRanking, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        first = add_ranking(prompt=f"Q{number}", labeler="a")
        add_ranking(labeler="bb", slate=first.slate)
    monkeypatch.setattr(reliability, "RANKINGS_AT_ONCE", 2)
    compare, written = reliability.pairs_of, []

    def watched(*given: Any) -> Any:
        written.append(session.scalar(select(func.count()).select_from(SnapshotSlate)))
        return compare(*given)

    monkeypatch.setattr(reliability, "pairs_of", watched)
    freeze(session, garden)
    assert written == [0, 1, 2]


def test_nobody_is_weighed_by_a_reliability_that_is_not_known(
    session: Session, garden: Project, add_ranking: AddRanking, researcher: Person
) -> None:
    first = add_ranking(labeler="a")
    alone = freeze(session, garden)
    add_ranking(labeler="bb", slate=first.slate)
    shared = freeze(session, garden, "June")
    with pytest.raises(BadExport, match="nobody's reliability is known"):
        records(alone, weights="reliability")
    assert len(records(shared, weights="reliability")) == 2
    offered = {
        snapshot.id: '<option value="reliability"'
        in researcher.get(f"/projects/garden/datasets/snapshots/{snapshot.id}/files").text
        for snapshot in (alone, shared)
    }
    assert offered == {alone.id: False, shared.id: True}


ranks = st.lists(st.integers(1, 3), min_size=3, max_size=3)


@given(slates=st.lists(st.lists(ranks, min_size=1, max_size=4), min_size=1, max_size=4), at_once=st.integers(1, 5))
def test_however_many_are_compared_at_once_each_pairing_counts_once(slates: Any, at_once: int) -> None:
    rankings = [
        SharedRanking(UUID(int=number), f"labeler-{place}", False, ranks)
        for number, slate in enumerate(slates)
        for place, ranks in enumerate(slate)
    ]
    of_slates: dict[UUID, Tally] = {}
    of_labelers: dict[str, Tally] = defaultdict(Tally)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reliability, "RANKINGS_AT_ONCE", at_once)
        for some in whole_slates(rankings):
            of_slates |= compared(some, of_labelers)
    for number, slate in enumerate(slates):
        shares = [alike(*two) for two in combinations(slate, 2)]
        found = of_slates.get(UUID(int=number), Tally())
        assert (found.num, found.agreement) == (len(shares), pytest.approx(sum(shares)))
    assert sum(tally.num for tally in of_labelers.values()) == 2 * sum(tally.num for tally in of_slates.values())


def alike(one: list[int], other: list[int]) -> float:
    """The share of comparisons that two rankings order alike, written out."""
    points = []
    for i, j in combinations(range(len(one)), 2):
        signs = [(ranks[i] > ranks[j]) - (ranks[i] < ranks[j]) for ranks in (one, other)]
        points.append(1 - abs(signs[0] - signs[1]) / 2)
    return sum(points) / len(points)

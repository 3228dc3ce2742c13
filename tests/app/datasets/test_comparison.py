"""Two snapshots side by side."""

import csv
import io
from typing import Any

import pytest
from psycopg.errors import ReadOnlySqlTransaction
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets import comparison
from app.datasets.comparison import Difference, compare, differing_csv
from app.datasets.filters import SnapshotFilter
from app.datasets.models import Snapshot
from app.datasets.snapshots import create_snapshot
from app.labeling.models import Ranking
from app.people.models import Labeler
from app.privacy.erasing import erase
from app.privacy.findings import subject_of_labeler
from app.privacy.models import Extent
from app.projects.models import Project
from app.quality.models import Adjudication
from tests.app.conftest import Person
from tests.app.datasets.conftest import NOW, AddRanking, days
from tests.app.loop import make_account

ROOT = "/projects/garden/datasets"


@pytest.fixture
def rankings(add_ranking: AddRanking) -> list[Ranking]:
    """Of five days, one a day."""
    return [add_ranking(prompt=f"Question {day}", submitted_at=NOW + days(day)) for day in range(5)]


@pytest.fixture
def two(session: Session, garden: Project, rankings: list[Ranking]) -> tuple[Snapshot, Snapshot]:
    """The first holds days 0 to 2, the second days 1 to 4; of day 2 a researcher decided between the freezes."""
    one = freeze(session, garden, "one", until=NOW + days(3))
    decided = rankings[2].slate
    ranks = {str(each.id): each.position + 1 for each in decided.completions}
    session.add(
        Adjudication(
            slate_id=decided.id, ranks=ranks, reason="So.", num_rankings=1, account_id=make_account(session).id
        )
    )
    session.flush()
    return one, freeze(session, garden, "other", since=NOW + days(1))


def freeze(session: Session, project: Project, name: str, **filter: Any) -> Snapshot:
    snapshot = create_snapshot(session, project, name=name, filter=SnapshotFilter(**filter), account=None, now=NOW)
    session.commit()
    return snapshot


def test_what_came_went_stayed_and_is_derived_otherwise(session: Session, two: tuple[Snapshot, Snapshot]) -> None:
    numbers = compare(session, *two).numbers
    assert (numbers.added, numbers.removed, numbers.common, numbers.changed) == (2, 1, 2, 1)
    back = compare(session, two[1], two[0]).numbers
    assert (back.added, back.removed, back.common, back.changed) == (1, 2, 2, 1)


def test_a_comparison_is_counted_again_after_an_erasure(
    session: Session, garden: Project, two: tuple[Snapshot, Snapshot], add_ranking: AddRanking
) -> None:
    """Of the other snapshot one ranking of Otto's and then one of Johanna's go, which came: it was redacted before."""
    for day, name in ((1.5, "Otto"), (1.6, "Johanna")):
        add_ranking(prompt=name, labeler=name, submitted_at=NOW + days(day))
    one, other = two[0], freeze(session, garden, "later", since=NOW + days(1))
    counted = []
    for gone in (None, "Otto", "Johanna"):
        if gone is not None:
            labeler = session.scalars(select(Labeler).where(Labeler.external_id == gone)).one()
            subject = subject_of_labeler(session, garden, labeler.id)
            by = make_account(session)
            erase(session, subject, Extent.LABELS, confirmation=subject.confirmation, by=by, now=NOW)
            session.commit()
            session.expire_all()
        counted.append(compare(session, one, other).numbers.added)
    assert counted == [4, 3, 2]


def test_what_is_downloaded_is_read_in_a_session_that_cannot_write(
    session: Session, two: tuple[Snapshot, Snapshot], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(comparison.WHERE, Difference.ADDED, "nextval('snapshot_id_seq') IS NULL")
    with pytest.raises(ReadOnlySqlTransaction):
        list(differing_csv(two[0].id, two[1].id, Difference.ADDED))


def test_the_page_shows_examples_of_each_side_and_what_was_chosen(
    researcher: Person, two: tuple[Snapshot, Snapshot]
) -> None:
    one, other = two
    page = researcher.get(f"{ROOT}/compare", params={"one": one.id, "other": other.id}).text
    added, _, rest = page.partition("The first that were removed")
    removed, _, changed = rest.partition("The first that are derived otherwise")
    assert "Question 3" in added
    assert "Question 4" in added
    assert "Question 0" in removed
    assert "Question 2" in changed
    assert "before 2026-05-07 12:00" in page
    assert "from 2026-05-05 12:00" in page


@pytest.mark.parametrize(("what", "wanted"), [("added", [3, 4]), ("removed", [0]), ("changed", [2])])
def test_all_that_differs_is_downloaded(
    researcher: Person, two: tuple[Snapshot, Snapshot], rankings: list[Ranking], what: str, wanted: list[int]
) -> None:
    one, other = two
    answer = researcher.get(f"{ROOT}/compare.csv", params={"one": one.id, "other": other.id, "what": what})
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["ranking_id"] for row in rows] == [str(rankings[day].id) for day in wanted]
    assert answer.headers["content-disposition"] == f'attachment; filename="garden-{one.id}-{other.id}-{what}.csv"'


def test_a_program_is_told_the_same(researcher: Person, two: tuple[Snapshot, Snapshot]) -> None:
    one, other = two
    told = researcher.get(f"/api/v1/projects/garden/snapshots/{one.id}/compared-with/{other.id}").json()
    assert [told[name] for name in ("added", "removed", "common", "changed")] == [2, 1, 2, 1]
    assert told["only_one_chose"] == ["before 2026-05-07 12:00"]


def test_without_two_snapshots_the_page_says_what_to_do(researcher: Person) -> None:
    assert "There are not two snapshots yet" in researcher.get(f"{ROOT}/compare").text


def test_snapshots_of_other_projects_are_not_found(researcher: Person, two: tuple[Snapshot, Snapshot]) -> None:
    for path in (f"{ROOT}/compare", f"{ROOT}/compare.csv"):
        assert researcher.get(path, params={"one": two[0].id, "other": 99}).status_code == 404

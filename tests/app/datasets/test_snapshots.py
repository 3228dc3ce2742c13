"""Snapshots: what a filter selects, that it never changes, and that nothing taken back slips in."""

import hashlib
import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app import db
from app.datasets.errors import BadFilter, NothingSelected, SnapshotNameTaken, SnapshotNotFound
from app.datasets.filters import SnapshotFilter
from app.datasets.kwise import kwise_line
from app.datasets.models import Snapshot, SnapshotRanking
from app.datasets.reading import ranking_rows
from app.datasets.snapshots import create_snapshot, find_snapshot
from app.labeling.models import Ranking, SlateKind, Strength
from app.people.models import Labeler
from app.projects.models import Project
from app.prompts.models import Split
from tests.app.datasets.conftest import NOW, AddRanking, days, make_project, splits_of


def freeze(session: Session, project: Project, name: str = "first", **filter: object) -> Snapshot:
    return create_snapshot(
        session, project, name=name, filter=SnapshotFilter.model_validate(filter), account=None, now=NOW
    )


def frozen(session: Session, snapshot: Snapshot) -> list[object]:
    return [row.ranking_id for row in ranking_rows(session, snapshot.id)]


def test_a_snapshot_holds_every_ranking_that_counts_in_order_of_submission(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    later = add_ranking((2, 1, 1, 3), submitted_at=NOW)
    earlier = add_ranking((1, 2), kind=SlateKind.IMPORTED, submitted_at=NOW - days(1))
    snapshot = freeze(session, garden)
    assert frozen(session, snapshot) == [earlier.id, later.id]
    assert (snapshot.num_rankings, snapshot.num_comparisons) == (2, 1 + 5)
    assert snapshot.counts["kind"] == {"imported": 1, "training": 1}
    assert snapshot.counts["k"] == {"2": 1, "4": 1}
    assert snapshot.counts["policy_version"] == {"1": 6}


def test_comparisons_are_counted_as_the_view_derives_them(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    add_ranking((2, 1, 1, 3))
    add_ranking((1, 1, 1, 1))
    assert freeze(session, garden).num_comparisons == session.scalar(text("SELECT count(*) FROM comparison")) == 5


def test_a_row_says_all_that_is_known(session: Session, garden: Project, add_ranking: AddRanking) -> None:
    ranking = add_ranking(
        (2, 1), kind=SlateKind.PAIR, strength=Strength.SLIGHTLY, qualities=(3, None), flags=(["Hallucination"], [])
    )
    (row,) = ranking_rows(session, freeze(session, garden).id)
    assert (row.ranking_id, row.slate_id) == (ranking.id, ranking.slate_id)
    assert (row.ranks, row.qualities, row.flags) == ([2, 1], [3, None], [["Hallucination"], []])
    assert (row.order_shown, row.margin, row.submitted_at) == ([1, 0], pytest.approx(1 / 3), NOW)
    assert [completion.text for completion in row.completions] == ["Completion 0", "Completion 1"]
    assert (row.completions[1].token_ids, row.completions[1].policy_number) == ([5, 1, 2], 1)
    assert row.pseudonym == session.scalars(select(Labeler.pseudonym)).one()


@pytest.mark.parametrize("kind", [SlateKind.GOLD, SlateKind.ONBOARDING])
def test_kinds_that_do_not_fit_a_reward_model_are_left_out_unless_asked_for(
    session: Session, garden: Project, add_ranking: AddRanking, kind: SlateKind
) -> None:
    training, other = add_ranking(), add_ranking(kind=kind)
    assert frozen(session, freeze(session, garden)) == [training.id]
    assert frozen(session, freeze(session, garden, "asked", kinds=[kind])) == [other.id]


def test_rankings_that_do_not_count_or_were_taken_back_are_left_out(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    kept = add_ranking()
    add_ranking(counted=False)
    add_ranking().retracted_at = NOW
    session.flush()
    assert frozen(session, freeze(session, garden)) == [kept.id]


def test_the_end_date_is_excluded_and_the_start_included(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    add_ranking(submitted_at=NOW - days(1))
    first = add_ranking(submitted_at=NOW)
    add_ranking(submitted_at=NOW + days(1))
    assert frozen(session, freeze(session, garden, since=NOW, until=NOW + days(1))) == [first.id]


def test_a_snapshot_can_take_one_split_policy_or_labeler(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    by_prompt = {f"Question {number}": add_ranking(prompt=f"Question {number}") for number in range(30)}
    brief = add_ranking(labeler="Bo", prompt="Question 0")
    tests = {prompt for prompt, split in splits_of(session).items() if split is Split.TEST}
    selected = set(frozen(session, freeze(session, garden, "test", splits=[Split.TEST])))
    assert selected - {brief.id} == {by_prompt[prompt].id for prompt in tests}
    assert 0 < len(tests) < 30
    pseudonym = session.scalars(select(Labeler.pseudonym).where(Labeler.external_id == "Bo")).one()
    assert frozen(session, freeze(session, garden, "bo", labelers=[pseudonym])) == [brief.id]
    assert freeze(session, garden, "policy 1", policy_versions=[1]).num_rankings == 31
    with pytest.raises(NothingSelected):
        freeze(session, garden, "policy 2", policy_versions=[2])


def test_another_projects_rankings_are_never_selected(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    kitchen = make_project(session, "kitchen")
    mine = add_ranking()
    add_ranking((1, 2), kind=SlateKind.IMPORTED, project=kitchen)
    snapshot = freeze(session, garden)
    assert frozen(session, snapshot) == [mine.id]
    with pytest.raises(SnapshotNotFound):
        find_snapshot(session, kitchen, snapshot.id)


def test_a_name_is_used_once_in_a_project(session: Session, garden: Project, add_ranking: AddRanking) -> None:
    add_ranking()
    freeze(session, garden, "paper")
    with pytest.raises(SnapshotNameTaken):
        freeze(session, garden, " paper ")
    assert freeze(session, garden, "paper 2").num_rankings == 1


@pytest.mark.parametrize(("name", "filter"), [(" ", {}), ("dates", {"since": NOW, "until": NOW})])
def test_a_choice_that_means_nothing_is_refused(
    session: Session, garden: Project, add_ranking: AddRanking, name: str, filter: dict[str, object]
) -> None:
    add_ranking()
    with pytest.raises(BadFilter):
        freeze(session, garden, name, **filter)


def test_an_empty_choice_leaves_no_snapshot(session: Session, garden: Project) -> None:
    with pytest.raises(NothingSelected), session.begin_nested():
        freeze(session, garden)
    session.commit()
    assert session.scalar(select(func.count(Snapshot.id))) == 0
    assert session.scalar(select(func.count(SnapshotRanking.ranking_id))) == 0


def test_a_snapshot_does_not_change_when_more_is_ranked(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    add_ranking()
    snapshot = freeze(session, garden)
    add_ranking()
    lines = b"".join(map(kwise_line, ranking_rows(session, snapshot.id)))
    assert hashlib.sha256(lines).hexdigest() == snapshot.sha256
    assert lines.count(b"\n") == 1


@pytest.mark.parametrize("table", ["snapshot", "snapshot_ranking"])
def test_the_database_refuses_to_change_a_snapshot(
    session: Session, garden: Project, add_ranking: AddRanking, table: str
) -> None:
    add_ranking()
    freeze(session, garden)
    session.commit()
    with pytest.raises(IntegrityError, match="append-only"):
        session.execute(text(f"DELETE FROM {table}"))


def test_a_ranking_in_a_snapshot_cannot_be_taken_back(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    ranking, other = add_ranking(), add_ranking(submitted_at=NOW + days(2))
    freeze(session, garden, until=NOW + days(1))
    other.retracted_at = NOW
    session.flush()
    ranking.retracted_at = NOW
    with pytest.raises(IntegrityError, match="in a snapshot"):
        session.flush()


@pytest.fixture
def other_session(engine: Engine) -> Iterator[Session]:
    with db.SessionFactory() as other:
        yield other


def wait_until_blocked(session: Session) -> None:
    """Return when another connection waits for a lock."""
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    while not session.scalar(waiting):
        session.rollback()


def test_a_snapshot_waits_for_a_retraction_that_is_under_way(
    session: Session, other_session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    kept, taken_back = add_ranking(), add_ranking()
    with db.SessionFactory() as retracting:
        retracting.get_one(Ranking, taken_back.id).retracted_at = NOW
        retracting.flush()
        selected: list[object] = []

        def work() -> None:
            with db.SessionFactory.begin() as freezing:
                project = freezing.get_one(Project, garden.id)
                selected.extend(frozen(freezing, freeze(freezing, project)))

        thread = threading.Thread(target=work)
        thread.start()
        wait_until_blocked(other_session)
        retracting.commit()
        thread.join()
    assert selected == [kept.id]


def test_a_retraction_waits_for_a_snapshot_and_is_refused(
    session: Session, other_session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    ranking = add_ranking()
    freeze(session, garden)
    refusals: list[str] = []

    def work() -> None:
        with db.SessionFactory() as retracting:
            retracting.get_one(Ranking, ranking.id).retracted_at = NOW
            try:
                retracting.commit()
            except IntegrityError as error:
                refusals.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    wait_until_blocked(other_session)
    session.commit()
    thread.join()
    assert "in a snapshot" in refusals[0]

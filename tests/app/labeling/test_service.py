"""Rankings: what is stored, what counts, what is refused, and what can be taken back."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from app import db
from app.datasets.models import Snapshot, SnapshotRanking
from app.labeling import queue, service
from app.labeling.models import (
    Draft,
    Lease,
    LeaseEnd,
    Ranking,
    RankingItem,
    Retraction,
    Slate,
    SlateKind,
    SlateState,
    Strength,
)
from app.labeling.service import dense
from app.people.owners import Owner
from app.projects.models import Project
from app.rounds.models import Round, RoundState
from tests.app.conftest import Person
from tests.app.datasets.test_snapshots import wait_until_blocked
from tests.app.labeling.conftest import Clock, MakeSlate, ids, in_order, num_counted, save, skip, submit, take

LEASE_DURATION = timedelta(seconds=1800)  # the project's default


def test_a_ranking_is_stored_with_everything_said_about_each_completion(
    labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    slate = make_slate()
    (lease,) = take(labeler, project)
    best, second, third, worst = ids(lease)
    response = submit(
        labeler,
        lease,
        {best: 1, second: 3, third: 3, worst: 9},
        qualities={best: 7},
        flags={worst: ["Hallucination"]},
        notes={worst: "it is four"},
        note="easy",
        active_s=12.5,
    )
    assert (response.status_code, response.json()["counted"]) == (201, True)
    ranking = session.scalars(select(Ranking)).one()
    assert (ranking.slate_id, ranking.slot, ranking.note, ranking.active_s) == (slate.id, 1, "easy", 12.5)
    said = {
        str(item.completion_id): (item.rank, item.quality, item.flags, item.note)
        for item in session.scalars(select(RankingItem))
    }
    assert said == {
        best: (1, 7, [], None),
        second: (2, None, [], None),
        third: (2, None, [], None),
        worst: (3, None, ["Hallucination"], "it is four"),
    }
    session.refresh(slate)
    assert slate.state is SlateState.DONE


def test_the_order_shown_is_stored_with_the_ranking_and_differs_between_labelers(
    labeler: Person, other_labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    slate = make_slate([f"Text {number}" for number in range(9)], overlap=2)
    shown = []
    for person in (labeler, other_labeler):
        (lease,) = take(person, project)
        submit(person, lease, dict.fromkeys(ids(lease), 1))
        shown.append(ids(lease))
    stored = [[str(key) for key in ranking.order_shown] for ranking in session.scalars(select(Ranking))]
    assert sorted(stored) == sorted(shown)
    as_sampled = [str(completion.id) for completion in slate.completions]
    # Nine texts have 362,880 orders; the sampled one twice in a row is no accident.
    assert not shown[0] == shown[1] == as_sampled


def test_a_retry_gets_the_first_receipt_and_stores_nothing(
    labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    make_slate()
    (lease,) = take(labeler, project)
    ranking_id = str(uuid4())
    first = submit(labeler, lease, ranking_id=ranking_id)
    again = submit(labeler, lease, dict.fromkeys(ids(lease), 1), ranking_id=ranking_id)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert session.scalar(select(func.count(Ranking.id))) == 1
    assert session.scalar(select(func.count(RankingItem.rank))) == 4


def test_a_second_tab_cannot_submit_over_the_first(
    labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    make_slate()
    (lease,) = take(labeler, project)
    submit(labeler, lease)
    refused = submit(labeler, lease)
    assert (refused.status_code, refused.json()["code"]) == (409, "already_ranked")
    assert session.scalar(select(func.count(Ranking.id))) == 1


def test_a_ranking_id_names_one_ranking_for_ever(labeler: Person, project: Project, make_slate: MakeSlate) -> None:
    make_slate()
    make_slate()
    ranking_id = str(uuid4())
    assert submit(labeler, take(labeler, project)[0], ranking_id=ranking_id).status_code == 201
    refused = submit(labeler, take(labeler, project)[0], ranking_id=ranking_id)
    assert (refused.status_code, refused.json()["code"]) == (409, "ranking_id_taken")


@pytest.mark.parametrize("role", ["other_labeler", "outsider", "admin"])
def test_only_the_labeler_who_holds_a_lease_can_use_it(
    role: str, labeler: Person, project: Project, make_slate: MakeSlate, request: pytest.FixtureRequest
) -> None:
    person: Person = request.getfixturevalue(role)
    make_slate()
    (lease,) = take(labeler, project)
    unknown = {**lease, "id": str(uuid4())}
    for target in (lease, unknown):  # the same answer: nobody can find out which ids exist
        answers = [
            submit(person, target),
            save(person, target, 0),
            person.post(f"/api/v1/leases/{target['id']}/renewal"),
            person.post(f"/api/v1/leases/{target['id']}/skip", json={"kind": "skip", "reason": "x"}),
        ]
        assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(404, "lease_not_found")] * 4
    assert submit(labeler, lease).status_code == 201


def test_an_incomplete_ranking_is_refused_and_the_complete_one_is_taken_afterwards(
    labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    make_slate()
    (lease,) = take(labeler, project)
    missing = dict(list(in_order(lease).items())[:3])
    foreign = in_order(lease) | {str(uuid4()): 1}
    for ranks in (missing, foreign, {}):
        refused = submit(labeler, lease, ranks)
        assert (refused.status_code, refused.json()["code"]) == (422, "incomplete_ranking")
    assert submit(labeler, lease, qualities={str(uuid4()): 3}).status_code == 422
    assert submit(labeler, lease, dict.fromkeys(ids(lease), 0)).json()["code"] == "invalid_request"
    assert session.scalar(select(func.count(Ranking.id))) == 0
    assert submit(labeler, lease).status_code == 201


@pytest.mark.parametrize(
    ("ranks", "strength", "status"),
    [
        ((1, 2), "significantly", 201),
        ((2, 1), "slightly", 201),
        ((1, 1), "negligibly", 201),
        ((1, 1), "better", 422),
        ((1, 2), "hugely", 422),
    ],
)
def test_the_strength_of_a_pair_must_fit_its_ranks(
    ranks: tuple[int, int],
    strength: str,
    status: int,
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    session: Session,
) -> None:
    make_slate(["Yes.", "No."], kind=SlateKind.PAIR)
    (lease,) = take(labeler, project)
    response = submit(labeler, lease, dict(zip(ids(lease), ranks, strict=True)), strength=strength)
    assert response.status_code == status
    if status == 201:
        assert session.scalars(select(Ranking.strength)).one() == Strength(strength)


def test_strength_is_refused_on_more_than_two_completions(
    labeler: Person, project: Project, make_slate: MakeSlate
) -> None:
    make_slate()
    (lease,) = take(labeler, project)
    assert submit(labeler, lease, strength="better").json()["code"] == "strength_does_not_fit"


def test_a_late_ranking_counts_while_its_slot_is_free(
    labeler: Person, project: Project, make_slate: MakeSlate, clock: Clock, session: Session
) -> None:
    slate = make_slate()
    (lease,) = take(labeler, project)
    clock.advance(LEASE_DURATION + timedelta(hours=3))
    assert submit(labeler, lease).json()["counted"] is True
    assert num_counted(session, slate) == 1


def test_a_slate_that_was_ranked_late_can_neither_be_skipped_nor_drafted_again(
    labeler: Person, project: Project, make_slate: MakeSlate, clock: Clock
) -> None:
    make_slate()
    (lease,) = take(labeler, project)
    clock.advance(LEASE_DURATION + timedelta(seconds=1))
    receipt = submit(labeler, lease)
    assert receipt.json()["counted"] is True
    assert skip(labeler, lease).json()["code"] == "lease_ended"
    assert save(labeler, lease, 0, note="late").json()["code"] == "lease_ended"
    back = labeler.post(f"/api/v1/rankings/{receipt.json()['id']}/retraction", json={"correct": False})
    assert back.status_code == 200
    assert len(take(labeler, project)) == 1  # it is theirs to rank again


def test_a_draft_on_its_way_does_not_outlive_the_submit(
    labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    make_slate()
    (lease,) = take(labeler, project)
    assert save(labeler, lease, 0, note="one").status_code == 200
    with db.SessionFactory() as submitting, ThreadPoolExecutor(1) as tab:
        assert labeler.account is not None
        judgement = service.Judgement({UUID(completion): rank for completion, rank in in_order(lease).items()})
        now = db.clock(submitting)
        service.submit_ranking(
            submitting, Owner(labeler.account.id, None), UUID(lease["id"]), uuid4(), judgement, now=now
        )
        saving = tab.submit(save, labeler, lease, 1, note="two")
        wait_until_blocked(session)
        submitting.commit()
        assert saving.result().json()["code"] == "lease_ended"
    assert session.scalar(select(func.count()).select_from(Draft)) == 0


def test_a_late_ranking_is_kept_but_does_not_count_when_the_slot_was_taken(
    labeler: Person,
    other_labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    clock: Clock,
    session: Session,
) -> None:
    slate = make_slate()
    (lease,) = take(labeler, project)
    clock.advance(LEASE_DURATION + timedelta(seconds=1))
    (taken,) = take(other_labeler, project)
    response = submit(labeler, lease)
    assert (response.status_code, response.json()["counted"]) == (201, False)
    assert submit(other_labeler, taken).json()["counted"] is True
    assert (num_counted(session, slate), session.scalar(select(func.count(Ranking.id)))) == (1, 2)


def test_a_person_counts_once_even_when_both_of_their_leases_on_a_slate_are_submitted(
    labeler: Person, other_labeler: Person, project: Project, make_slate: MakeSlate, clock: Clock, session: Session
) -> None:
    slate = make_slate(overlap=2)
    (first,) = take(labeler, project)
    clock.advance(LEASE_DURATION + timedelta(seconds=1))
    take(other_labeler, project)  # closes the first lease on the way
    (second,) = take(labeler, project)
    assert second["id"] != first["id"]
    assert submit(labeler, first).json()["counted"] is True
    assert submit(labeler, second).json()["counted"] is False
    assert num_counted(session, slate) == 1


def test_work_is_kept_after_project_and_labeler_are_paused(
    labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    make_slate()
    make_slate()
    (lease,) = take(labeler, project)
    session.execute(text("UPDATE project SET paused_at = now()"))
    session.commit()
    refused = labeler.post(f"/api/v1/projects/{project.slug}/leases", json={})
    assert (refused.status_code, refused.json()["code"]) == (409, "project_paused")
    session.execute(text("UPDATE project SET paused_at = NULL; UPDATE membership SET paused_at = now()"))
    session.commit()
    refused = labeler.post(f"/api/v1/projects/{project.slug}/leases", json={})
    assert (refused.status_code, refused.json()["code"]) == (403, "membership_paused")
    assert submit(labeler, lease).json()["counted"] is True


def test_a_ranking_of_a_slate_retired_meanwhile_is_kept(
    labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    slate = make_slate()
    (lease,) = take(labeler, project)
    session.execute(text("UPDATE slate SET state = 'retired', retired_at = now()"))
    session.commit()
    late = submit(labeler, lease)
    assert (late.status_code, late.json()["counted"]) == (201, True)
    session.refresh(slate)
    assert slate.state is SlateState.RETIRED


def test_a_slate_in_work_counts_after_the_policy_changed(
    labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    make_slate()
    (lease,) = take(labeler, project)
    unstarted = make_slate()
    queue.retire_unstarted(session, project)  # as a promotion does
    session.commit()
    assert submit(labeler, lease).json()["counted"] is True
    session.refresh(unstarted)
    assert unstarted.state is SlateState.RETIRED


@pytest.mark.parametrize("wrong", ["1970-01-01T00:00:00Z", "2999-12-31T23:59:59Z"])
def test_a_labelers_clock_that_is_wrong_changes_nothing_that_is_stored(
    labeler: Person, project: Project, make_slate: MakeSlate, session: Session, wrong: str
) -> None:
    make_slate()
    screens = labeler.post(f"/api/v1/projects/{project.slug}/leases/screens", json={"wanted": 1, "since": wrong})
    assert screens.status_code == 200
    before = db.clock(session)
    (lease,) = take(labeler, project)
    assert submit(labeler, lease, submitted_at=wrong).status_code == 422  # a time of the client's own has no place
    assert submit(labeler, lease).json()["counted"] is True
    stored = session.scalars(select(Ranking)).one()
    assert before < stored.submitted_at < db.clock(session)
    granted = session.scalars(select(Lease.granted_at)).one()
    assert stored.submitted_at - LEASE_DURATION < granted < stored.submitted_at


def test_words_that_postgres_cannot_hold_are_replaced_and_the_rest_is_kept(
    labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    make_slate()
    (lease,) = take(labeler, project)
    body = (
        '{"ranking_id": "%s", "ranks": {%s}, "note": "nul \\u0000 half \\ud83d whole \\ud83d\\ude00"}'  # noqa: UP031
        % (uuid4(), ", ".join(f'"{key}": {rank}' for key, rank in in_order(lease).items()))
    )
    response = labeler.post(
        f"/api/v1/leases/{lease['id']}/ranking", content=body, headers={"content-type": "application/json"}
    )
    assert response.status_code == 201, response.text
    assert session.scalars(select(Ranking.note)).one() == "nul \ufffd half \ufffd whole \U0001f600"


def test_taking_back_frees_the_slot_and_keeps_the_ranking_on_record(
    labeler: Person, other_labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    slate = make_slate()
    ranking_id = submit(labeler, take(labeler, project)[0]).json()["id"]
    assert take(other_labeler, project) == []
    for _ in range(2):  # a retry finds it done
        response = labeler.post(f"/api/v1/rankings/{ranking_id}/retraction", json={})
        assert (response.status_code, response.json()["lease_id"]) == (200, None)
    session.refresh(slate)
    assert (slate.state, num_counted(session, slate)) == (SlateState.READY, 0)
    assert session.scalar(select(func.count(Retraction.ranking_id))) == 1
    assert submit(other_labeler, take(other_labeler, project)[0]).json()["counted"] is True
    assert session.scalar(select(func.count(Ranking.id))) == 2


def test_taking_back_to_correct_brings_the_slate_back_as_it_was_submitted(
    labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    slate = make_slate()
    make_slate()
    (lease,) = take(labeler, project)
    best = ids(lease)[0]
    ranking_id = submit(
        labeler, lease, qualities={best: 6}, flags={best: ["Hallucination"]}, notes={best: "hm"}, active_s=4.0
    ).json()["id"]
    take(labeler, project, wanted=2)
    again = labeler.post(f"/api/v1/rankings/{ranking_id}/retraction", json={"correct": True}).json()["lease_id"]
    first = take(labeler, project, wanted=2)[0]
    assert first["id"] == again
    assert {completion["id"] for completion in first["completions"]} == set(ids(lease))
    draft = first["draft"]["content"]
    assert (draft["ranks"], draft["qualities"]) == (in_order(lease), {best: 6})
    assert (draft["flags"], draft["notes"], draft["active_s"]) == ({best: ["Hallucination"]}, {best: "hm"}, 4.0)
    assert submit(labeler, first, dict.fromkeys(ids(first), 1)).json()["counted"] is True
    assert num_counted(session, slate) == 1


def test_a_ranking_in_a_snapshot_cannot_be_taken_back(
    labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    slate = make_slate()
    ranking_id = submit(labeler, take(labeler, project)[0]).json()["id"]
    snapshot = Snapshot(
        project_id=project.id,
        name="frozen",
        filter={},
        num_rankings=1,
        num_comparisons=6,
        counts={},
        sha256="",
        exporter_version=1,
    )
    session.add(snapshot)
    session.flush()
    session.add(
        SnapshotRanking(snapshot_id=snapshot.id, position=0, ranking_id=UUID(ranking_id), pseudonym="labeler-1")
    )
    session.commit()
    refused = labeler.post(f"/api/v1/rankings/{ranking_id}/retraction", json={"correct": True})
    assert (refused.status_code, refused.json()["code"]) == (409, "ranking_in_use")
    assert num_counted(session, slate) == 1


def test_only_its_own_labeler_can_take_a_ranking_back(
    labeler: Person, other_labeler: Person, admin: Person, project: Project, make_slate: MakeSlate
) -> None:
    make_slate()
    ranking_id = submit(labeler, take(labeler, project)[0]).json()["id"]
    for person in (other_labeler, admin):
        refused = person.post(f"/api/v1/rankings/{ranking_id}/retraction", json={})
        assert (refused.status_code, refused.json()["code"]) == (404, "ranking_not_found")


def test_a_comparison_that_a_finished_round_used_cannot_be_taken_back(
    labeler: Person, project: Project, make_slate: MakeSlate, comparing_round: Round, session: Session
) -> None:
    make_slate(["Yes.", "No."], kind=SlateKind.EVALUATION, round_id=comparing_round.id)
    make_slate(["Yes!", "No!"], kind=SlateKind.EVALUATION, round_id=comparing_round.id)
    ranking_id = submit(labeler, take(labeler, project)[0]).json()["id"]
    comparing_round.state = RoundState.SUCCEEDED
    session.commit()
    refused = labeler.post(f"/api/v1/rankings/{ranking_id}/retraction", json={})
    assert (refused.status_code, refused.json()["code"]) == (409, "ranking_in_use")


def test_the_last_comparison_of_a_round_concludes_it(
    labeler: Person,
    project: Project,
    make_slate: MakeSlate,
    comparing_round: Round,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("app.labeling.service.conclude_if_compared", lambda session, id_, now: asked.append(id_))
    make_slate(["Yes.", "No."], kind=SlateKind.EVALUATION, round_id=comparing_round.id)
    make_slate()
    for _ in range(2):
        submit(labeler, take(labeler, project)[0])
    assert asked == [comparing_round.id]  # not for the training slate


def test_dense_ranks_have_no_gaps_and_keep_ties() -> None:
    a, b, c = uuid4(), uuid4(), uuid4()
    assert dense({a: 7, b: 2, c: 7}) == {b: 1, a: 2, c: 2}


def _end(session: Session) -> LeaseEnd | None:
    return session.scalars(select(Lease.end)).one()


def test_a_submit_closes_the_lease(
    labeler: Person, project: Project, make_slate: Callable[..., Slate], session: Session
) -> None:
    make_slate()
    (lease,) = take(labeler, project)
    assert _end(session) is None
    session.rollback()
    submit(labeler, lease)
    assert _end(session) is LeaseEnd.SUBMITTED

"""Leases: who gets which slate, when it comes back, and that exactly the asked number of rankings count."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, create_engine, func, select, text
from sqlalchemy.orm import Session, sessionmaker

from app.db import clock as database_clock
from app.labeling import leases, service
from app.labeling.models import Draft, Lease, LeaseEnd, Ranking, Slate, SlateKind, SlateState
from app.labeling.service import Judgement
from app.people.models import Account, Labeler, Membership, Role
from app.people.owners import Owner
from app.projects.models import Project
from app.rounds.models import Round, RoundState
from tests.app.conftest import Person, accept_guidelines
from tests.app.labeling.conftest import (
    Clock,
    MakeSlate,
    add_slate,
    ids,
    in_order,
    num_counted,
    save,
    skip,
    submit,
    take,
)

LEASE_DURATION = timedelta(seconds=1800)


def test_the_same_slate_in_the_same_order_comes_back_until_it_is_submitted(
    labeler: Person, project: Project, make_slate: MakeSlate
) -> None:
    make_slate()
    make_slate()
    (first,) = take(labeler, project)
    (again,) = take(labeler, project)
    assert (again["id"], ids(again)) == (first["id"], ids(first))
    submit(labeler, first)
    (next_one,) = take(labeler, project)
    assert next_one["id"] != first["id"]


def test_one_more_slate_can_be_fetched_ahead_and_comes_second(
    labeler: Person, project: Project, make_slate: MakeSlate
) -> None:
    for _ in range(3):
        make_slate()
    (first,) = take(labeler, project)
    ahead = [lease["id"] for lease in take(labeler, project, wanted=2)]
    assert (ahead[0], len(ahead)) == (first["id"], 2)
    assert [lease["id"] for lease in take(labeler, project, wanted=2)] == ahead
    assert labeler.post(f"/api/v1/projects/{project.slug}/leases", json={"wanted": 3}).status_code == 422


def test_slates_are_given_out_in_the_order_they_came(labeler: Person, project: Project, make_slate: MakeSlate) -> None:
    for number in range(3):
        make_slate(prompt=f"Prompt {number}")
    seen = []
    for _ in range(3):
        (lease,) = take(labeler, project)
        seen.append(lease["prompt"][0]["content"])
        submit(labeler, lease)
    assert seen == ["Prompt 0", "Prompt 1", "Prompt 2"]


def test_nothing_in_an_answer_tells_who_wrote_what(labeler: Person, project: Project, make_slate: MakeSlate) -> None:
    make_slate()
    (lease,) = take(labeler, project)
    assert lease.keys() == {"id", "expires_at", "prompt", "completions", "asks_full_form", "asks_safety", "draft"}
    for completion in lease["completions"]:
        assert completion.keys() == {"id", "text"}
        assert UUID(completion["id"]).version == 4  # random: no order of creation in it


def test_a_leased_slot_is_free_for_others_only_after_the_lease_has_expired(
    labeler: Person, other_labeler: Person, project: Project, make_slate: MakeSlate, clock: Clock, session: Session
) -> None:
    make_slate()
    take(labeler, project)
    clock.advance(LEASE_DURATION - timedelta(minutes=1))
    assert take(other_labeler, project) == []
    clock.advance(timedelta(minutes=2))
    assert len(take(other_labeler, project)) == 1
    assert session.scalars(select(Lease.end).order_by(Lease.granted_at)).all() == [LeaseEnd.EXPIRED, None]


def test_a_renewed_lease_does_not_expire(
    labeler: Person, other_labeler: Person, project: Project, make_slate: MakeSlate, clock: Clock
) -> None:
    make_slate()
    (lease,) = take(labeler, project)
    for _ in range(3):
        clock.advance(LEASE_DURATION - timedelta(minutes=1))
        renewed = labeler.post(f"/api/v1/leases/{lease['id']}/renewal")
        assert renewed.status_code == 200
        assert renewed.json()["expires_at"] > lease["expires_at"]
        assert take(other_labeler, project) == []


def test_a_lease_that_was_given_on_cannot_be_renewed(
    labeler: Person, other_labeler: Person, project: Project, make_slate: MakeSlate, clock: Clock
) -> None:
    make_slate()
    (lease,) = take(labeler, project)
    clock.advance(LEASE_DURATION + timedelta(minutes=1))
    take(other_labeler, project)
    refused = labeler.post(f"/api/v1/leases/{lease['id']}/renewal")
    assert (refused.status_code, refused.json()["code"], refused.json()["end"]) == (409, "lease_ended", "expired")


def test_an_expired_lease_that_nobody_took_is_simply_renewed(
    labeler: Person, project: Project, make_slate: MakeSlate, clock: Clock
) -> None:
    make_slate()
    (lease,) = take(labeler, project)
    clock.advance(LEASE_DURATION + timedelta(days=1))
    assert [held["id"] for held in take(labeler, project)] == [lease["id"]]


@pytest.mark.parametrize("kind", ["skip", "cannot_rank"])
def test_a_skipped_slate_goes_to_others_and_not_back(
    kind: str, labeler: Person, other_labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    slate = make_slate()
    (lease,) = take(labeler, project)
    save(labeler, lease, 0, note="hm")
    for _ in range(2):  # a retry finds it done
        assert skip(labeler, lease, kind, "I do not read French").status_code == 204
    stored = session.scalars(select(Lease)).one()
    assert (stored.end, stored.reason) == (leases.DECLINED[kind == "cannot_rank"], "I do not read French")
    assert take(labeler, project) == []
    (theirs,) = take(other_labeler, project)
    assert submit(other_labeler, theirs).json()["counted"] is True
    assert num_counted(session, slate) == 1


def test_a_skip_needs_a_reason(labeler: Person, project: Project, make_slate: MakeSlate) -> None:
    make_slate()
    (lease,) = take(labeler, project)
    assert skip(labeler, lease, reason="   ").status_code == 422
    assert skip(labeler, lease, reason=" long ").status_code == 204


def test_a_submitted_slate_cannot_be_skipped(labeler: Person, project: Project, make_slate: MakeSlate) -> None:
    make_slate()
    (lease,) = take(labeler, project)
    submit(labeler, lease)
    refused = skip(labeler, lease)
    assert (refused.status_code, refused.json()["code"]) == (409, "lease_ended")


def test_a_slate_that_everybody_skipped_leaves_the_queue(
    labeler: Person, other_labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    slate = make_slate()
    skip(labeler, take(labeler, project)[0])
    session.refresh(slate)
    assert slate.state is SlateState.READY
    skip(other_labeler, take(other_labeler, project)[0])
    session.refresh(slate)
    assert slate.state is SlateState.RETIRED


def test_a_labeler_ranks_a_slate_once_even_when_it_asks_for_more(
    labeler: Person, other_labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    slate = make_slate(overlap=2)
    submit(labeler, take(labeler, project)[0])
    assert take(labeler, project) == []
    submit(other_labeler, take(other_labeler, project)[0])
    session.refresh(slate)
    assert slate.state is SlateState.DONE


def test_unfinished_work_comes_back_first_after_its_lease_was_given_on(
    labeler: Person, other_labeler: Person, project: Project, make_slate: MakeSlate, clock: Clock
) -> None:
    make_slate(prompt="left")
    (left,) = take(labeler, project)
    save(labeler, left, 0, ranks={ids(left)[2]: 1})
    clock.advance(LEASE_DURATION + timedelta(seconds=1))
    (theirs,) = take(other_labeler, project)
    make_slate(prompt="newer")
    skip(other_labeler, theirs)
    (again,) = take(labeler, project)
    assert again["id"] != left["id"]
    assert again["draft"] == {"revision": 1, "content": {"ranks": {ids(left)[2]: 1}}}


def test_comparisons_are_mixed_in_while_a_round_waits_for_them_and_only_then(
    labeler: Person, project: Project, make_slate: MakeSlate, comparing_round: Round, session: Session
) -> None:
    for _ in range(24):
        make_slate()
        make_slate(["Yes.", "No."], kind=SlateKind.EVALUATION, round_id=comparing_round.id)
    sizes = []
    for _ in range(24):
        (lease,) = take(labeler, project)
        sizes.append(len(ids(lease)))
        submit(labeler, lease)
    assert set(sizes) == {2, 4}  # all alike once in 8 million runs
    comparing_round.state = RoundState.CANCELLED
    session.commit()
    while found := take(labeler, project):
        assert len(ids(found[0])) == 4
        submit(labeler, found[0])


@pytest.mark.parametrize("kind", [SlateKind.IMPORTED, SlateKind.CONVERSATION])
def test_other_kinds_are_not_given_out(
    kind: SlateKind, labeler: Person, project: Project, make_slate: MakeSlate
) -> None:
    make_slate(kind=kind)
    assert take(labeler, project) == []


def test_who_is_no_member_gets_no_slate(
    outsider: Person, visitor: Person, project: Project, make_slate: MakeSlate
) -> None:
    make_slate()
    for person, status in ((outsider, 404), (visitor, 401)):
        assert person.post(f"/api/v1/projects/{project.slug}/leases", json={}).status_code == status


def test_an_empty_queue_says_when_to_ask_again(labeler: Person, project: Project) -> None:
    response = labeler.post(f"/api/v1/projects/{project.slug}/leases", json={})
    assert response.json() == {"leases": [], "retry_after_s": 2}


# Drafts


def test_a_draft_is_stored_under_a_revision_and_comes_back_with_the_slate(
    labeler: Person, project: Project, make_slate: MakeSlate
) -> None:
    make_slate()
    (lease,) = take(labeler, project)
    best, second, *_ = ids(lease)
    assert save(labeler, lease, 0, ranks={best: 1}).json() == {"revision": 1}
    content = {"ranks": {best: 2, second: 1}, "qualities": {best: 3}, "note": "unsure", "active_s": 7.5}
    assert save(labeler, lease, 1, **content).json() == {"revision": 2}
    assert take(labeler, project)[0]["draft"] == {"revision": 2, "content": content}


def test_a_stale_tab_cannot_overwrite_a_newer_draft_and_is_given_it(
    labeler: Person, project: Project, make_slate: MakeSlate
) -> None:
    make_slate()
    (lease,) = take(labeler, project)
    save(labeler, lease, 0, note="first tab")
    stale = save(labeler, lease, 0, note="second tab")
    assert (stale.status_code, stale.json()["code"]) == (409, "stale_draft")
    assert stale.json()["draft"] == {"revision": 1, "content": {"note": "first tab"}}
    assert save(labeler, lease, 7, note="from nowhere").status_code == 409
    assert save(labeler, lease, 1, note="second tab, knowing").json() == {"revision": 2}


def test_a_save_whose_answer_was_lost_can_be_repeated(labeler: Person, project: Project, make_slate: MakeSlate) -> None:
    make_slate()
    (lease,) = take(labeler, project)
    assert save(labeler, lease, 0, note="hm").json() == {"revision": 1}
    assert save(labeler, lease, 0, note="hm").json() == {"revision": 1}


def test_a_draft_cannot_be_saved_over_a_submission_or_a_skip(
    labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    make_slate()
    make_slate()
    (submitted,) = take(labeler, project)
    save(labeler, submitted, 0, note="hm")
    submit(labeler, submitted)
    (skipped,) = take(labeler, project)
    skip(labeler, skipped)
    for lease in (submitted, skipped):
        for revision in (0, 1):
            refused = save(labeler, lease, revision, note="too late")
            assert (refused.status_code, refused.json()["code"]) == (409, "lease_ended")
    assert session.scalar(select(func.count()).select_from(Draft)) == 0


def test_a_draft_may_lack_anything_and_what_another_version_of_the_page_says_more_is_dropped(
    labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    make_slate()
    (lease,) = take(labeler, project)
    assert save(labeler, lease, 0).status_code == 200
    assert save(labeler, lease, 1, stars={ids(lease)[0]: 5}, note="kept").status_code == 200
    assert session.scalars(select(Draft.content)).one() == {"note": "kept"}
    assert save(labeler, lease, 2, qualities={ids(lease)[0]: 8}).status_code == 422


# Many at once


@pytest.fixture
def many_connections(database_url: str) -> Iterator[Engine]:
    """As many real connections as clients, beside the one pool that tests share."""
    engine = create_engine(database_url, pool_size=60, max_overflow=0)
    yield engine
    engine.dispose()


def _members(session: Session, project: Project, num: int) -> list[tuple[int, int]]:
    accounts = [Account(email=f"client{number}@example.org", name=f"Client {number}") for number in range(num)]
    session.add_all(accounts)
    session.flush()
    session.add_all(Membership(account_id=a.id, project_id=project.id, role=Role.LABELER) for a in accounts)
    for account in accounts:
        accept_guidelines(session, account)
    labelers = [Labeler(project_id=project.id, account_id=a.id, pseudonym=f"client-{a.id}") for a in accounts]
    session.add_all(labelers)
    session.commit()
    return [(account.id, labeler.id) for account, labeler in zip(accounts, labelers, strict=True)]


def test_fifty_clients_at_once_give_every_slate_exactly_its_rankings_from_different_labelers(
    many_connections: Engine, session: Session, project: Project
) -> None:
    num_clients, overlaps = 52, [1, 2, 3, 5] * 6
    slates = [add_slate(session, project, overlap=overlap) for overlap in overlaps]
    wanted = {slate.id: slate.overlap for slate in slates}
    everyone = _members(session, project, num_clients)
    sessions = sessionmaker(many_connections, expire_on_commit=False)
    start, broken = threading.Barrier(num_clients), threading.Event()
    project_id = project.id

    def client(who: tuple[int, int]) -> int:
        try:
            return rank_until_nothing_is_left(*who)
        except Exception:
            broken.set()  # what this client holds never comes back: the others must not wait for it
            raise

    def rank_until_nothing_is_left(account_id: int, labeler_id: int) -> int:
        rng = Random(labeler_id)
        num_submitted = 0
        start.wait(60)
        while not broken.is_set():
            with sessions.begin() as mine:
                labeler = mine.get_one(Labeler, labeler_id)
                held = leases.take_leases(
                    mine,
                    labeler,
                    mine.get_one(Project, project_id),
                    wanted=1 + rng.randrange(2),
                    now=database_clock(mine),
                    rng=rng,
                )
                if not held:
                    has_ready = select(Slate.id).where(Slate.state == SlateState.READY).limit(1)
                    if mine.scalar(has_ready) is None:
                        return num_submitted
                orders = {lease_id: mine.get_one(Lease, lease_id).order_shown for lease_id in held}
            for lease_id, order in orders.items():
                with sessions.begin() as mine:
                    now = database_clock(mine)
                    if rng.random() < 0.1:
                        expired = text("UPDATE lease SET expires_at = :now WHERE id = :id")
                        mine.execute(expired.bindparams(now=now, id=lease_id))
                        continue  # gone for lunch: comes back late, or never
                    judgement = Judgement(ranks={key: rank for rank, key in enumerate(order, start=1)})
                    service.submit_ranking(mine, Owner(account_id, None), lease_id, uuid4(), judgement, now=now)
                    num_submitted += 1
        return num_submitted

    with ThreadPoolExecutor(num_clients) as clients:
        num_submitted = sum(clients.map(client, everyone))

    rankings = session.execute(select(Ranking.slate_id, Ranking.labeler_id, Ranking.counted)).all()
    assert len(rankings) == num_submitted
    counted = [(slate_id, labeler_id) for slate_id, labeler_id, is_counted in rankings if is_counted]
    assert Counter(slate_id for slate_id, _ in counted) == wanted
    assert len(set(counted)) == len(counted)
    states = session.scalars(select(Slate.state).execution_options(populate_existing=True)).all()
    assert set(states) == {SlateState.DONE}


def test_retries_of_one_submit_at_the_same_moment_store_one_ranking(
    many_connections: Engine, session: Session, project: Project, labeler: Person
) -> None:
    add_slate(session, project)
    (lease,) = take(labeler, project)
    assert labeler.account is not None
    account_id, ranking_id = labeler.account.id, uuid4()
    judgement = Judgement(ranks={UUID(key): rank for key, rank in in_order(lease).items()})
    sessions = sessionmaker(many_connections, expire_on_commit=False)
    start = threading.Barrier(8)

    def send(_: int) -> bool:
        start.wait(60)
        with sessions.begin() as mine:
            receipt = service.submit_ranking(
                mine, Owner(account_id, None), UUID(lease["id"]), ranking_id, judgement, now=database_clock(mine)
            )
            return receipt.is_retry

    with ThreadPoolExecutor(8) as clients:
        retries = list(clients.map(send, range(8)))
    assert sorted(retries) == [False] + [True] * 7
    assert session.scalar(select(func.count(Ranking.id))) == 1


def test_tabs_of_one_labeler_that_open_at_once_hold_no_more_than_was_asked(
    many_connections: Engine, session: Session, project: Project
) -> None:
    for _ in range(8):
        add_slate(session, project, overlap=2)
    ((_, labeler_id),) = _members(session, project, 1)
    sessions = sessionmaker(many_connections, expire_on_commit=False)
    start = threading.Barrier(6)
    project_id = project.id

    def open_tab(number: int) -> set[Any]:
        start.wait(60)
        with sessions.begin() as mine:
            held = leases.take_leases(
                mine,
                mine.get_one(Labeler, labeler_id),
                mine.get_one(Project, project_id),
                wanted=2,
                now=database_clock(mine),
                rng=Random(number),
            )
            return set(held)

    with ThreadPoolExecutor(6) as tabs:
        held = list(tabs.map(open_tab, range(6)))
    assert all(tab == held[0] for tab in held)
    assert len(held[0]) == 2


def test_a_slate_that_comes_back_is_shown_in_the_same_order(
    labeler: Person, other_labeler: Person, project: Project, make_slate: MakeSlate, clock: Clock
) -> None:
    make_slate([f"Completion {number}." for number in range(9)])  # one in 362,880 by chance
    (first,) = take(labeler, project)
    save(labeler, first, 0, note="to be gone on with")
    clock.advance(timedelta(seconds=project.lease_duration_s + 1))
    (between,) = take(other_labeler, project)
    assert ids(between) != ids(first)
    clock.advance(timedelta(seconds=project.lease_duration_s + 1))
    (again,) = take(labeler, project)
    assert again["id"] != first["id"]
    assert ids(again) == ids(first)

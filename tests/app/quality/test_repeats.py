# ruff: noqa: F811 - fixtures are found by name
"""Repeats: a labeler silently gets a slate again that they ranked long ago, and nobody else does."""

from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.labeling.models import FITTING_KINDS, Slate, SlateKind, SlateState
from app.projects.models import Project
from tests.app.conftest import Person
from tests.app.labeling.conftest import (  # noqa: F401
    Clock,
    Lease,
    MakeSlate,
    clock,
    ids,
    make_slate,
    num_counted,
    save,
    skip,
    submit,
    take,
)
from tests.app.quality.known import expire_leases

DAYS = 14
LONG_AGO = timedelta(days=DAYS, seconds=1)
TEXTS = ("Four.", "It is four.", "Five?", "I do not know.")


@pytest.fixture
def project(project: Project, session: Session) -> Project:
    """Every slate given out is a repeat where one is due."""
    project.gold_share, project.repeat_share, project.repeat_after_days = 0.0, 1.0, DAYS
    session.commit()
    return project


@pytest.fixture
def ranked(labeler: Person, project: Project, make_slate: MakeSlate, clock: Clock) -> Slate:
    """A slate that the labeler has ranked just now."""
    slate = make_slate(TEXTS)
    (lease,) = take(labeler, project)
    submit(labeler, lease)
    return slate


def texts(lease: Lease) -> set[str]:
    return {completion["text"] for completion in lease["completions"]}


def test_a_slate_ranked_long_ago_comes_again_as_a_copy_that_counts_for_itself(
    labeler: Person, project: Project, ranked: Slate, clock: Clock, session: Session
) -> None:
    clock.advance(LONG_AGO)
    (lease,) = take(labeler, project)
    assert texts(lease) == set(TEXTS)
    assert not set(ids(lease)) & {str(completion.id) for completion in ranked.completions}
    assert submit(labeler, lease).json()["counted"] is True
    repeat = session.scalars(select(Slate).where(Slate.kind == SlateKind.REPEAT)).one()
    assert (repeat.repeats_id, repeat.state, num_counted(session, ranked)) == (ranked.id, SlateState.DONE, 1)
    assert repeat.kind not in FITTING_KINDS


def test_a_slate_ranked_lately_does_not_come_again(
    labeler: Person, project: Project, ranked: Slate, clock: Clock
) -> None:
    clock.advance(LONG_AGO - timedelta(minutes=1))
    assert take(labeler, project) == []


def test_a_slate_is_repeated_once(labeler: Person, project: Project, ranked: Slate, clock: Clock) -> None:
    clock.advance(LONG_AGO)
    (lease,) = take(labeler, project)
    submit(labeler, lease)
    clock.advance(LONG_AGO)
    assert take(labeler, project) == []


def test_a_repeat_is_for_the_one_who_ranked_it_even_after_its_lease_expired(
    labeler: Person, other_labeler: Person, project: Project, ranked: Slate, clock: Clock, session: Session
) -> None:
    clock.advance(LONG_AGO)
    (lease,) = take(labeler, project)
    clock.advance(timedelta(seconds=project.lease_duration_s + 1))
    expire_leases(session)
    assert take(other_labeler, project) == []
    (again,) = take(labeler, project)
    assert set(ids(again)) == set(ids(lease))


def test_begun_work_on_a_repeat_comes_back_whatever_is_drawn(
    labeler: Person, project: Project, ranked: Slate, clock: Clock, session: Session, make_slate: MakeSlate
) -> None:
    clock.advance(LONG_AGO)
    (lease,) = take(labeler, project)
    save(labeler, lease, 0, note="half done")
    clock.advance(timedelta(seconds=project.lease_duration_s + 1))
    expire_leases(session)
    project.repeat_share = 0.0
    session.commit()
    make_slate(TEXTS)
    (again,) = take(labeler, project)
    assert set(ids(again)) == set(ids(lease))


def test_a_skipped_repeat_is_gone(
    labeler: Person, project: Project, ranked: Slate, clock: Clock, session: Session
) -> None:
    clock.advance(LONG_AGO)
    (lease,) = take(labeler, project)
    skip(labeler, lease)
    assert take(labeler, project) == []
    repeat = session.scalars(select(Slate).where(Slate.kind == SlateKind.REPEAT)).one()
    assert repeat.state is SlateState.RETIRED


def test_what_was_taken_back_is_not_repeated(
    labeler: Person, project: Project, make_slate: MakeSlate, clock: Clock, session: Session
) -> None:
    slate = make_slate(TEXTS)
    (lease,) = take(labeler, project)
    receipt = submit(labeler, lease).json()
    labeler.post(f"/api/v1/rankings/{receipt['id']}/retraction", json={"correct": False})
    session.refresh(slate)
    slate.state = SlateState.RETIRED
    session.commit()
    clock.advance(LONG_AGO)
    assert take(labeler, project) == []


def test_without_a_share_nothing_is_repeated(
    labeler: Person, project: Project, ranked: Slate, clock: Clock, session: Session
) -> None:
    project.repeat_share = 0.0
    session.commit()
    clock.advance(LONG_AGO)
    assert take(labeler, project) == []


def test_a_repeat_comes_before_other_slates_where_the_share_says_so(
    labeler: Person, project: Project, ranked: Slate, clock: Clock, make_slate: MakeSlate
) -> None:
    make_slate(("A.", "B.", "C.", "D."))
    clock.advance(LONG_AGO)
    (lease,) = take(labeler, project)
    assert texts(lease) == set(TEXTS)


def test_the_slate_ranked_first_is_repeated_first_and_one_at_a_time(
    labeler: Person, project: Project, ranked: Slate, clock: Clock, make_slate: MakeSlate
) -> None:
    later = ("A.", "B.", "C.", "D.")
    clock.advance(timedelta(minutes=1))
    make_slate(later)
    (lease,) = take(labeler, project)
    assert submit(labeler, lease).status_code == 201
    clock.advance(LONG_AGO)
    (first,) = take(labeler, project, wanted=2)
    assert texts(first) == set(TEXTS)
    assert submit(labeler, first).status_code == 201
    (second,) = take(labeler, project, wanted=2)
    assert texts(second) == set(later)


def test_everyone_who_ranked_a_slate_gets_a_repeat_of_their_own(
    labeler: Person, other_labeler: Person, project: Project, make_slate: MakeSlate, clock: Clock, session: Session
) -> None:
    slate = make_slate(TEXTS, overlap=2)
    for person in (labeler, other_labeler):
        (lease,) = take(person, project)
        assert submit(person, lease).status_code == 201
    clock.advance(LONG_AGO)
    for person in (labeler, other_labeler):
        (lease,) = take(person, project)
        assert submit(person, lease).status_code == 201
    repeats = session.scalars(select(Slate).where(Slate.kind == SlateKind.REPEAT)).all()
    assert [repeat.repeats_id for repeat in repeats] == [slate.id, slate.id]
    assert len({repeat.for_labeler_id for repeat in repeats}) == 2


def test_two_completions_are_repeated_too(
    labeler: Person, project: Project, make_slate: MakeSlate, clock: Clock
) -> None:
    make_slate(("Yes.", "No."), kind=SlateKind.PAIR)
    (lease,) = take(labeler, project)
    assert submit(labeler, lease, strength="better").status_code == 201
    clock.advance(LONG_AGO)
    (again,) = take(labeler, project)
    assert texts(again) == {"Yes.", "No."}


def test_a_ranking_that_came_too_late_to_count_is_not_repeated(
    labeler: Person, other_labeler: Person, project: Project, make_slate: MakeSlate, clock: Clock
) -> None:
    make_slate(TEXTS)
    (late,) = take(labeler, project)
    clock.advance(timedelta(seconds=project.lease_duration_s + 1))
    (lease,) = take(other_labeler, project)
    assert submit(other_labeler, lease).json()["counted"] is True
    assert submit(labeler, late).json()["counted"] is False
    clock.advance(LONG_AGO)
    assert take(labeler, project) == []
    assert len(take(other_labeler, project)) == 1

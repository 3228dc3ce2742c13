"""Warn, pause, review: in this order, with a reason that the labeler reads, and on record for ever."""

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from app.db import clock
from app.people.models import AuditEvent, Membership, Role
from app.projects.models import Project
from app.quality.models import QualityAction, Step
from app.quality.standing import find_person
from tests.app.conftest import Person
from tests.app.loop import make_labeler
from tests.app.quality.crowd import judge, labeler_of, new_slate

MINE = "/projects/everyday/mine"
WARN = {"step": "warn", "reason": "Please read to the end."}
PAUSE = {"step": "pause", "reason": "Let us talk."}
RESUME = {"step": "review", "reason": "We talked.", "lets_work": True}


@pytest.fixture
def lena(session, project, labeler: Person):
    found = labeler_of(session, project, labeler)
    session.commit()
    return found


@pytest.fixture
def step(lena):
    """Takes a step about Lena over the API: `step(admin, WARN)`."""
    return lambda person, form: person.post(f"/api/v1/projects/everyday/quality/people/{lena.id}/steps", json=form)


def is_given_slates(person: Person) -> bool:
    return person.post("/api/v1/projects/everyday/leases", json={"wanted": 1}).json().get("code") != "membership_paused"


def test_a_warning_is_read_by_the_labeler_and_stops_nothing(admin, labeler, other_labeler, lena, step):
    assert step(admin, WARN).status_code == 201
    assert "Please read to the end." in labeler.get(MINE).text
    assert "Please read to the end." not in other_labeler.get(MINE).text
    assert is_given_slates(labeler)


def test_a_pause_follows_a_warning_and_a_review_ends_it(admin, labeler, lena, step):
    refused = step(admin, PAUSE)
    assert (refused.status_code, refused.json()["code"]) == (409, "step_not_possible")
    assert is_given_slates(labeler)
    assert step(admin, RESUME).status_code == 409
    assert [step(admin, form).status_code for form in (WARN, PAUSE)] == [201, 201]
    assert not is_given_slates(labeler)
    assert "Let us talk." in labeler.get(MINE).text  # who is paused can still read why
    assert step(admin, WARN).status_code == 409
    assert step(admin, RESUME).status_code == 201
    assert is_given_slates(labeler)
    assert step(admin, PAUSE).status_code == 409  # what went before is settled: a new warning comes first


def test_a_review_may_leave_the_pause_as_it_is(admin, labeler, lena, step):
    for form in (WARN, PAUSE, {**RESUME, "lets_work": False}):
        assert step(admin, form).status_code == 201
    assert not is_given_slates(labeler)
    assert step(admin, RESUME).status_code == 201
    assert is_given_slates(labeler)


def test_somebody_paused_on_the_people_page_can_be_reviewed(admin, labeler, lena, step):
    admin.patch(f"/api/v1/projects/everyday/members/{labeler.account.id}", json={"is_paused": True})
    assert step(admin, RESUME).status_code == 201
    assert is_given_slates(labeler)


@pytest.mark.parametrize("reason", ["", "   ", "x" * 2001])
def test_a_step_needs_a_reason(reason, admin, lena, step, session):
    assert step(admin, {"step": "warn", "reason": reason}).status_code == 422
    assert session.scalars(select(QualityAction)).all() == []


@pytest.mark.parametrize(
    ("role", "status"), [("labeler", 403), ("researcher", 403), ("outsider", 404), ("visitor", 401)]
)
def test_only_an_admin_takes_steps(role, status, lena, step, request, session):
    assert step(request.getfixturevalue(role), WARN).status_code == status
    assert session.scalars(select(QualityAction)).all() == []


def test_every_step_is_audited_with_who_and_why(admin, lena, step, session):
    for form in (WARN, PAUSE, RESUME):
        step(admin, form)
    events = session.scalars(
        select(AuditEvent).where(AuditEvent.action.like("quality.%")).order_by(AuditEvent.id)
    ).all()
    assert [event.action for event in events] == ["quality.warn", "quality.pause", "quality.review"]
    assert {(event.account_id, event.subject) for event in events} == {(admin.account.id, f"labeler:{lena.id}")}
    assert events[0].detail == {"reason": "Please read to the end."}


def test_a_step_is_never_changed_or_deleted(admin, lena, step, session):
    step(admin, WARN)
    for statement in ("DELETE FROM quality_action", "UPDATE quality_action SET reason = 'x'"):
        with pytest.raises(IntegrityError, match="append-only"):
            session.execute(text(statement))
        session.rollback()


def test_annotators_of_a_file_have_figures_and_no_steps(admin, session, project):
    imported = make_labeler(session, project, "annotator 7")
    judge(session, new_slate(session, project), imported, [1, 2, 3, 4])
    session.commit()
    page = admin.get(f"/projects/everyday/quality/people/{imported.id}").text
    assert "there is nobody to write to" in page
    refused = admin.post(f"/api/v1/projects/everyday/quality/people/{imported.id}/steps", json=WARN)
    assert refused.json()["code"] == "step_not_possible"


def test_the_page_offers_what_may_come_next_and_keeps_what_was_typed(admin, researcher, lena, session):
    address = f"/projects/everyday/quality/people/{lena.id}"
    page = admin.get(address).text
    assert 'value="warn"' in page
    assert 'value="pause"' not in page
    assert 'value="warn"' not in researcher.get(address).text
    refused = admin.post(address, data={"step": "warn", "reason": " "})
    assert (refused.status_code, "Write the reason" in refused.text) == (422, True)
    assert admin.post(address, data=WARN).status_code == 303
    assert 'value="pause"' in admin.get(address).text
    assert session.scalars(select(QualityAction.step)).one() is Step.WARN


def test_the_last_step_is_the_newest_one(session, project, admin, lena, step):
    for form in (WARN, PAUSE):
        assert step(admin, form).status_code == 201
    session.rollback()
    assert find_person(session, project, lena.id).last_step is Step.PAUSE


def test_a_pause_in_another_project_is_none_here(session, project, labeler, lena, admin):
    other = Project(slug="elsewhere", name="Elsewhere", flags=[])
    session.add(other)
    session.flush()
    there = Membership(account_id=labeler.account.id, project_id=other.id, role=Role.RESEARCHER)
    there.paused_at = clock(session)
    session.add(there)
    session.commit()
    found = find_person(session, project, lena.id)
    assert (found.role, found.is_paused) == (Role.LABELER, False)


def test_a_name_is_for_those_who_may_read_it(session, project, lena):
    found = find_person(session, project, lena.id)
    assert found.called(by_name=True) == "Lena Labeler"
    assert found.called(by_name=False) == lena.pseudonym

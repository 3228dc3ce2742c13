# ruff: noqa: F811 - fixtures are found by name
"""Guidelines: nobody ranks before they accepted the newest version that asks for it."""

import pytest
from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.people.models import AuditEvent, Membership, Role
from app.projects.models import DEFAULT_FLAGS, Guidelines, Project
from app.quality.entry_models import GuidelinesAcceptance
from tests.app.conftest import Person
from tests.app.labeling.conftest import MakeSlate, make_slate, submit, take  # noqa: F401

PAGE, API = "/projects/everyday/guidelines", "/api/v1/projects/everyday/guidelines"
LEASES = "/api/v1/projects/everyday/leases"


@pytest.fixture
def newcomer(site_admin: Person, make_slate: MakeSlate, project: Project) -> Person:
    """Whoever set the installation up: they have accepted nothing yet. A slate waits for them."""
    make_slate()
    return site_admin


def revise(admin: Person, markdown: str, *, needs_acceptance: bool = True) -> None:
    form = {"markdown": markdown, "needs_acceptance": "true"} if needs_acceptance else {"markdown": markdown}
    assert admin.post(f"{PAGE}/edit", data=form).status_code == 303


def test_a_program_is_told_to_accept_before_the_first_slate_and_gets_one_after_it(newcomer: Person) -> None:
    refused = newcomer.post(LEASES, json={"wanted": 1})
    assert (refused.status_code, refused.json()["code"]) == (403, "guidelines_not_accepted")
    shown = newcomer.get(API).json()
    assert (shown["version"], shown["must_accept"]) == (1, True)
    assert newcomer.post(f"{API}/1/acceptance").json() == {"version": 1}
    assert newcomer.get(API).json()["must_accept"] is False
    assert len(newcomer.post(LEASES, json={"wanted": 1}).json()["leases"]) == 1


def test_a_person_is_one_click_away_from_the_first_slate(newcomer: Person) -> None:
    led = newcomer.get("/projects/everyday/rank")
    assert (led.status_code, led.headers["location"]) == (303, PAGE)
    page = newcomer.get(PAGE).text
    assert "Helpful and honest." in page
    assert page.count(f'action="{PAGE}/1/acceptance"') == 1
    went_on = newcomer.post(f"{PAGE}/1/acceptance")
    assert went_on.headers["location"] == "/projects/everyday/work"
    assert newcomer.get("/projects/everyday/rank").status_code == 200
    assert "acceptance" not in newcomer.get(PAGE).text


def test_a_new_version_is_asked_of_those_who_accepted_the_old_one(
    labeler: Person, admin: Person, project: Project, make_slate: MakeSlate
) -> None:
    make_slate()
    assert take(labeler, project)
    revise(admin, "Helpful, honest and brief.")
    assert labeler.post(LEASES, json={"wanted": 1}).json()["code"] == "guidelines_not_accepted"
    assert "You accepted version 1" in labeler.get(PAGE).text
    labeler.post(f"{API}/1/acceptance")  # the old one, from a tab that was left open
    assert labeler.post(LEASES, json={"wanted": 1}).json()["code"] == "guidelines_not_accepted"
    labeler.post(f"{API}/2/acceptance")
    assert take(labeler, project)


def test_a_corrected_spelling_is_asked_of_nobody_but_those_who_accepted_nothing(
    labeler: Person, admin: Person, newcomer: Person, project: Project
) -> None:
    revise(admin, "Helpful and honest!", needs_acceptance=False)
    assert take(labeler, project)
    assert newcomer.post(LEASES, json={"wanted": 1}).status_code == 403
    newcomer.post(f"{API}/2/acceptance")
    assert newcomer.post(LEASES, json={"wanted": 1}).status_code == 200


def test_what_is_being_ranked_can_be_submitted_after_the_guidelines_changed(
    labeler: Person, admin: Person, project: Project, make_slate: MakeSlate
) -> None:
    make_slate()
    (lease,) = take(labeler, project)
    revise(admin, "Something else entirely.")
    response = submit(labeler, lease)
    assert (response.status_code, response.json()["counted"]) == (201, True)


def test_accepting_twice_is_on_record_once(newcomer: Person, session: Session) -> None:
    for _ in range(2):
        assert newcomer.post(f"{API}/1/acceptance").status_code == 200
    assert session.scalar(select(func.count()).select_from(GuidelinesAcceptance)) == 1
    accepted = select(func.count()).where(AuditEvent.action == "guidelines.accept")
    assert session.scalar(accepted) == 1


def test_an_acceptance_cannot_be_taken_out_of_the_database(labeler: Person, session: Session) -> None:
    with pytest.raises(IntegrityError, match="append-only"):
        session.execute(delete(GuidelinesAcceptance))


def test_a_version_that_does_not_exist_cannot_be_accepted(labeler: Person) -> None:
    assert labeler.post(f"{API}/7/acceptance").json()["code"] == "guidelines_not_found"


def test_a_preview_shows_the_text_keeps_it_and_saves_nothing(admin: Person, session: Session) -> None:
    form = {"markdown": "## Kind\n\n<script>alert(1)</script> and brief", "act": "preview"}
    page = admin.post(f"{PAGE}/edit", data=form).text
    assert "Kind</h5>" in page
    assert "<script>alert(1)</script>" not in page
    assert "## Kind\n\n&lt;script&gt;" in page  # in the form, as it was typed
    assert "checked" not in page  # what was unticked stays so
    assert session.scalar(select(func.max(Guidelines.version))) == 1


def test_empty_guidelines_are_refused_and_the_version_in_force_stays(admin: Person, session: Session) -> None:
    response = admin.post(f"{PAGE}/edit", data={"markdown": " \n"})
    assert response.status_code == 422
    assert "must say what labelers look for" in response.text
    assert session.scalar(select(func.max(Guidelines.version))) == 1


def test_every_version_can_be_read_by_those_who_study_the_data(
    admin: Person, researcher: Person, labeler: Person
) -> None:
    revise(admin, "Be brief.", needs_acceptance=False)
    page = researcher.get(f"{PAGE}/versions").text
    assert "Version 2" in page
    assert "not asked again" in page
    assert "Helpful and honest." in researcher.get(f"{PAGE}/versions/1").text
    assert labeler.get(f"{PAGE}/versions").status_code == 403


def test_only_an_admin_writes_guidelines(researcher: Person, labeler: Person, session: Session) -> None:
    for person in (researcher, labeler):
        assert person.post(f"{PAGE}/edit", data={"markdown": "Mine."}).status_code == 403
    assert session.scalar(select(func.max(Guidelines.version))) == 1


@pytest.fixture
def elsewhere(labeler: Person, session: Session) -> Project:
    """Another project of the labeler, at its seventh version, which they accepted."""
    other = Project(slug="elsewhere", name="Elsewhere", flags=list(DEFAULT_FLAGS))
    session.add(other)
    session.flush()
    assert labeler.account is not None
    session.add(Membership(account_id=labeler.account.id, project_id=other.id, role=Role.LABELER))
    session.add(Guidelines(project_id=other.id, version=7, markdown="Of another project."))
    session.commit()
    assert labeler.post(f"{API.replace('everyday', 'elsewhere')}/7/acceptance").status_code == 200
    return other


@pytest.mark.usefixtures("elsewhere")
def test_what_was_accepted_in_another_project_is_accepted_there_alone(labeler: Person, admin: Person) -> None:
    assert labeler.get(API).json()["must_accept"] is False
    revise(admin, "Helpful, honest and brief.")
    assert labeler.get(API).json()["must_accept"] is True
    assert labeler.post(f"{API}/7/acceptance").json()["code"] == "guidelines_not_found"


def test_the_newest_version_that_one_accepted_oneself_is_said(labeler: Person, admin: Person) -> None:
    revise(admin, "Second.")
    assert labeler.post(f"{API}/2/acceptance").status_code == 200
    revise(admin, "Third.")
    assert admin.post(f"{API}/3/acceptance").status_code == 200
    assert "You accepted version 2" in labeler.get(PAGE).text


def test_versions_are_listed_with_the_newest_first(admin: Person, researcher: Person) -> None:
    revise(admin, "Second.")
    page = researcher.get(f"{PAGE}/versions").text
    assert page.index("Version 2") < page.index("Version 1")

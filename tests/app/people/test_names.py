"""Who may see the labelers' names: admins, researchers who were let, and each look of theirs is written down."""

import csv
from io import StringIO

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import clock
from app.people.models import AuditEvent, Labeler
from app.projects.models import Project
from app.prompts.models import Split
from tests.app.conftest import Person
from tests.app.loop import make_prompts, make_slate, rank
from tests.app.privacy.conftest import labeler_in

ROOT = "/projects/everyday"
NAME = "Lena Labeler"


@pytest.fixture
def lena(session: Session, project: Project, labeler: Person) -> Labeler:
    """She has ranked."""
    found = labeler_in(session, labeler, project)
    rank(session, make_slate(session, make_prompts(session, project, Split.TRAIN)[0]), [1, 2, 3, 4], found)
    session.commit()
    return found


def let_see_names(admin: Person, researcher: Person, *, sees_names: bool = True) -> None:
    assert researcher.account is not None
    form = {"sees_names": "true"} if sees_names else {}
    assert admin.post(f"{ROOT}/people/{researcher.account.id}/names", data=form).status_code == 303


def looks(session: Session) -> list[tuple[str, str]]:
    session.rollback()
    wanted = select(AuditEvent).where(AuditEvent.action.startswith("names.")).order_by(AuditEvent.id)
    return [(event.action, event.subject) for event in session.scalars(wanted)]


def test_a_researcher_sees_pseudonyms_until_an_admin_lets_them_see_names(
    admin: Person, researcher: Person, session: Session, lena: Labeler
) -> None:
    pages = (f"{ROOT}/quality", f"{ROOT}/quality/people/{lena.id}")
    for page in pages:
        assert (NAME in researcher.get(page).text, lena.pseudonym in researcher.get(page).text) == (False, True)
        assert NAME in admin.get(page).text
    for path in (f"{ROOT}/names", f"{ROOT}/names/export", f"/api/v1{ROOT}/names", f"/api/v1{ROOT}/names/export"):
        assert researcher.get(path).status_code == 403
    assert looks(session) == []  # there was none
    let_see_names(admin, researcher)
    for page in (*pages, f"{ROOT}/names"):
        assert NAME in researcher.get(page).text
    let_see_names(admin, researcher, sees_names=False)
    for page in pages:
        assert NAME not in researcher.get(page).text
    changes = session.scalars(select(AuditEvent).where(AuditEvent.action == "member.names")).all()
    assert [event.detail for event in changes] == [{"to": True}, {"to": False}]
    assert all(event.account_id == admin.account.id for event in changes)  # type: ignore[union-attr]


def test_each_look_of_a_researcher_at_names_is_written_down_once_and_an_admins_is_not(
    admin: Person, researcher: Person, session: Session, lena: Labeler
) -> None:
    let_see_names(admin, researcher)
    admin.get(f"{ROOT}/quality")
    admin.get(f"{ROOT}/names")
    assert looks(session) == []
    page = researcher.get(f"{ROOT}/quality").text
    charts = [part.split('"')[0].replace("&amp;", "&") for part in page.split('src="') if "/quality/charts/" in part]
    for chart in charts[:2]:
        assert researcher.get(chart).status_code == 200
    assert looks(session) == [("names.read", "quality")]
    researcher.get(f"{ROOT}/quality/people/{lena.id}")
    researcher.get(f"{ROOT}/names")
    assert looks(session)[1:] == [("names.read", f"labeler:{lena.id}"), ("names.read", "names")]


def test_taking_the_key_away_is_written_down_whoever_takes_it(
    admin: Person, researcher: Person, session: Session, lena: Labeler
) -> None:
    let_see_names(admin, researcher)
    session.add(Labeler(project_id=lena.project_id, external_id="=worker A17", pseudonym="labeler-00c0ffee"))
    session.commit()
    for person in (admin, researcher):
        file = person.get(f"{ROOT}/names/export")
        assert file.headers["content-disposition"] == 'attachment; filename="everyday-names.csv"'
        assert list(csv.reader(StringIO(file.text))) == [
            ["pseudonym", "name", "imported_as"],
            [lena.pseudonym, NAME, ""],
            ["labeler-00c0ffee", "", "'=worker A17"],  # which a spreadsheet would compute
        ]
    assert looks(session) == [("names.export", "names")] * 2
    assert researcher.get(f"/api/v1{ROOT}/names").json()[0]["name"] == NAME


def test_a_look_after_a_minute_is_another_look(
    admin: Person, researcher: Person, session: Session, lena: Labeler, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_see_names(admin, researcher)
    researcher.get(f"{ROOT}/names")
    researcher.get(f"{ROOT}/names")
    assert len(looks(session)) == 1
    monkeypatch.setattr("app.people.names.ONE_LOOK", clock(session) - clock(session))  # it was over a moment ago
    researcher.get(f"{ROOT}/names")
    assert len(looks(session)) == 2


def test_the_right_is_a_researchers_and_goes_with_the_role(
    admin: Person, researcher: Person, labeler: Person, lena: Labeler
) -> None:
    assert labeler.account is not None
    assert researcher.account is not None
    refused = admin.post(f"{ROOT}/people/{labeler.account.id}/names", data={"sees_names": "true"})
    assert (refused.status_code, "give them that role first" in refused.text) == (409, True)
    members = f"/api/v1{ROOT}/members/{researcher.account.id}"
    assert admin.patch(members, json={"sees_names": True}).json()["sees_names"] is True
    assert admin.patch(members, json={"role": "labeler"}).json()["sees_names"] is False
    assert admin.patch(members, json={"role": "researcher"}).json()["sees_names"] is False
    assert researcher.get(f"{ROOT}/names").status_code == 403
    assert researcher.post(f"{ROOT}/people/{researcher.account.id}/names", data={}).status_code == 403

"""Members of a project: what each role may do, and what an admin may change."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import db
from app.people import members
from app.people.access import Access, labeler_of
from app.people.errors import LastAdmin
from app.people.models import Account, APIKey, AuditEvent, Labeler, Membership, Role
from tests.app.conftest import Person


@pytest.mark.parametrize(
    ("who", "status"), [("admin", 200), ("site_admin", 200), ("researcher", 403), ("labeler", 403), ("outsider", 404)]
)
def test_only_admins_see_the_people_of_a_project(request, project, who, status):
    assert request.getfixturevalue(who).get("/projects/everyday/people").status_code == status


def test_a_project_that_does_not_exist_looks_like_one_i_am_no_member_of(outsider, project):
    same = {"x-request-id": "0123456789abcdef"}  # which the page names
    hidden = outsider.get("/projects/everyday/people", headers=same)
    absent = outsider.get("/projects/nothing-here/people", headers=same)
    assert hidden.status_code == absent.status_code == 404
    hidden_text, absent_text = hidden.text.replace("everyday", "…"), absent.text.replace("nothing-here", "…")
    assert hidden_text.split("<main")[1] == absent_text.split("<main")[1]


def test_an_admin_changes_a_role_and_it_is_written_down(admin, labeler, session):
    url = f"/projects/everyday/people/{labeler.account.id}/role"
    assert admin.post(url, data={"role": "researcher"}).status_code == 303
    assert labeler.get("/projects/everyday/people").status_code == 403
    assert (
        session.scalars(select(Membership.role).where(Membership.account_id == labeler.account.id)).one()
        == "researcher"
    )
    event = session.scalars(select(AuditEvent).where(AuditEvent.action == "member.role")).one()
    assert (event.account_id, event.detail) == (admin.account.id, {"from": "labeler", "to": "researcher"})
    assert "member.role" in admin.get("/projects/everyday/audit").text


def test_a_researcher_who_is_paused_reads_nothing_more(admin, researcher, session):
    session.merge(researcher.account)
    membership = session.get(Membership, (researcher.account.id, 1))
    membership.role = Role.ADMIN
    session.commit()
    assert researcher.get("/projects/everyday/people").status_code == 200
    admin.post(f"/projects/everyday/people/{researcher.account.id}/pause")
    assert researcher.get("/projects/everyday/people").status_code == 403
    admin.post(f"/projects/everyday/people/{researcher.account.id}/resume")
    assert researcher.get("/projects/everyday/people").status_code == 200


def test_a_paused_labeler_reads_why_on_the_home_page(admin, labeler):
    assert "Start ranking" in labeler.get("/").text
    admin.post(f"/projects/everyday/people/{labeler.account.id}/pause")
    home = labeler.get("/").text
    assert "Start ranking" not in home
    assert "you are paused" in home


@pytest.mark.parametrize("act", [("role", {"role": "labeler"}), ("pause", {})])
def test_the_last_admin_stays(admin, session, act):
    url = f"/projects/everyday/people/{admin.account.id}/{act[0]}"
    refused = admin.post(url, data=act[1])
    assert (refused.status_code, "make someone else an admin first" in refused.text) == (409, True)
    assert admin.get("/projects/everyday/people").status_code == 200


def test_of_two_admins_who_demote_each_other_at_once_one_stays(admin, researcher, project, session, engine):
    session.get(Membership, (researcher.account.id, project.id)).role = Role.ADMIN
    session.commit()

    def demote(session: Session, by: int, whom: int) -> None:
        account = session.get_one(Account, by)
        members.change_role(session, session.merge(project), whom, Role.LABELER, by=account)

    def demote_in_return() -> None:
        with db.SessionFactory.begin() as another:
            demote(another, by=researcher.account.id, whom=admin.account.id)

    with ThreadPoolExecutor(1) as threads:
        demote(session, by=admin.account.id, whom=researcher.account.id)
        second = threads.submit(demote_in_return)
        with pytest.raises(TimeoutError):
            second.result(timeout=0.5)  # waits for the first to be decided
        session.commit()
        with pytest.raises(LastAdmin):
            second.result(timeout=30)


def test_somebody_elses_member_is_not_found(admin, outsider):
    assert admin.post(f"/projects/everyday/people/{outsider.account.id}/pause").status_code == 404


def test_programs_read_and_change_members(admin, labeler):
    listed = admin.get("/api/v1/projects/everyday/members").json()
    assert [member["name"] for member in listed] == ["Ada Admin", "Lena Labeler"]
    changed = admin.patch(f"/api/v1/projects/everyday/members/{labeler.account.id}", json={"is_paused": True}).json()
    assert changed["paused_at"] is not None


def test_whoever_judges_first_becomes_one_labeler_even_from_two_tabs(labeler, project, session, engine):
    access = Access(labeler.account, project, Role.LABELER)

    def judge(_: int) -> int:
        with db.SessionFactory.begin() as session:
            return labeler_of(session, access).id

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(judge, range(8)))) == 1
    assert session.scalar(select(func.count()).select_from(Labeler)) == 1


def test_a_labelers_pseudonym_does_not_tell_who_they_are(labeler, project, session):
    found = labeler_of(session, Access(labeler.account, project, Role.LABELER))
    assert "lena" not in found.pseudonym.lower()


def test_a_key_is_shown_once_and_does_what_its_account_may(app, admin, session, project):
    page = admin.post("/account/keys", data={"name": "export script"})
    secret = page.text.split('id="new-key">')[1].split("<")[0]
    assert secret not in admin.get("/account").text
    program, headers = Person(app), {"authorization": f"Bearer {secret}"}
    assert program.get("/api/v1/projects/everyday/members", headers=headers).status_code == 200
    assert session.scalars(select(APIKey.last_used_at)).one() is not None


def test_a_revoked_key_is_out_at_once(app, admin, other_labeler, session):
    page = admin.post("/account/keys", data={"name": "k"})
    secret = page.text.split('id="new-key">')[1].split("<")[0]
    key_id = session.scalars(select(APIKey.id)).one()
    program, headers = Person(app), {"authorization": f"Bearer {secret}"}
    assert other_labeler.post(f"/account/keys/{key_id}/revoke").status_code == 404
    assert program.get("/api/v1/me", headers=headers).status_code == 200
    admin.post(f"/account/keys/{key_id}/revoke")
    assert program.get("/api/v1/me", headers=headers).status_code == 401


def test_a_key_cannot_make_keys(app, admin):
    page = admin.post("/account/keys", data={"name": "k", "scope": "all"})
    secret = page.text.split('id="new-key">')[1].split("<")[0]
    program, headers = Person(app), {"authorization": f"Bearer {secret}"}
    assert program.post("/account/keys", data={"name": "another"}, headers=headers).status_code == 401


@pytest.mark.parametrize("name", ["", "   ", "x" * 101, "nul\x00"])
def test_a_key_needs_a_name_that_can_be_read(admin, session, name):
    assert admin.post("/account/keys", data={"name": name}).status_code == 422
    assert session.scalar(select(func.count()).select_from(APIKey)) == 0

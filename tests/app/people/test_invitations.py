"""Invitation links: what they give, to whom, and how often."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from app import db
from app.people import invitations, service
from app.people.errors import InvitationNotFound
from app.people.models import Account, AuditEvent, Invitation, Membership, Role, SignOnIdentity
from app.people.pseudonyms import new_pseudonym
from tests.app.conftest import Person

NEW = {"name": "Nina New", "email": "Nina@Example.org", "password": "a few words together"}


@pytest.fixture
def link(admin):
    """Makes a link on the people page, as an admin does."""

    def link(role: str = "labeler", email: str = "", by: Person = admin) -> str:
        page = by.post("/projects/everyday/people/invitations", data={"role": role, "email": email})
        assert page.status_code == 200
        return re.search(r'id="invitation-link">http://testserver(/invitations/[\w-]+)<', page.text)[1]

    return link


def role_of(session, email: str) -> Role | None:
    session.expire_all()
    return session.scalar(select(Membership.role).join(Account).where(Account.email == email.lower()))


@pytest.mark.parametrize(
    ("role", "first_page"), [("labeler", "/projects/everyday/work"), ("researcher", "/projects/everyday")]
)
def test_a_link_makes_an_account_and_a_member(link, visitor, session, role, first_page):
    path = link(role)
    assert "Ada Admin invites you" in visitor.get(path).text
    accepted = visitor.post(path, data=NEW)
    assert (accepted.status_code, accepted.headers["location"]) == (303, first_page)
    assert role_of(session, NEW["email"]) == role
    assert "Nina New" in visitor.get("/").text  # signed in already


def test_someone_with_an_account_just_joins(link, outsider, session):
    path = link()
    assert "You are signed in as" in outsider.get(path).text
    assert outsider.post(path).status_code == 303
    assert role_of(session, outsider.account.email) is Role.LABELER


def test_a_link_never_lowers_a_role(link, admin, researcher, session):
    researcher.post(link("labeler"))
    assert role_of(session, researcher.account.email) is Role.RESEARCHER
    researcher.post(link("admin"))
    assert role_of(session, researcher.account.email) is Role.ADMIN


def test_a_link_works_once(link, visitor, outsider, session):
    path = link()
    visitor.get(path)
    visitor.post(path, data=NEW)
    second = outsider.post(path)
    assert (second.status_code, role_of(session, outsider.account.email)) == (404, None)
    assert "ask whoever sent it for a new link" in second.text


def test_of_two_who_follow_one_link_at_once_one_gets_in(link, person, session, engine):
    token = link().rsplit("/", 1)[1]
    ids = [person(name).account.id for name in ("First", "Second", "Third", "Fourth")]

    def follow(account_id: int) -> bool:
        try:
            with db.SessionFactory.begin() as session:
                account = session.get_one(Account, account_id)
                invitations.accept_invitation(session, token, account, now=db.clock(session))
        except InvitationNotFound:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(follow, ids)) == 1


def test_a_link_that_is_too_old_is_no_link(link, visitor, session):
    path = link()
    session.execute(update(Invitation).values(expires_at=func.now() - timedelta(seconds=1)))
    session.commit()
    assert visitor.get(path).status_code == 404


def test_a_revoked_link_is_no_link(link, visitor, admin, session):
    path = link()
    invitation = session.scalars(select(Invitation.id)).one()
    assert f"/people/invitations/{invitation}/revoke" in admin.get("/projects/everyday/people").text
    admin.post(f"/projects/everyday/people/invitations/{invitation}/revoke")
    assert visitor.get(path).status_code == 404
    assert f"/people/invitations/{invitation}/revoke" not in admin.get("/projects/everyday/people").text


def test_a_link_for_one_address_lets_no_other_in(link, outsider, visitor, session):
    path = link("labeler", "nina@example.org")
    refused = outsider.post(path)
    assert (refused.status_code, "nina@example.org" in refused.text) == (409, True)
    visitor.get(path)
    visitor.post(path, data={**NEW, "email": "someone.else@example.org"})  # the link's address is what counts
    assert role_of(session, "nina@example.org") is Role.LABELER
    assert role_of(session, "someone.else@example.org") is None


def test_what_is_wrong_in_the_form_is_said_and_what_was_typed_is_kept(link, visitor, session):
    path = link()
    visitor.get(path)
    again = visitor.post(path, data={**NEW, "password": "short"})
    assert again.status_code == 422
    assert "12 to 1024 characters" in again.text
    assert 'value="Nina New"' in again.text
    assert visitor.post(path, data=NEW).status_code == 303


def test_an_address_that_has_an_account_is_asked_to_sign_in(link, visitor, outsider, session):
    path = link()
    visitor.get(path)
    response = visitor.post(path, data={**NEW, "email": outsider.account.email})
    assert response.status_code == 422
    assert f"/sign-in?next={path}" in response.text


@pytest.fixture
def nina(session, project) -> Account:
    """Has an account without a password."""
    account = service.create_account(session, email="nina@example.org", name="Nina", password=None)
    session.commit()
    return account


def test_an_account_without_a_password_gets_one_only_by_a_site_admins_link_for_its_address(
    link, nina, site_admin, visitor, session
):
    refused = (link(by=site_admin), link("labeler", nina.email))  # an admin could follow the link themselves
    visitor.get(refused[0])
    for path in refused:
        assert visitor.post(path, data=NEW).status_code == 422
    assert visitor.post(link("labeler", nina.email, site_admin), data=NEW).status_code == 303
    events = session.scalars(select(AuditEvent).where(AuditEvent.action == "account.password"))
    assert [(event.account_id, event.subject) for event in events] == [(nina.id, f"account:{nina.id}")]


def test_an_account_without_a_password_gets_one_by_a_link_of_the_command_line(nina, project, visitor, session):
    token = invitations.invite(
        session, project=project, role=Role.LABELER, email=nina.email, created_by=None, now=db.clock(session)
    )
    session.commit()
    visitor.get(f"/invitations/{token}")
    assert visitor.post(f"/invitations/{token}", data=NEW).status_code == 303


@pytest.mark.parametrize("has", ["single sign-on", "the installation"])
def test_no_link_sets_the_password_of_who_gets_in_otherwise_or_runs_the_installation(
    link, nina, site_admin, visitor, session, has
):
    path = link("labeler", nina.email, site_admin)
    if has == "single sign-on":
        session.add(SignOnIdentity(account_id=nina.id, issuer="https://id.example", subject="1"))
    else:
        nina.is_site_admin = True
    session.commit()
    visitor.get(path)
    refused = visitor.post(path, data=NEW)
    assert (refused.status_code, "sign in with it first" in refused.text) == (422, True)
    session.rollback()
    assert session.get_one(Account, nina.id).password_hash is None


def test_the_database_keeps_no_link_that_could_be_used(link, session):
    token = link().rsplit("/", 1)[1]
    stored = session.scalars(select(Invitation)).one()
    assert stored.token_hash != token.encode()
    assert token not in str(session.scalars(select(AuditEvent.detail)).all())


def test_the_first_admins_link_makes_one_site_admin_and_lands_on_the_project(session, visitor, project, app):
    path = invitations.first_admin_link(session, "http://testserver/", now=db.clock(session)).removeprefix(
        "http://testserver"
    )
    session.commit()
    assert "You are the first here" in visitor.get(path).text
    accepted = visitor.post(path, data=NEW)
    assert accepted.headers["location"] == "/projects/everyday"
    assert session.scalars(select(Account.is_site_admin)).one()
    assert Person(app).get(path).status_code == 404
    assert invitations.first_admin_link(session, "http://testserver", now=db.clock(session)) is None


def test_only_the_first_admins_link_printed_last_works(session, visitor):
    first = invitations.first_admin_link(session, "", now=db.clock(session))
    last = invitations.first_admin_link(session, "", now=db.clock(session))
    session.commit()
    assert (visitor.get(first).status_code, visitor.get(last).status_code) == (404, 200)


def test_the_first_admins_link_is_closed_once_there_is_one(session, visitor, site_admin):
    session.execute(update(Account).values(is_site_admin=False))
    path = invitations.first_admin_link(session, "", now=db.clock(session))
    session.execute(update(Account).values(is_site_admin=True))
    session.commit()
    assert visitor.get(path).status_code == 404


def test_programs_can_invite_too(admin, session):
    made = admin.post("/api/v1/projects/everyday/invitations", json={"role": "researcher"})
    assert made.status_code == 201
    assert made.json()["url"].startswith("http://testserver/invitations/")
    bad = admin.post("/api/v1/projects/everyday/invitations", json={"email": "no address"})
    assert (bad.status_code, bad.json()["code"]) == (422, "invalid_person")


def test_pseudonyms_differ():
    assert new_pseudonym() != new_pseudonym()

"""What admins may do about how people get in: reset links, sessions, keys, closing, and the last of those who may."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from app import db
from app.people import accounts, invitations, members, reset_links, service, sessions
from app.people.devices import device_of
from app.people.errors import LastAdmin, LastSiteAdmin, ResetLinkNotFound, WeakPassword
from app.people.models import (
    Account,
    APIKey,
    AuditEvent,
    Membership,
    PasswordReset,
    Role,
    SignInSession,
    SignOnIdentity,
)
from app.projects.models import Project
from tests.app.conftest import PASSWORD, Person
from tests.app.locks import wait_until_blocked

NEW = "some other words together"


def audited(session, action: str) -> list[tuple[int | None, str]]:
    session.rollback()
    events = session.scalars(select(AuditEvent).where(AuditEvent.action == action).order_by(AuditEvent.id))
    return [(event.account_id, event.subject) for event in events]


def reset_link(admin: Person, person: Person) -> str:
    page = admin.post(f"/people/{person.account.id}/reset")
    assert page.status_code == 200, page.text
    return re.search(r'id="reset-link">http://testserver(/reset/[\w-]+)<', page.text)[1]


@pytest.fixture
def other_project(session) -> Project:
    project = Project(slug="other", name="Other")
    session.add(project)
    session.commit()
    return project


# Whom an admin manages


def test_an_admin_opens_how_their_members_get_in_from_the_people_page(admin, labeler):
    assert f'href="/people/{labeler.account.id}"' in admin.get("/projects/everyday/people").text
    assert "Lena Labeler" in admin.get(f"/people/{labeler.account.id}").text


@pytest.mark.parametrize("role", list(Role))
def test_an_admin_does_not_manage_who_is_in_another_project_too(admin, labeler, session, other_project, role):
    """Else they could set a password, sign in as that person, and act in the other project."""
    session.add(Membership(account_id=labeler.account.id, project_id=other_project.id, role=role))
    session.commit()
    assert f'href="/people/{labeler.account.id}"' not in admin.get("/projects/everyday/people").text
    for path in ("", "/reset", "/sessions/revoke", "/separate"):
        method = "POST" if path else "GET"
        assert admin.request(method, f"/people/{labeler.account.id}{path}").status_code == 403
    session.add(Membership(account_id=admin.account.id, project_id=other_project.id, role=Role.ADMIN))
    session.commit()
    assert admin.get(f"/people/{labeler.account.id}").status_code == 200


def test_an_admin_who_is_paused_manages_nobody(admin, labeler, session):
    session.execute(update(Membership).where(Membership.account_id == admin.account.id).values(paused_at=func.now()))
    session.commit()
    assert admin.get(f"/people/{labeler.account.id}").status_code == 403


def test_no_admin_of_a_project_manages_a_site_admin(admin, site_admin, session, project):
    session.add(Membership(account_id=site_admin.account.id, project_id=project.id, role=Role.LABELER))
    session.commit()
    assert admin.post(f"/people/{site_admin.account.id}/reset").status_code == 403
    assert site_admin.post(f"/people/{admin.account.id}/reset").status_code == 200


@pytest.mark.parametrize("who", ["labeler", "researcher", "outsider"])
def test_nobody_else_manages_anybody(request, other_labeler, who):
    person = request.getfixturevalue(who)
    assert person.get(f"/people/{other_labeler.account.id}").status_code in (403, 404)
    assert person.post(f"/people/{other_labeler.account.id}/sessions/revoke").status_code in (403, 404)
    assert person.get("/people").status_code == 403
    assert other_labeler.get("/account").status_code == 200


def test_a_program_manages_nobody(app, admin, labeler, session):
    secret = service.create_key(session, session.merge(admin.account), "script")
    session.commit()
    headers = {"authorization": f"Bearer {secret}"}
    assert Person(app).post(f"/people/{labeler.account.id}/reset", headers=headers).status_code == 401


@pytest.mark.parametrize("act", ["close", "reopen", "make-site-admin", "take-site-admin"])
def test_only_site_admins_close_accounts_and_make_site_admins(admin, labeler, session, act):
    assert admin.post(f"/people/{labeler.account.id}/{act}").status_code == 403
    session.rollback()
    assert session.scalar(select(func.count()).where(Account.is_site_admin | Account.disabled_at.is_not(None))) == 0


# A new password


def test_a_reset_link_sets_a_password_once_and_signs_everyone_else_out(admin, labeler, visitor, app, session):
    path = reset_link(admin, labeler)
    assert labeler.account.email in visitor.get(path).text
    assert visitor.post(path, data={"password": NEW}).headers["location"] == "/"
    assert "Lena Labeler" in visitor.get("/").text
    assert labeler.get("/account").status_code == 303  # whoever was in with the old one is out
    again = Person(app)
    assert again.get(path).status_code == 404
    again.get("/sign-in")
    assert again.post("/sign-in", data={"email": labeler.account.email, "password": PASSWORD}).status_code == 401
    assert again.post("/sign-in", data={"email": labeler.account.email, "password": NEW}).status_code == 303
    assert audited(session, "account.reset_link") == [(admin.account.id, f"account:{labeler.account.id}")]
    assert audited(session, "account.password_reset") == [(labeler.account.id, f"account:{labeler.account.id}")]


def test_a_weak_password_leaves_the_link_as_it_was(admin, labeler, visitor):
    path = reset_link(admin, labeler)
    visitor.get(path)
    refused = visitor.post(path, data={"password": "short"})
    assert (refused.status_code, "12 to 1024 characters" in refused.text) == (422, True)
    assert visitor.post(path, data={"password": NEW}).status_code == 303


def test_only_the_link_made_last_works(admin, labeler, visitor):
    first, last = reset_link(admin, labeler), reset_link(admin, labeler)
    assert (visitor.get(first).status_code, visitor.get(last).status_code) == (404, 200)


def test_a_reset_link_is_good_for_a_day(admin, labeler, visitor, session):
    path = reset_link(admin, labeler)
    session.execute(update(PasswordReset).values(expires_at=func.now() - timedelta(seconds=1)))
    session.commit()
    assert visitor.get(path).status_code == 404


def test_a_reset_link_opens_no_closed_account(admin, labeler, visitor, session):
    path = reset_link(admin, labeler)
    session.execute(update(Account).where(Account.id == labeler.account.id).values(disabled_at=func.now()))
    session.commit()
    assert visitor.get(path).status_code == 404


def test_of_two_who_use_one_link_at_once_one_sets_the_password(admin, labeler, engine):
    token = reset_link(admin, labeler).removeprefix("/reset/")

    def use(number: int) -> bool:
        try:
            with db.SessionFactory.begin() as session:
                reset_links.reset_password(session, token, f"{NEW} {number}", now=db.clock(session))
        except ResetLinkNotFound:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(use, range(4))) == 1


def test_the_database_keeps_no_reset_link_that_could_be_used(admin, labeler, session):
    token = reset_link(admin, labeler).removeprefix("/reset/")
    assert token not in str(session.execute(select(PasswordReset.__table__)).all())
    assert token not in str(session.scalars(select(AuditEvent.detail)).all())


@pytest.mark.parametrize("role", list(Role))
def test_a_reset_link_ends_when_a_role_is_new_or_higher(admin, labeler, visitor, session, other_project, role):
    """Whoever made it might not be allowed to make it now."""
    paths = []
    for project_id in (1, other_project.id):
        paths.append(reset_link(admin, labeler))
        project = session.get_one(Project, project_id)
        now = db.clock(session)
        token = invitations.invite(session, project=project, role=role, email=None, created_by=None, now=now)
        session.commit()
        assert labeler.post(f"/invitations/{token}").status_code == 303
        is_the_role_they_have = (project_id, role) == (1, Role.LABELER)
        assert visitor.get(paths[-1]).status_code == (200 if is_the_role_they_have else 404)


def test_a_reset_link_sets_no_site_admins_password(admin, site_admin, labeler, visitor):
    path = reset_link(admin, labeler)
    site_admin.post(f"/people/{labeler.account.id}/make-site-admin")
    assert visitor.get(path).status_code == 404


def test_a_password_by_link_keeps_the_rules_of_passwords(session, labeler, admin):
    token = reset_link(admin, labeler).removeprefix("/reset/")
    with pytest.raises(WeakPassword):
        reset_links.reset_password(session, token, labeler.account.email, now=db.clock(session))


@pytest.mark.parametrize("how", ["demoted", "paused", "closed"])
def test_a_reset_link_ends_with_its_makers_right_to_make_it(admin, labeler, researcher, visitor, session, how):
    path = reset_link(admin, labeler)
    maker = session.get(Membership, (admin.account.id, 1))
    if how == "demoted":
        maker.role = Role.RESEARCHER
    elif how == "paused":
        maker.paused_at = db.clock(session)
    else:
        session.get(Account, admin.account.id).disabled_at = db.clock(session)
    session.commit()
    visitor.get("/sign-in")
    refused = visitor.post(path, data={"password": NEW})
    assert (refused.status_code, "may not set your password any more" in refused.text) == (403, True)
    assert visitor.get(path).status_code == 404  # for good: its maker may get the role back
    credentials = {"email": labeler.account.email, "password": PASSWORD}
    assert visitor.post("/sign-in", data=credentials).status_code == 303
    assert audited(session, "account.reset_link_withdrawn") == [(None, f"account:{labeler.account.id}")]
    assert audited(session, "account.password_reset") == []


def test_the_page_of_a_withdrawn_reset_link_says_so_and_is_written_down(site_admin, labeler, visitor, session):
    path = reset_link(site_admin, labeler)
    session.get(Account, site_admin.account.id).is_site_admin = False
    session.commit()
    page = visitor.get(path)
    assert (page.status_code, "ask an admin for a new link" in page.text) == (403, True)
    assert audited(session, "account.reset_link_withdrawn") == [(None, f"account:{labeler.account.id}")]


def test_a_reset_link_of_the_command_line_needs_no_makers_right(labeler, visitor, session):
    token = reset_links.make_reset_link(session, session.merge(labeler.account), by=None, now=db.clock(session))
    session.commit()
    visitor.get(f"/reset/{token}")
    assert visitor.post(f"/reset/{token}", data={"password": NEW}).status_code == 303


@pytest.mark.parametrize("act", ["reset", "separate", "sessions/revoke"])
def test_nothing_is_done_to_somebody_who_joins_another_project_meanwhile(
    admin, labeler, session, other_project, engine, act
):
    now = db.clock(session)
    token = invitations.invite(session, project=other_project, role=Role.ADMIN, email=None, created_by=None, now=now)
    session.commit()
    joining = session.get_one(Account, labeler.account.id)
    invitations.accept_invitation(session, token, joining, now=now)  # and has not committed
    with ThreadPoolExecutor(1) as thread:
        acting = thread.submit(admin.post, f"/people/{labeler.account.id}/{act}")
        wait_until_blocked(engine)
        session.commit()
        assert acting.result().status_code == 403
    assert labeler.get("/account").status_code == 200
    assert session.scalar(select(func.count()).select_from(PasswordReset)) == 0


# Sessions and keys


def test_an_admin_signs_somebody_out_everywhere_and_in_one_browser(app, admin, labeler, other_labeler, session):
    phone = Person(
        app, labeler.account, sessions.open_session(session, labeler.account, user_agent="phone", now=db.clock(session))
    )
    session.commit()
    phone_id = session.scalars(select(SignInSession.id).where(SignInSession.user_agent == "phone")).one()
    root = f"/people/{labeler.account.id}/sessions"
    admin.post(f"/people/{other_labeler.account.id}/sessions/{phone_id}/revoke")  # not that person's: nothing happens
    assert phone.get("/account").status_code == 200
    admin.post(f"{root}/{phone_id}/revoke")
    assert (phone.get("/account").status_code, labeler.get("/account").status_code) == (303, 200)
    admin.post(f"{root}/revoke")
    assert labeler.get("/account").status_code == 303
    assert other_labeler.get("/account").status_code == 200
    assert (admin.account.id, f"account:{labeler.account.id}") in audited(session, "account.sign_out")


def test_signing_out_everywhere_else_oneself_is_written_down(app, labeler, session):
    elsewhere = Person(
        app, labeler.account, sessions.open_session(session, labeler.account, user_agent=None, now=db.clock(session))
    )
    session.commit()
    labeler.post("/account/sessions/revoke")
    assert (elsewhere.get("/account").status_code, labeler.get("/account").status_code) == (303, 200)
    assert audited(session, "account.sign_out") == [(labeler.account.id, f"account:{labeler.account.id}")]


@pytest.mark.parametrize(
    ("user_agent", "device"),
    [
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/142.0 Safari/537.36",
            "Chrome on Windows",
        ),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/142.0 Safari/537.36 Edg/142.0",
            "Edge on Windows",
        ),
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/18.0 Safari/605.1.15",
            "Safari on Mac",
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605 CriOS/142 Mobile Safari/604",
            "Chrome on iPhone",
        ),
        (
            "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 Chrome/142.0 Mobile Safari/537.36",
            "Chrome on Android",
        ),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0", "Firefox on Linux"),
        ("curl/8.5.0", "curl/8.5.0"),
        ("   ", "unknown"),
        (None, "unknown"),
    ],
)
def test_a_device_is_named_as_its_owner_would(user_agent, device):
    assert device_of(user_agent) == device


def test_a_key_ends_by_itself(app, admin, session):
    page = admin.post("/account/keys", data={"name": "script", "days": "30"})
    secret = page.text.split('id="new-key">')[1].split("<")[0]
    lasts = session.scalars(select(APIKey.expires_at - func.now())).one()
    assert timedelta(days=29, hours=23) < lasts <= timedelta(days=30)
    program, headers = Person(app), {"authorization": f"Bearer {secret}"}
    assert program.get("/api/v1/me", headers=headers).status_code == 200
    session.execute(update(APIKey).values(expires_at=func.now()))
    session.commit()
    assert program.get("/api/v1/me", headers=headers).status_code == 401
    assert program.post("/api/v1/projects/everyday/leases", json={}, headers=headers).status_code == 401
    assert '<span class="badge bad">expired</span>' in admin.get("/account").text


def test_a_key_may_last_until_it_is_revoked(admin, session):
    admin.post("/account/keys", data={"name": "script", "days": "never"})
    assert session.scalars(select(APIKey.expires_at)).all() == [None]


def test_an_admin_revokes_a_members_key_and_it_is_written_down(app, admin, labeler, session):
    secret = service.create_key(session, session.merge(labeler.account), "script")
    session.commit()
    key_id = session.scalars(select(APIKey.id)).one()
    assert "script" in admin.get(f"/people/{labeler.account.id}").text
    admin.post(f"/people/{labeler.account.id}/keys/{key_id}/revoke")
    assert Person(app).get("/api/v1/me", headers={"authorization": f"Bearer {secret}"}).status_code == 401
    assert audited(session, "key.revoke") == [(admin.account.id, f"key:{key_id}")]


def test_a_key_is_revoked_on_the_page_of_its_own_account_only(admin, labeler, other_labeler, session):
    service.create_key(session, session.merge(labeler.account), "script")
    session.commit()
    key_id = session.scalars(select(APIKey.id)).one()
    assert admin.post(f"/people/{other_labeler.account.id}/keys/{key_id}/revoke").status_code == 404


def test_separating_lets_the_address_be_linked_anew(admin, labeler, session):
    session.add(SignOnIdentity(account_id=labeler.account.id, issuer="https://id.example", subject="1"))
    session.commit()
    assert "https://id.example" in admin.get(f"/people/{labeler.account.id}").text
    admin.post(f"/people/{labeler.account.id}/separate")
    assert session.scalar(select(func.count()).select_from(SignOnIdentity)) == 0
    assert audited(session, "sign_on.unlink") == [(admin.account.id, f"account:{labeler.account.id}")]


# Closing, and the last of those who may


def test_a_closed_account_is_out_everywhere_and_comes_back_when_opened(site_admin, labeler, visitor, session):
    secret = service.create_key(session, session.merge(labeler.account), "script")
    session.commit()
    root = f"/people/{labeler.account.id}"
    site_admin.post(f"{root}/close")
    assert labeler.get("/account").status_code == 303
    assert visitor.get("/api/v1/me", headers={"authorization": f"Bearer {secret}"}).status_code == 401
    visitor.get("/sign-in")
    credentials = {"email": labeler.account.email, "password": PASSWORD}
    assert visitor.post("/sign-in", data=credentials).status_code == 401
    assert "closed since" in site_admin.get(root).text
    site_admin.post(f"{root}/reopen")
    assert labeler.get("/account").status_code == 303  # its sessions stay ended
    assert visitor.post("/sign-in", data=credentials).status_code == 303
    assert audited(session, "account.close") == audited(session, "account.reopen")


@pytest.mark.parametrize("act", ["close", "take-site-admin"])
def test_the_last_site_admin_stays(site_admin, person, session, act):
    path = f"/people/{site_admin.account.id}/{act}"
    refused = site_admin.post(path)
    assert (refused.status_code, "last site admin" in refused.text) == (409, True)
    another = person("Second Site", is_site_admin=True)
    session.execute(update(Account).where(Account.id == another.account.id).values(disabled_at=func.now()))
    session.commit()
    assert site_admin.post(path).status_code == 409  # who is closed runs nothing
    session.execute(update(Account).where(Account.id == another.account.id).values(disabled_at=None))
    session.commit()
    assert site_admin.post(path).status_code == 303
    assert site_admin.get("/people").status_code in (303, 403)


def test_the_last_admin_of_a_project_is_not_closed(site_admin, admin, researcher, session):
    refused = site_admin.post(f"/people/{admin.account.id}/close")
    assert (refused.status_code, "last active admin of Everyday requests" in refused.text) == (409, True)
    session.get(Membership, (researcher.account.id, 1)).role = Role.ADMIN
    session.commit()
    assert site_admin.post(f"/people/{admin.account.id}/close").status_code == 303


def test_an_admin_whose_account_is_closed_does_not_count_as_one(admin, researcher, session):
    session.get(Membership, (researcher.account.id, 1)).role = Role.ADMIN
    session.execute(update(Account).where(Account.id == researcher.account.id).values(disabled_at=func.now()))
    session.commit()
    assert admin.post(f"/projects/everyday/people/{admin.account.id}/role", data={"role": "labeler"}).status_code == 409


def at_once(first: Callable, second: Callable, refusal: type[Exception]) -> None:
    """Both acts in transactions that overlap: the second waits for the first, and is refused."""

    def do_second() -> None:
        with db.SessionFactory.begin() as session:
            second(session)

    with ThreadPoolExecutor(1) as threads, db.SessionFactory() as session:
        first(session)
        waiting = threads.submit(do_second)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.5)
        session.commit()
        with pytest.raises(refusal):
            waiting.result(timeout=30)


@pytest.mark.parametrize("way", ["take", "close"])
def test_of_two_site_admins_who_demote_each_other_at_once_one_stays(site_admin, person, session, engine, way):
    ids = site_admin.account.id, person("Second Site", is_site_admin=True).account.id

    def demote(session, by: int, whom: int) -> None:
        by_account, account = session.get_one(Account, by), session.get_one(Account, whom)
        if way == "take":
            accounts.take_site_admin(session, account, by=by_account)
        else:
            accounts.close(session, account, by=by_account, now=db.clock(session))

    at_once(lambda s: demote(s, ids[0], ids[1]), lambda s: demote(s, ids[1], ids[0]), LastSiteAdmin)
    assert session.scalar(select(func.count()).where(Account.is_site_admin, Account.disabled_at.is_(None))) == 1


def test_of_two_admins_one_pausing_and_one_demoting_the_other_one_stays(admin, researcher, project, session, engine):
    session.get(Membership, (researcher.account.id, project.id)).role = Role.ADMIN
    session.commit()

    def pause(session) -> None:
        by = session.get_one(Account, admin.account.id)
        members.pause(session, session.merge(project), researcher.account.id, by=by, now=db.clock(session))

    def demote(session) -> None:
        by = session.get_one(Account, researcher.account.id)
        members.change_role(session, session.merge(project), admin.account.id, Role.LABELER, by=by)

    at_once(pause, demote, LastAdmin)


def test_an_admin_who_is_closed_while_the_other_is_demoted_leaves_the_other(
    site_admin, admin, researcher, project, session, engine
):
    session.get(Membership, (researcher.account.id, project.id)).role = Role.ADMIN
    session.commit()

    def close(session) -> None:
        by, account = session.get_one(Account, site_admin.account.id), session.get_one(Account, admin.account.id)
        accounts.close(session, account, by=by, now=db.clock(session))

    def demote(session) -> None:
        by = session.get_one(Account, site_admin.account.id)
        members.change_role(session, session.merge(project), researcher.account.id, Role.LABELER, by=by)

    at_once(close, demote, LastAdmin)


# The list of all


def test_a_site_admin_finds_everyone_page_by_page_and_by_name(site_admin, admin, labeler, outsider, monkeypatch):
    monkeypatch.setattr("app.people.access_routes.ACCOUNTS_A_PAGE", 2)
    seen, path = [], "/people"
    while path:
        page = site_admin.get(path).text
        seen += re.findall(r'<a href="/people/\d+">([^<]+)</a>', page)
        more = re.search(r'href="(\?after=\d+)"', page)
        path = f"/people{more[1]}" if more else None
    assert seen == ["Ada Admin", "Lena Labeler", "Olaf Outsider", "Sita Site"]
    found = site_admin.get("/people?search=LENA.lab").text
    assert ("Lena Labeler" in found, "Olaf Outsider" in found) == (True, False)
    assert "Nobody of that name" in site_admin.get("/people?search=%25").text

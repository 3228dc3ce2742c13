# ruff: noqa: F811 - fixtures are found by name
"""Single sign-on against a real provider on the loopback: who gets in, who does not, and what is said and kept."""

import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from sqlalchemy import func, select, update

from app import db
from app.people import invitations, reset_links, service, sessions, sign_on_accounts
from app.people.models import (
    Account,
    APIKey,
    AuditEvent,
    Membership,
    Role,
    SignInAttempt,
    SignInSession,
    SignOnIdentity,
    SignOnTicket,
)
from app.people.sign_on import provider_of
from app.settings import Settings
from tests.app.conftest import PASSWORD, Person, make_app
from tests.identity_provider import CLIENT_ID, CLIENT_SECRET, IdentityProvider, identity_provider  # noqa: F401

LENA = "lena.labeler@example.org"


@pytest.fixture
def settings(tmp_path, identity_provider) -> Settings:
    return Settings(
        home=tmp_path,
        oidc_issuer=identity_provider.issuer,
        oidc_client_id=CLIENT_ID,
        oidc_client_secret=CLIENT_SECRET,
        oidc_name="Example Inc.",
    )


def way_back(browser: Person, next: str = "/") -> str:
    """Leave for the provider, and be sent back: the address that it sends the browser to."""
    left = browser.get("/sign-in/sso", params={"next": next})
    assert left.status_code == 303, left.text
    return httpx2.get(left.headers["location"]).headers["location"].removeprefix("http://testserver")


def visit(browser: Person, next: str = "/"):
    return browser.get(way_back(browser, next))


def reasons(session) -> list[str]:
    session.rollback()
    return [
        event.detail["reason"]
        for event in session.scalars(select(AuditEvent).where(AuditEvent.action == "sign_on.refuse"))
    ]


def test_the_button_is_there_only_where_a_provider_is_configured(visitor, engine, tmp_path):
    assert "Sign in with Example Inc." in visitor.get("/sign-in").text
    without = Person(make_app(Settings(home=tmp_path)))
    assert "/sign-in/sso" not in without.get("/sign-in").text
    assert without.get("/sign-in/sso").status_code == 404


def test_an_account_is_found_by_its_verified_address_and_goes_on_where_it_wanted_to_be(
    visitor,
    labeler,
    session,
    identity_provider,
):
    back = visit(visitor, "/projects/everyday/guidelines")
    assert (back.status_code, back.headers["location"]) == (303, "/projects/everyday/guidelines")
    assert "Lena Labeler" in visitor.get("/").text
    identity = session.scalars(select(SignOnIdentity)).one()
    assert (identity.account_id, identity.issuer, identity.subject) == (
        labeler.account.id,
        identity_provider.issuer,
        "subject-1",
    )
    assert session.scalars(select(AuditEvent.action).where(AuditEvent.action.like("sign_on.%"))).all() == [
        "sign_on.start_alone",
        "sign_on.link",
    ]


def test_whoever_changes_their_address_at_the_provider_keeps_their_account(
    app,
    labeler,
    session,
    identity_provider,
):
    visit(Person(app))
    identity_provider.person |= {"email": "lena.married@example.org", "email_verified": False}
    again = Person(app)
    assert visit(again).status_code == 303
    assert "Lena Labeler" in again.get("/").text
    assert session.scalars(select(Account.email)).all() == [LENA]


def test_an_address_that_was_given_to_someone_else_does_not_open_the_account(
    app,
    labeler,
    session,
    identity_provider,
):
    visit(Person(app))
    identity_provider.person["sub"] = "subject-2"
    refused = visit(Person(app))
    assert (refused.status_code, "had this address before" in refused.text) == (403, True)
    assert reasons(session) == ["sign_on_other_person"]


@pytest.mark.parametrize("verified", [False, None, "yes"])
def test_an_address_that_is_not_verified_finds_no_account(
    visitor,
    labeler,
    session,
    identity_provider,
    verified,
):
    identity_provider.changed_claims["email_verified"] = verified
    refused = visit(visitor)
    assert (refused.status_code, "does not say that your e-mail address is yours" in refused.text) == (403, True)
    assert visitor.get("/").status_code == 303
    assert reasons(session) == ["sign_on_unverified"]


def test_an_account_by_an_open_link_starts_alone_once_its_owner_comes(app, labeler, session):
    """Whoever registered the address first may have been somebody else: nothing of theirs stays open."""
    service.create_key(session, session.merge(labeler.account), "script")
    session.commit()
    owner = Person(app)
    visit(owner)
    assert labeler.get("/account").status_code == 303
    assert owner.get("/account").status_code == 200
    session.rollback()
    assert session.scalars(select(Account.password_hash)).one() is None
    assert session.scalars(select(APIKey.revoked_at)).one() is not None


@pytest.mark.parametrize(("inviter", "keeps_them"), [("site_admin", True), ("command line", True), ("admin", False)])
def test_only_who_runs_the_installation_vouches_for_an_address(
    request, app, visitor, admin, session, project, identity_provider, inviter, keeps_them
):
    """The link goes to whoever made it: a project's admin could have followed it, and waited for the owner."""
    by = None if inviter == "command line" else request.getfixturevalue(inviter).account.id
    now = db.clock(session)
    token = invitations.invite(
        session, project=project, role=Role.LABELER, email="nina@example.org", created_by=by, now=now
    )
    session.commit()
    visitor.get(f"/invitations/{token}")
    visitor.post(f"/invitations/{token}", data={"name": "Nina", "password": PASSWORD})
    nina = session.scalars(select(Account).where(Account.email == "nina@example.org")).one()
    reset = reset_links.make_reset_link(session, nina, by=session.merge(admin.account), now=now)
    service.create_key(session, nina, "script")
    session.commit()
    identity_provider.person["email"] = "nina@example.org"
    assert visit(Person(app)).status_code == 303
    assert (visitor.get("/account").status_code == 200) is keeps_them
    assert (Person(app).get(f"/reset/{reset}").status_code == 200) is keeps_them
    assert (session.scalars(select(APIKey.revoked_at)).one() is None) is keeps_them
    again = Person(app)
    again.get("/sign-in")
    signed_in = again.post("/sign-in", data={"email": "nina@example.org", "password": PASSWORD})
    assert (signed_in.status_code == 303) is keeps_them


def test_the_first_site_admin_keeps_their_password_and_one_made_later_does_not(
    app, visitor, labeler, project, session, identity_provider
):
    path = invitations.first_admin_link(session, "", now=db.clock(session))
    session.commit()
    visitor.get(path)
    visitor.post(path, data={"name": "Nina", "email": "nina@example.org", "password": PASSWORD})
    visitor.post(f"/people/{labeler.account.id}/make-site-admin")
    visit(Person(app))  # Lena, whose address somebody may have typed
    assert labeler.get("/account").status_code == 303
    identity_provider.person |= {"sub": "subject-2", "email": "nina@example.org"}
    assert visit(Person(app)).status_code == 303
    assert visitor.get("/account").status_code == 200


def test_who_is_not_invited_is_told_whom_to_ask(visitor, project, session):
    refused = visit(visitor)
    assert (refused.status_code, "Nobody has invited lena.labeler@example.org yet" in refused.text) == (403, True)
    assert "Sign in with Example Inc." in refused.text  # the next move is on the page
    assert session.scalar(select(func.count()).select_from(Account)) == 0
    assert reasons(session) == ["sign_on_not_invited"]


def test_who_is_invited_by_address_gets_an_account_and_the_role(visitor, admin, session):
    admin.post("/projects/everyday/people/invitations", data={"role": "researcher", "email": LENA})
    assert visit(visitor).status_code == 303
    assert "Lena of the Provider" in visitor.get("/").text
    role = select(Membership.role).join(Account).where(Account.email == LENA)
    assert session.scalars(role).one() is Role.RESEARCHER


def test_who_holds_an_open_link_joins_without_a_password(visitor, admin, session):
    page = admin.post("/projects/everyday/people/invitations", data={"role": "labeler", "email": ""})
    path = page.text.split('id="invitation-link">http://testserver')[1].split("<")[0]
    assert visit(visitor, path).headers["location"] == path
    assert visitor.post(path).headers["location"] == "/projects/everyday/work"


def test_a_domain_can_be_let_in_without_invitations(engine, settings, session):
    app = make_app(settings.model_copy(update={"oidc_domains": "example.com, Example.ORG"}))
    newcomer = Person(app)
    assert visit(newcomer).status_code == 303
    assert newcomer.get("/").status_code == 200
    assert session.scalars(select(Account.email)).all() == [LENA]
    assert session.scalar(select(func.count()).select_from(Membership)) == 0


def test_a_domain_that_only_ends_alike_is_another(engine, settings, session):
    app = make_app(settings.model_copy(update={"oidc_domains": "ample.org"}))
    assert visit(Person(app)).status_code == 403


def test_a_closed_account_stays_closed(app, labeler, session):
    visit(Person(app))
    session.execute(update(Account).values(disabled_at=func.now()))
    session.commit()
    assert visit(Person(app)).status_code == 403
    assert reasons(session) == ["sign_on_disabled"]


def test_an_address_that_only_the_userinfo_tells_is_asked_for_there(
    visitor,
    labeler,
    identity_provider,
):
    identity_provider.tells_address_in_userinfo = True
    assert visit(visitor).status_code == 303
    assert "Lena Labeler" in visitor.get("/").text


def test_userinfo_about_somebody_else_is_not_believed(
    visitor,
    labeler,
    session,
    identity_provider,
):
    identity_provider.tells_address_in_userinfo = True
    identity_provider.changed_claims["sub"] = "another"
    assert visit(visitor).status_code == 403
    assert reasons(session) == ["sign_on_token"]


Change = Callable[[IdentityProvider], None]
LIES: dict[str, tuple[Change, str]] = {
    "another audience": (lambda it: it.changed_claims.update(aud="another client"), "sign_on_token"),
    "another audience, by us": (
        lambda it: it.changed_claims.update(aud="another client", azp=CLIENT_ID),
        "sign_on_token",
    ),
    "several audiences, made for another": (
        lambda it: it.changed_claims.update(aud=[CLIENT_ID, "another"], azp="another"),
        "sign_on_token",
    ),
    "another issuer": (lambda it: it.changed_claims.update(iss="https://evil.example"), "sign_on_token"),
    "another nonce": (lambda it: it.changed_claims.update(nonce="of another visit"), "sign_on_token"),
    "no nonce": (lambda it: it.changed_claims.update(nonce=None), "sign_on_token"),
    "no expiry": (lambda it: it.changed_claims.update(exp=None), "sign_on_token"),
    "an access token swapped": (lambda it: it.changed_claims.update(at_hash="of another"), "sign_on_token"),
    "a subject without end": (lambda it: it.changed_claims.update(sub="x" * 256), "sign_on_token"),
    "no subject": (lambda it: it.changed_claims.update(sub=""), "sign_on_token"),
    "no signature": (lambda it: setattr(it, "algorithm", "none"), "sign_on_token"),
    "signed with the public key": (lambda it: setattr(it, "algorithm", "HS256"), "sign_on_token"),
    "signed by another key": (lambda it: setattr(it, "signing_key", "second"), "sign_on_token"),
    "of tomorrow": (lambda it: it.changed_claims.update(iat=4_000_000_000, exp=4_000_000_300), "sign_on_clock"),
    "over long ago": (lambda it: it.changed_claims.update(iat=1_000_000_000, exp=1_000_000_300), "sign_on_clock"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_statement_that_cannot_be_trusted_opens_nothing(
    visitor,
    labeler,
    session,
    identity_provider,
    lie,
):
    change, reason = LIES[lie]
    change(identity_provider)
    refused = visit(visitor)
    assert refused.status_code == 403
    assert 'role="alert"' in refused.text
    assert visitor.get("/").status_code == 303
    assert reasons(session) == [reason]
    assert session.scalar(select(func.count()).select_from(SignOnIdentity)) == 0


def test_clocks_may_differ_by_two_minutes(visitor, labeler, session, identity_provider):
    now = int(db.clock(session).timestamp())
    identity_provider.changed_claims.update(iat=now + 100, exp=now - 100)
    assert visit(visitor).status_code == 303


def test_keys_that_the_provider_changed_are_found(app, labeler, identity_provider):
    assert visit(Person(app)).headers["location"] == "/"
    identity_provider.signing_key = identity_provider.published_key = "second"
    again = Person(app)
    assert visit(again).headers["location"] == "/"
    assert again.get("/").status_code == 200


def test_a_visit_that_ended_cannot_end_again(visitor, app, labeler, session):
    address = way_back(visitor)
    secret = visitor.cookies.get("podium_visitor")
    assert visitor.get(address).status_code == 303
    thief = Person(app)
    thief.cookies.set("podium_visitor", secret)
    replayed = thief.get(address)
    assert (replayed.status_code, "was used already" in replayed.text) == (403, True)
    assert reasons(session) == ["sign_on_replayed"]


def test_a_visit_that_another_browser_began_signs_nobody_in(visitor, app, labeler, session):
    """Else somebody could sign a stranger's browser in as themselves, and read what is done there."""
    address = way_back(Person(app))
    for browser in (visitor, Person(app)):
        refused = browser.get(address)
        assert (refused.status_code, "not begun in this browser" in refused.text) == (403, True)
        browser.get("/sign-in")  # has a secret of its own from now on
        assert browser.get(address).status_code == 403
    assert reasons(session) == ["sign_on_unknown"] * 2


def test_a_visit_is_good_for_ten_minutes(visitor, labeler, session):
    address = way_back(visitor)
    too_old = SignOnTicket.created_at - sign_on_accounts.TICKET_DURATION
    session.execute(update(SignOnTicket).values(created_at=too_old))
    session.commit()
    refused = visitor.get(address)
    assert (refused.status_code, "longer than ten minutes" in refused.text) == (403, True)
    assert reasons(session) == ["sign_on_expired"]


def test_a_person_whom_the_provider_lets_not_through_is_told(
    visitor,
    labeler,
    session,
    identity_provider,
):
    identity_provider.error = "access_denied"
    refused = visit(visitor)
    assert (refused.status_code, "(access denied)" in refused.text) == (403, True)
    assert reasons(session) == ["sign_on_declined"]


def test_a_code_that_the_provider_did_not_give_is_declined(visitor, labeler, session):
    query = parse_qs(urlsplit(way_back(visitor)).query)
    refused = visitor.get("/sign-in/sso/return", params={"state": query["state"][0], "code": "made up"})
    assert (refused.status_code, "(invalid grant)" in refused.text) == (403, True)


def test_an_answer_of_another_provider_is_not_taken(visitor, labeler, session):
    query = parse_qs(urlsplit(way_back(visitor)).query)
    answer = {"state": query["state"][0], "code": query["code"][0], "iss": "https://evil.example"}
    assert visitor.get("/sign-in/sso/return", params=answer).status_code == 403
    assert reasons(session) == ["sign_on_token"]


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/token", "/jwks"])
def test_a_provider_in_trouble_is_said_and_locks_nobody_out(
    visitor,
    labeler,
    session,
    identity_provider,
    path,
):
    address = way_back(visitor)
    identity_provider.status_of[path] = 500
    refused = visitor.get(address)
    assert (refused.status_code, "it answered 500" in refused.text) == (503, True)
    assert reasons(session) == ["sign_on_unreachable"]
    assert session.scalar(select(func.count()).select_from(SignInAttempt)) == 0
    visitor.get("/sign-in")
    assert visitor.post("/sign-in", data={"email": LENA, "password": PASSWORD}).status_code == 303


def test_a_provider_that_is_down_leaves_the_password(visitor, labeler, session, identity_provider):
    port = identity_provider.server.server_port
    identity_provider.go_away()
    refused = visitor.get("/sign-in/sso")
    identity_provider.start(port)
    assert (refused.status_code, "did not answer" in refused.text) == (503, True)
    assert 'name="password"' in refused.text
    assert reasons(session) == ["sign_on_unreachable"]


def test_a_provider_that_calls_itself_otherwise_is_not_asked(engine, settings, session, identity_provider):
    other = settings.model_copy(update={"oidc_issuer": identity_provider.issuer + "/"})
    refused = Person(make_app(other)).get("/sign-in/sso")
    assert (refused.status_code, "another name than PODIUM_OIDC_ISSUER" in refused.text) == (503, True)


def test_forged_ends_of_visits_are_slowed_down_and_good_ones_are_not(visitor, app, labeler, session, monkeypatch):
    monkeypatch.setattr(sessions, "MOST_ATTEMPTS_BY_PLACE", 3)
    for _ in range(3):
        assert visit(Person(app)).status_code == 303  # an office at nine: none of these counts
    assert session.scalar(select(func.count()).select_from(SignInAttempt)) == 0
    address = way_back(Person(app))
    visitor.get("/sign-in")
    for _ in range(sessions.MOST_ATTEMPTS_BY_PLACE):
        assert visitor.get(address).status_code == 403
    refused = visitor.get(address)
    assert (refused.status_code, "retry-after" in refused.headers) == (429, True)
    assert len(reasons(session)) == sessions.MOST_ATTEMPTS_BY_PLACE  # the log cannot be filled either


@pytest.mark.parametrize("has_cookie", [True, False])
def test_ends_of_visits_that_any_website_could_cause_lock_nobody_out(
    visitor, app, labeler, session, monkeypatch, has_cookie
):
    """A picture on any page sends a browser here, without our cookies; a link, with them."""
    monkeypatch.setattr(sessions, "MOST_ATTEMPTS_BY_PLACE", 3)
    address = "/sign-in/sso/return?state=forged&code=forged" if has_cookie else way_back(Person(app))
    for _ in range(sessions.MOST_ATTEMPTS_BY_PLACE + 1):
        browser = Person(app)
        if has_cookie:
            browser.get("/sign-in")
        assert browser.get(address).status_code == 403
    assert reasons(session) == []  # and fill no log
    assert visit(visitor).status_code == 303


def test_visits_that_are_begun_and_never_ended_are_slowed_down(visitor, session, monkeypatch):
    monkeypatch.setattr(sign_on_accounts, "MOST_VISITS_BY_PLACE", 2)
    assert [visitor.get("/sign-in/sso").status_code for _ in range(3)] == [303, 303, 429]


def test_tickets_are_swept_up(visitor, session):
    way_back(visitor)
    session.execute(update(SignOnTicket).values(created_at=SignOnTicket.created_at - timedelta(days=2)))
    session.commit()
    way_back(visitor)
    assert session.scalar(select(func.count()).select_from(SignOnTicket)) == 1


def test_signing_out_offers_to_sign_out_at_the_provider_too(visitor, labeler, identity_provider):
    visit(visitor)
    out = visitor.post("/sign-out")
    assert out.headers["location"] == "/sign-in?after=sign-out"
    assert 'href="/sign-in/sso/sign-out"' in visitor.get(out.headers["location"]).text
    there = urlsplit(visitor.get("/sign-in/sso/sign-out").headers["location"])
    assert f"{there.scheme}://{there.netloc}{there.path}" == f"{identity_provider.issuer}/end"
    assert parse_qs(there.query) == {
        "client_id": [CLIENT_ID],
        "post_logout_redirect_uri": ["http://testserver/sign-in"],
    }


def test_signing_out_at_a_provider_in_trouble_is_no_refused_sign_in(visitor, session, identity_provider):
    identity_provider.status_of["/.well-known/openid-configuration"] = 500
    assert visitor.get("/sign-in/sso/sign-out").status_code == 503
    assert reasons(session) == []


def test_who_must_wait_has_nobody_asked_where_to_sign_out(visitor, session, identity_provider, monkeypatch):
    monkeypatch.setattr(sessions, "MOST_ATTEMPTS_BY_PLACE", 0)
    assert visitor.get("/sign-in/sso/sign-out").status_code == 429
    assert identity_provider.asked == []


@pytest.mark.parametrize("next", ["//evil.example", "https://evil.example"])
def test_single_sign_on_leads_to_no_other_site(visitor, labeler, next):
    assert visit(visitor, next).headers["location"] == "/"


def test_whoever_is_signed_in_already_just_goes_on(labeler, identity_provider):
    assert labeler.get("/sign-in/sso?next=/account").headers["location"] == "/account"
    assert identity_provider.asked == []


@pytest.fixture
def every_log(caplog) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG):
        yield caplog


def test_the_secret_is_in_no_log_and_in_no_table(
    visitor,
    labeler,
    session,
    every_log,
    settings,
    identity_provider,
):
    visit(visitor)
    identity_provider.status_of["/token"] = 500
    visit(Person(visitor.app))
    assert CLIENT_SECRET not in every_log.text
    assert CLIENT_SECRET not in repr(settings)
    assert CLIENT_SECRET not in str(session.scalars(select(AuditEvent.detail)).all())


def test_the_database_keeps_no_state_that_could_be_used(visitor, session):
    state = parse_qs(urlsplit(way_back(visitor)).query)["state"][0]
    assert state not in str(session.execute(select(SignOnTicket.__table__)).all())


@pytest.mark.parametrize(
    "given",
    [
        {"oidc_issuer": "https://id.example"},
        {"oidc_issuer": "http://id.example", "oidc_client_id": "a", "oidc_client_secret": CLIENT_SECRET},
    ],
)
def test_half_a_configuration_is_refused_without_telling_the_secret(given):
    with pytest.raises(ValueError, match="PODIUM_OIDC_ISSUER") as refused:
        Settings(**given)
    assert CLIENT_SECRET not in str(refused.value)


def test_empty_variables_are_no_configuration(monkeypatch):
    """As a compose file hands them on where nobody set them."""
    for name in ("ISSUER", "CLIENT_ID", "CLIENT_SECRET", "DOMAINS"):
        monkeypatch.setenv(f"PODIUM_OIDC_{name}", "")
    assert provider_of(Settings(), "https://podium.example.org") is None


def test_sessions_by_single_sign_on_are_sessions_like_any_other(visitor, labeler, session):
    visit(visitor)
    assert session.scalar(select(func.count()).where(SignInSession.revoked_at.is_(None))) == 1
    assert "this browser" in visitor.get("/account").text

"""What browsers are told, and which requests are believed to come from our own pages."""

import pytest

from app.people import service
from app.settings import Settings
from tests.app.conftest import PASSWORD, Person, make_app


@pytest.mark.parametrize("path", ["/sign-in", "/nowhere", "/api/v1/nowhere", "/healthz", "/static/style.css"])
def test_every_answer_carries_a_policy_that_runs_nothing_foreign(visitor, path):
    headers = visitor.get(path).headers
    policy = dict(clause.split(" ", 1) for clause in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"


def test_pages_are_kept_by_no_cache_and_fingerprinted_files_for_ever(visitor):
    page = visitor.get("/sign-in")
    assert page.headers["cache-control"] == "no-store"
    stylesheet = page.text.split('rel="stylesheet" href="')[1].split('"')[0]
    assert "immutable" in visitor.get(stylesheet).headers["cache-control"]
    assert visitor.get("/static/style.css").headers["cache-control"] == "no-cache"


def test_no_page_has_inline_script_or_style(admin, project):
    for path in ["/", "/account", "/projects/everyday/people", "/projects/everyday/audit"]:
        text = admin.get(path).text
        assert " style=" not in text
        assert "<style" not in text
        assert text.count("<script") == text.count('<script type="module" src="/static/')


def test_a_form_of_another_site_is_refused_and_changes_nothing(labeler):
    refused = labeler.post("/account/keys", data={"name": "stolen"}, headers={"x-csrf-token": ""})
    assert (refused.status_code, "stolen" in labeler.get("/account").text) == (403, False)
    accepted = labeler.post("/account/keys", data={"name": "mine"})
    assert (accepted.status_code, "mine" in labeler.get("/account").text) == (200, True)


def test_the_hidden_field_of_a_form_proves_that_it_is_ours(labeler):
    page = labeler.get("/account").text
    token = page.split('name="csrf_token" value="')[1].split('"')[0]
    body = {"name": "from a form", "csrf_token": token}
    assert Person.__mro__[1].request(labeler, "POST", "/account/keys", data=body).status_code == 200
    body["csrf_token"] = token[::-1]
    assert Person.__mro__[1].request(labeler, "POST", "/account/keys", data=body).status_code == 403


def test_the_proof_of_one_session_is_none_in_another(labeler, other_labeler):
    headers = {"x-csrf-token": other_labeler.csrf_token}
    assert labeler.post("/account/keys", data={"name": "k"}, headers=headers).status_code == 403


def test_a_program_with_a_key_needs_no_proof(app, admin, project, session):
    secret = service.create_key(session, session.merge(admin.account), "script")
    session.commit()
    program = Person(app)
    body, headers = {"role": "labeler"}, {"authorization": f"Bearer {secret}"}
    assert program.post("/api/v1/projects/everyday/invitations", json=body, headers=headers).status_code == 201


def test_a_key_beside_a_cookie_acts_for_the_keys_account(admin, labeler, session, project):
    secret = service.create_key(session, session.merge(labeler.account), "script")
    session.commit()
    response = admin.get("/api/v1/me", headers={"authorization": f"Bearer {secret}"})
    assert response.json()["email"] == labeler.account.email


def test_cookies_are_out_of_reach_of_scripts_and_other_sites(visitor, labeler):
    visitor.get("/sign-in")
    response = visitor.post("/sign-in", data={"email": labeler.account.email, "password": PASSWORD})
    cookie = response.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "secure" not in cookie


def test_over_https_cookies_are_secure_and_bound_to_the_host(engine, settings, labeler):
    app = make_app(Settings(home=settings.home, public_url="https://podium.example.org"))
    with_tls = Person(app)
    with_tls.base_url = "https://podium.example.org"
    page = with_tls.get("/sign-in")
    assert page.headers["set-cookie"].startswith("__Host-podium_visitor=")
    assert "strict-transport-security" in page.headers
    token = page.text.split('name="csrf_token" value="')[1].split('"')[0]
    body = {"email": labeler.account.email, "password": PASSWORD, "csrf_token": token}
    cookie = with_tls.post("/sign-in", data=body).headers["set-cookie"]
    assert cookie.startswith("__Host-podium_session=")
    assert "secure" in cookie.lower()


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example", "evil", "/a\nb"])
def test_sign_in_leads_to_no_other_site(visitor, labeler, target):
    visitor.get("/sign-in")
    body = {"email": labeler.account.email, "password": PASSWORD, "next": target}
    assert visitor.post("/sign-in", data=body).headers["location"] == "/"


def test_sign_in_leads_where_the_visitor_wanted_to_be(visitor, labeler):
    sent = visitor.get("/projects/everyday/people?a=b")
    assert sent.headers["location"] == "/sign-in?next=%2Fprojects%2Feveryday%2Fpeople%3Fa%3Db"
    visitor.get("/sign-in")
    body = {"email": labeler.account.email, "password": PASSWORD, "next": "/projects/everyday/people?a=b"}
    assert visitor.post("/sign-in", data=body).headers["location"] == "/projects/everyday/people?a=b"


def test_a_body_that_is_too_large_is_refused(visitor):
    visitor.get("/sign-in")
    assert visitor.post("/sign-in", data={"email": "a@b", "password": "x" * (5 << 20)}).status_code == 413


def test_a_page_from_before_an_update_finds_its_files_and_does_not_keep_them(visitor):
    response = visitor.get("/static/0123456789ab/base.js")
    assert (response.status_code, response.headers["cache-control"]) == (200, "no-cache")
    assert visitor.get("/static/nowhere/base.js").status_code == 404

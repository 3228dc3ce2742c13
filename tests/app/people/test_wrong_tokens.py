"""Guessing keys, links and passwords: who has to wait, and that several web processes count as one."""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app import db
from app.main import create_app
from app.people import caller, reset_links, service, wrong_tokens
from app.people.access import Credential
from app.people.caller import identify
from app.people.errors import TooManyWrongTokens
from app.people.models import APIKey, Invitation, PasswordReset, SignInAttempt, WrongToken, WrongTokenKind
from app.people.sessions import ATTEMPTS_WINDOW, MOST_ATTEMPTS_BY_PAIR
from app.projects.models import Project
from app.settings import Settings
from tests.app.conftest import PASSWORD, Person
from tests.app.test_access import UUID as NOBODYS
from tests.app.test_access import dependencies, routes

MOST_KEYS, MOST_LINKS = (wrong_tokens.MOST_BY_PLACE[kind] for kind in (WrongTokenKind.KEY, WrongTokenKind.LINK))


def try_key(person: Person, key: str) -> Any:
    return person.get("/api/v1/me", headers={"authorization": f"Bearer {key}"})


def already(session: Session, kind: WrongTokenKind, num: int, place: str = "testclient") -> None:
    """So many were tried before."""
    now = db.clock(session)
    session.add_all(WrongToken(kind=kind, place=place, at=now) for _ in range(num))
    session.commit()


def pass_time(session: Session) -> None:
    session.execute(update(WrongToken).values(at=WrongToken.at - ATTEMPTS_WINDOW))
    session.commit()


def test_a_place_that_tries_keys_is_told_to_wait_and_its_good_keys_go_on(
    visitor: Person, labeler: Person, session: Session
) -> None:
    good = service.create_key(session, session.merge(labeler.account), "script")
    already(session, WrongTokenKind.KEY, MOST_KEYS - 1)
    assert try_key(visitor, "podium_wrong").status_code == 401
    refused = try_key(visitor, "podium_wrong again")
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_attempts")
    assert 0 < int(refused.headers["retry-after"]) <= ATTEMPTS_WINDOW.total_seconds()
    assert try_key(visitor, good).status_code == 200
    pass_time(session)
    assert try_key(visitor, "podium_wrong").status_code == 401
    assert session.scalar(select(func.count(WrongToken.id))) == 1  # what is too old to count is gone


def test_the_labelers_own_requests_count_wrong_keys_too(visitor: Person, session: Session) -> None:
    headers = {"authorization": "Bearer podium_wrong"}
    path = "/api/v1/leases/00000000-0000-4000-8000-000000000000/renewal"
    assert visitor.post(path, headers=headers).status_code == 401
    assert session.scalar(select(func.count(WrongToken.id))) == 1


@pytest.mark.parametrize("page", ["invitations", "reset"])
def test_a_place_that_tries_links_has_to_wait_with_a_good_one_too(
    admin: Person, labeler: Person, visitor: Person, session: Session, page: str
) -> None:
    assert labeler.account is not None
    if page == "reset":
        text = admin.post(f"/people/{labeler.account.id}/reset").text
        good = "/reset/" + text.split("/reset/")[1].split("<")[0].split('"')[0].strip()
    else:
        good = admin.post("/api/v1/projects/everyday/invitations", json={"role": "labeler"}).json()["url"]
        good = good.removeprefix("http://testserver")
    assert visitor.get(good).status_code == 200
    already(session, WrongTokenKind.LINK, MOST_LINKS - 1)
    assert visitor.get(f"/{page}/wrong").status_code == 404
    for path in (f"/{page}/wrong", good):
        assert visitor.get(path).status_code == 429
        assert visitor.post(path, data={"password": "a few words together"}).status_code == 429
    already(session, WrongTokenKind.LINK, MOST_LINKS, place="203.0.113.9")
    pass_time(session)
    assert visitor.get(good).status_code == 200


def test_keys_and_links_do_not_lock_people_out_who_sign_in(visitor: Person, labeler: Person, session: Session) -> None:
    for kind in WrongTokenKind:
        already(session, kind, 100)
    visitor.get("/sign-in")
    assert labeler.account is not None
    signed_in = visitor.post("/sign-in", data={"email": labeler.account.email, "password": PASSWORD})
    assert signed_in.status_code == 303


def test_two_web_processes_count_together(app: FastAPI, settings: Settings, session: Session) -> None:
    processes = [Person(app), Person(create_app(settings))]
    statuses = [try_key(processes[number % 2], "podium_wrong").status_code for number in range(MOST_KEYS + 2)]
    assert statuses == [401] * MOST_KEYS + [429] * 2


def test_parallel_guesses_are_counted_one_by_one(engine: Any) -> None:
    def guess(number: int) -> bool:
        try:
            with db.SessionFactory.begin() as session:
                wrong_tokens.write_down(session, WrongTokenKind.LINK, "198.51.100.7", now=db.clock(session))
        except TooManyWrongTokens:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(guess, range(MOST_LINKS + 8))) == MOST_LINKS


def test_a_place_beyond_its_limit_waits_for_nobody_and_is_logged_once(
    visitor: Person, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    already(session, WrongTokenKind.KEY, MOST_KEYS - 1)
    statuses = [try_key(visitor, "podium_wrong").status_code for _ in range(4)]
    assert statuses == [401, 429, 429, 429]
    assert [record.message for record in caplog.records].count(
        "too many tokens that nobody issued: kind=key place=testclient"
    ) == 1
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended("wrong key testclient", 0))))
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(try_key, visitor, "podium_wrong")
        try:
            assert waiting.result(timeout=20).status_code == 429
        finally:
            session.rollback()


def test_wrong_keys_take_no_connection_from_those_who_submit(
    visitor: Person, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(db.LoopSessionFactory.kw, "bind", None)
    assert try_key(visitor, "podium_wrong").status_code == 401
    assert session.scalar(select(func.count(WrongToken.id))) == 1


LABELERS_OWN = {  # what labelers' pages ask many times a slate
    "/api/v1/projects/everyday/leases": {"wanted": 1},
    "/api/v1/projects/everyday/leases/screens": {"since": "2026-01-01T00:00:00Z"},
    f"/api/v1/leases/{NOBODYS}/renewal": None,
    f"/api/v1/leases/{NOBODYS}/draft": {"revision": 0, "content": {}},
    f"/api/v1/leases/{NOBODYS}/ranking": {"ranking_id": NOBODYS, "ranks": {}},
}


def ask(person: Person, path: str, **options: Any) -> Any:
    return person.request("PUT" if path.endswith("/draft") else "POST", path, json=LABELERS_OWN[path], **options)


def test_these_are_all_that_run_in_the_event_loop() -> None:
    in_the_loop = {
        path for (_, path), dependant in routes().items() if dependant and identify in dependencies(dependant)
    }
    asked = {path.replace("everyday", "{slug}").replace(NOBODYS, "{lease_id}") for path in LABELERS_OWN}
    assert in_the_loop == asked


@pytest.mark.parametrize("path", LABELERS_OWN)
@pytest.mark.parametrize("shown", ["key", "session"])
def test_a_made_up_credential_takes_no_connection_of_the_labelers_on_their_own_routes(
    app: FastAPI, session: Session, monkeypatch: pytest.MonkeyPatch, path: str, shown: str
) -> None:
    monkeypatch.setitem(db.LoopSessionFactory.kw, "bind", None)
    headers = {"authorization": "Bearer podium_wrong"} if shown == "key" else {}
    stranger = Person(app, token=None if shown == "key" else "made up")
    assert [ask(stranger, path, headers=headers).status_code for _ in range(2)] == [401, 401]
    assert session.scalar(select(func.count(WrongToken.id))) == (2 if shown == "key" else 0)


def test_a_credential_that_was_good_waits_for_no_page_and_is_refused_when_it_ends(
    visitor: Person, labeler: Person, project: Project, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"authorization": f"Bearer {service.create_key(session, session.merge(labeler.account), 'script')}"}
    session.commit()
    path = "/api/v1/projects/everyday/leases"
    assert ask(visitor, path, headers=headers).status_code == 200
    with monkeypatch.context() as without_pages:
        without_pages.setitem(db.SessionFactory.kw, "bind", None)
        assert ask(visitor, path, headers=headers).status_code == 200
    session.execute(update(APIKey).values(revoked_at=db.clock(session)))
    session.commit()
    assert ask(visitor, path, headers=headers).status_code == 401
    with monkeypatch.context() as without_the_loop:
        without_the_loop.setitem(db.LoopSessionFactory.kw, "bind", None)
        assert ask(visitor, path, headers=headers).status_code == 401


def test_only_so_many_credentials_are_kept_in_mind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caller, "MOST_MET", 2)
    met, keys = caller.Met(), [Credential(bytes([number]), is_key=True) for number in range(3)]
    for number in (0, 1, 0, 2):  # the first is used again
        met.add(keys[number])
    assert [key in met for key in keys] == [True, False, True]


@pytest.mark.parametrize("end", ["accepted", "revoked", "expired"])
def test_an_invitation_that_has_ended_is_no_guess(
    admin: Person, outsider: Person, visitor: Person, session: Session, end: str
) -> None:
    links = [admin.post("/api/v1/projects/everyday/invitations", json={"role": "labeler"}).json()["url"] for _ in "ab"]
    ended, good = (link.removeprefix("http://testserver") for link in links)
    invitation = session.scalars(select(Invitation).order_by(Invitation.id)).first()
    assert invitation is not None
    if end == "accepted":
        assert outsider.post(ended).status_code == 303
    else:
        setattr(invitation, "revoked_at" if end == "revoked" else "expires_at", db.clock(session))
        session.commit()
    assert {visitor.get(ended).status_code for _ in range(MOST_LINKS + 1)} == {404}
    assert session.scalar(select(func.count(WrongToken.id))) == 0
    assert visitor.get(good).status_code == 200


@pytest.mark.parametrize("end", ["used_at", "revoked_at", "expires_at"])
def test_a_link_for_a_new_password_that_has_ended_is_no_guess(
    labeler: Person, visitor: Person, session: Session, end: str
) -> None:
    account, now = session.merge(labeler.account), db.clock(session)
    assert account is not None
    token = reset_links.make_reset_link(session, account, by=None, now=now)
    session.flush()
    setattr(session.scalars(select(PasswordReset)).one(), end, now)
    session.commit()
    assert {visitor.get(f"/reset/{token}").status_code for _ in range(MOST_LINKS + 1)} == {404}
    assert session.scalar(select(func.count(WrongToken.id))) == 0


def test_whoever_finds_a_browser_open_does_not_guess_the_password_there(labeler: Person, session: Session) -> None:
    for _ in range(MOST_ATTEMPTS_BY_PAIR):
        wrong = labeler.post("/account/password", data={"old": "wrong", "new": "another few words"})
        assert wrong.status_code == 422
    refused = labeler.post("/account/password", data={"old": PASSWORD, "new": "another few words"})
    assert refused.status_code == 429
    session.execute(update(SignInAttempt).values(at=SignInAttempt.at - ATTEMPTS_WINDOW))
    session.commit()
    done = labeler.post("/account/password", data={"old": PASSWORD, "new": "another few words"})
    assert done.status_code == 200


def test_signing_in_again_ends_the_session_that_the_browser_had(app: FastAPI, labeler: Person) -> None:
    planted = Person(app, labeler.account, labeler.token)  # whoever knows the token that the browser carries
    assert planted.get("/account").status_code == 200
    assert labeler.account is not None
    signed_in = labeler.post("/sign-in", data={"email": labeler.account.email, "password": PASSWORD})
    assert signed_in.status_code == 303
    (new,) = re.findall("podium_session=([^;]+)", signed_in.headers["set-cookie"])
    assert planted.get("/account").headers["location"].startswith("/sign-in")
    assert Person(app, labeler.account, new).get("/account").status_code == 200


def test_a_token_that_somebody_planted_is_never_taken_for_a_session(visitor: Person, labeler: Person) -> None:
    visitor.cookies.set("podium_session", "planted", domain="testserver.local", path="/")
    visitor.get("/sign-in")
    assert labeler.account is not None
    visitor.post("/sign-in", data={"email": labeler.account.email, "password": PASSWORD})
    assert visitor.cookies["podium_session"] != "planted"
    assert visitor.get("/account").status_code == 200

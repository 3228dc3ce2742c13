"""Signing in and out: who gets in, who is kept out, and for how long."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from argon2 import Type
from sqlalchemy import func, select, text, update

from app import db
from app.people import passwords, service, sessions
from app.people.errors import TooManyAttempts, WeakPassword
from app.people.models import Account, SignInAttempt, SignInSession
from tests.app.conftest import PASSWORD, STRONG_HASHER, Person


@pytest.fixture
def sign_in(visitor):
    visitor.get("/sign-in")

    def sign_in(email: str, password: str = PASSWORD):
        return visitor.post("/sign-in", data={"email": email, "password": password})

    return sign_in


def test_the_right_password_opens_a_session(visitor, sign_in, labeler, project):
    response = sign_in("  Lena.Labeler@Example.org ")
    assert (response.status_code, response.headers["location"]) == (303, "/")
    home = visitor.get("/")
    assert "Lena Labeler" in home.text
    assert "Start ranking" in home.text


def test_a_wrong_password_keeps_the_form_and_tells_nothing(sign_in, labeler):
    wrong = sign_in(labeler.account.email, "wrong")
    unknown = sign_in("nobody@example.org", "wrong")
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.text.replace(labeler.account.email, "…") == unknown.text.replace("nobody@example.org", "…")


def test_an_unknown_account_costs_a_hash_like_a_known_one(monkeypatch, sign_in, labeler):
    verified = []
    real = passwords._hasher

    class Counting:
        def verify(self, password_hash: str, password: str) -> bool:
            verified.append(password_hash)
            return real.verify(password_hash, password)

        def hash(self, password: str) -> str:
            return real.hash(password)

        def check_needs_rehash(self, password_hash: str) -> bool:
            return real.check_needs_rehash(password_hash)

    monkeypatch.setattr(passwords, "_hasher", Counting())
    sign_in(labeler.account.email, "wrong")
    sign_in("nobody@example.org", "wrong")
    assert len(verified) == 2
    assert all(each.startswith("$argon2id$") for each in verified)


def test_passwords_are_stored_as_argon2id(session):
    account = service.create_account(session, email="New@example.org", name="New", password="a few words together")
    assert account.password_hash.startswith("$argon2id$")
    assert passwords.is_password(account.password_hash, "a few words together")
    assert not passwords.is_password(account.password_hash, "another few words")


def test_a_hash_costs_what_rfc_9106_asks_for():
    """Tests hash with less (tests/app/conftest.py)."""
    assert STRONG_HASHER.type is Type.ID
    assert STRONG_HASHER.memory_cost >= 64 * 1024  # KiB
    assert STRONG_HASHER.time_cost >= 3


@pytest.mark.parametrize("password", ["short", "x" * 1025, "aaaaaaaaaaaaaa", "long.enough@example.org"])
def test_a_weak_password_is_refused(session, password):
    with pytest.raises(WeakPassword):
        service.create_account(session, email="long.enough@example.org", name="New", password=password)


def test_an_old_hash_is_renewed_at_sign_in(session, sign_in, labeler):
    cheap = passwords.PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(PASSWORD)
    session.execute(update(Account).where(Account.id == labeler.account.id).values(password_hash=cheap))
    session.commit()
    assert sign_in(labeler.account.email).status_code == 303
    stored = session.scalars(select(Account.password_hash).where(Account.id == labeler.account.id)).one()
    assert not passwords.needs_rehash(stored)


def test_the_sixth_failure_from_one_place_must_wait(sign_in, labeler, session):
    for _ in range(sessions.MOST_ATTEMPTS_BY_PAIR):
        assert sign_in(labeler.account.email, "wrong").status_code == 401
    refused = sign_in(labeler.account.email)
    assert refused.status_code == 429
    assert 0 < int(refused.headers["retry-after"]) <= sessions.ATTEMPTS_WINDOW.total_seconds()
    session.execute(update(SignInAttempt).values(at=SignInAttempt.at - sessions.ATTEMPTS_WINDOW))
    session.commit()
    assert sign_in(labeler.account.email).status_code == 303


def test_failures_elsewhere_do_not_lock_an_account(session, sign_in, labeler):
    now = db.clock(session)
    for _ in range(sessions.MOST_ATTEMPTS_BY_PAIR + 1):
        session.add(SignInAttempt(email=labeler.account.email, address="203.0.113.9", at=now))
    session.commit()
    assert sign_in(labeler.account.email).status_code == 303


def test_one_place_cannot_try_one_password_on_many_accounts(session, sign_in, labeler):
    now = db.clock(session)
    for number in range(sessions.MOST_ATTEMPTS_BY_PLACE):
        session.add(SignInAttempt(email=f"person{number}@example.org", address="testclient", at=now))
    session.commit()
    assert sign_in(labeler.account.email).status_code == 429


def test_parallel_guesses_are_counted_one_by_one(engine, labeler):
    def guess(number: int) -> bool:
        try:
            with db.SessionFactory.begin() as session:
                sessions.authenticate(
                    session,
                    email=labeler.account.email,
                    password=f"wrong {number}",
                    place="198.51.100.7",
                    now=db.clock(session),
                )
        except TooManyAttempts:
            return False
        return True

    with ThreadPoolExecutor(12) as threads:
        verified = sum(threads.map(guess, range(12)))
    assert verified == sessions.MOST_ATTEMPTS_BY_PAIR


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("testclient", "testclient"),
    ],
)
def test_one_customer_is_one_place(address, place):
    assert sessions.place_of(address) == place


def test_signing_out_ends_the_session_for_good(labeler, app, session):
    assert labeler.get("/account").status_code == 200
    assert labeler.post("/sign-out").headers["location"] == "/sign-in"
    stolen = Person(app, labeler.account, labeler.token)
    assert stolen.get("/account").headers["location"].startswith("/sign-in")


def test_a_session_ends_when_it_was_not_used_for_long(labeler, session):
    session.execute(update(SignInSession).values(expires_at=func.now() - timedelta(seconds=1)))
    session.commit()
    assert labeler.get("/account").status_code == 303


def test_use_keeps_a_session_alive(labeler, session):
    session.execute(
        update(SignInSession).values(
            last_seen_at=func.now() - timedelta(hours=1), expires_at=func.now() + timedelta(hours=1)
        )
    )
    session.commit()
    labeler.get("/account")
    left = session.scalars(select(SignInSession.expires_at - func.now())).one()
    assert left > timedelta(days=13)


def test_a_disabled_account_is_out_at_once(labeler, session, sign_in):
    session.execute(update(Account).values(disabled_at=func.now()))
    session.commit()
    assert labeler.get("/account").status_code == 303
    assert sign_in(labeler.account.email).status_code == 401


def test_the_database_keeps_no_token_that_could_be_used(labeler, session):
    stored = session.scalars(select(SignInSession.token_hash)).one()
    assert labeler.token.encode() not in stored
    dump = session.scalars(text("SELECT sign_in_session::text FROM sign_in_session")).one()
    assert labeler.token not in dump


def test_a_new_password_signs_every_other_browser_out(app, labeler, session):
    elsewhere = Person(
        app, labeler.account, sessions.open_session(session, labeler.account, user_agent=None, now=db.clock(session))
    )
    session.commit()
    assert elsewhere.get("/account").status_code == 200
    wrong = labeler.post("/account/password", data={"old": "wrong", "new": "another few words"})
    assert (wrong.status_code, elsewhere.get("/account").status_code) == (422, 200)
    done = labeler.post("/account/password", data={"old": PASSWORD, "new": "another few words"})
    assert (done.status_code, elsewhere.get("/account").status_code) == (200, 303)
    assert labeler.get("/account").status_code == 200


def test_one_browser_can_be_signed_out_from_another(app, labeler, other_labeler, session):
    elsewhere = Person(
        app, labeler.account, sessions.open_session(session, labeler.account, user_agent="phone", now=db.clock(session))
    )
    session.commit()
    ids = dict(
        session.execute(
            select(SignInSession.user_agent, SignInSession.id).where(SignInSession.account_id == labeler.account.id)
        ).all()
    )
    other_labeler.post(f"/account/sessions/{ids['phone']}/revoke")  # not theirs: nothing happens
    assert elsewhere.get("/account").status_code == 200
    labeler.post(f"/account/sessions/{ids['phone']}/revoke")
    assert elsewhere.get("/account").status_code == 303
    assert labeler.get("/account").status_code == 200


@pytest.mark.parametrize("email", ["a\x00b@example.org", "x" * 300 + "@example.org", "\ud800@example.org", ""])
def test_an_address_that_cannot_be_one_is_only_wrong(sign_in, email):
    assert sign_in(email.encode("utf-8", "replace").decode()).status_code in {401, 422}


def test_the_sign_in_page_says_where_the_first_administrator_begins(visitor, person):
    assert "The terminal that started it" in visitor.get("/sign-in").text
    person("Sita Site", is_site_admin=True)
    assert "The terminal that started it" not in visitor.get("/sign-in").text

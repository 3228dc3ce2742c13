"""Signing in and out: how often one may try, the browsers that are signed in, and one's own password. Never commits."""

from datetime import datetime, timedelta
from ipaddress import ip_address, ip_network
from uuid import UUID

from sqlalchemy import func, or_, select, text, update
from sqlalchemy.orm import Session

from app.people import service
from app.people.access import SESSION_DURATION
from app.people.errors import TooManyAttempts
from app.people.models import Account, SignInAttempt, SignInSession
from app.people.passwords import check_password, hash_password, is_password, needs_rehash, new_token, token_hash

ATTEMPTS_WINDOW = timedelta(minutes=15)
# Failed sign-ins within the window. By pair first, so that a stranger cannot lock an account from afar by failing on
# purpose; by place against trying one password on many accounts; by account against many places.
MOST_ATTEMPTS_BY_PAIR, MOST_ATTEMPTS_BY_PLACE, MOST_ATTEMPTS_BY_ACCOUNT = 5, 30, 100


def authenticate(session: Session, *, email: str, password: str, place: str, now: datetime) -> Account | None:
    """The account, or None (and a failed attempt stored, which the caller must commit).

    place: where the attempt comes from (place_of).  Raises TooManyAttempts.
    """
    email = email.strip().lower()[: service.LONGEST_EMAIL].replace("\x00", "")
    _take_turns(session, email, place)
    _check_attempts(session, email, place, now)
    account = session.scalar(select(Account).where(Account.email == email))
    if not is_password(account.password_hash if account else None, password) or account is None or account.disabled_at:
        session.add(SignInAttempt(email=email, address=place, at=now))
        return None
    if account.password_hash and needs_rehash(account.password_hash):
        account.password_hash = hash_password(password)
    return account


def place_of(address: str) -> str:
    """Where an attempt comes from: an IPv4 address, or the /64 that one IPv6 customer holds."""
    try:
        ip = ip_address(address)
    except ValueError:
        return address  # a Unix socket, a test client
    if ip.version == 4:
        return str(ip)
    if ip.ipv4_mapped is not None:  # as a listener on :: writes them: one /64 would be all of IPv4
        return str(ip.ipv4_mapped)
    return str(ip_network(f"{ip}/64", strict=False))


def _take_turns(session: Session, email: str, place: str) -> None:
    # A hundred parallel guesses must not all count the same number of failures before any is stored.
    for subject in sorted((f"account {email}", f"place {place}")):
        session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:subject, 0))"), {"subject": subject})


def _check_attempts(session: Session, email: str, place: str, now: datetime) -> None:
    since = now - ATTEMPTS_WINDOW
    is_account, is_place = SignInAttempt.email == email, SignInAttempt.address == place
    by_pair, by_place, by_account, oldest = session.execute(
        select(
            func.count().filter(is_account & is_place),
            func.count().filter(is_place),
            func.count().filter(is_account),
            func.min(SignInAttempt.at),
        ).where(SignInAttempt.at > since, or_(is_account, is_place))
    ).one()
    if by_pair >= MOST_ATTEMPTS_BY_PAIR or by_place >= MOST_ATTEMPTS_BY_PLACE or by_account >= MOST_ATTEMPTS_BY_ACCOUNT:
        raise TooManyAttempts(max(1, int((oldest + ATTEMPTS_WINDOW - now).total_seconds())))


def open_session(session: Session, account: Account, *, user_agent: str | None, now: datetime) -> str:
    """Sign a browser in; returns the cookie's token, of which only the hash is stored."""
    token = new_token()
    session.add(
        SignInSession(
            token_hash=token_hash(token),
            account_id=account.id,
            created_at=now,
            last_seen_at=now,
            expires_at=now + SESSION_DURATION,
            user_agent=(user_agent or "")[:200] or None,
        )
    )
    return token


def close_session(session: Session, token: str, *, now: datetime) -> None:
    """Sign the browser that holds the token out."""
    session.execute(
        update(SignInSession)
        .where(SignInSession.token_hash == token_hash(token), SignInSession.revoked_at.is_(None))
        .values(revoked_at=now)
    )


def end_sessions(
    session: Session, account: Account, *, now: datetime, keep: str | None = None, only: UUID | None = None
) -> None:
    """Sign the account out in every browser but the one with the token `keep`, or in the session `only`."""
    query = update(SignInSession).where(SignInSession.account_id == account.id, SignInSession.revoked_at.is_(None))
    if keep is not None:
        query = query.where(SignInSession.token_hash != token_hash(keep))
    if only is not None:
        query = query.where(SignInSession.id == only)
    session.execute(query.values(revoked_at=now))


def change_password(
    session: Session, account: Account, *, old: str, new: str, keep: str | None, place: str, now: datetime
) -> bool:
    """Set a new password and end every other session; False when the old one is wrong.

    keep: the token of the session to leave open.  place: as in authenticate: whoever found a browser open must not
    guess here as often as they like.  Raises TooManyAttempts, WeakPassword.
    """
    _take_turns(session, account.email, place)
    _check_attempts(session, account.email, place, now)
    if not is_password(account.password_hash, old):
        session.add(SignInAttempt(email=account.email, address=place, at=now))
        return False
    check_password(new, account.email)
    account.password_hash = hash_password(new)
    end_sessions(session, account, keep=keep, now=now)
    service.audit(session, account.id, "account.password", f"account:{account.id}")
    return True

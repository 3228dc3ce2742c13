"""Links by which an account sets a new password, once. Never commits."""

from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.people import managing, service, sessions
from app.people.errors import ResetLinkNotFound, ResetLinkWithdrawn, UnknownResetLink
from app.people.models import Account, PasswordReset
from app.people.passwords import check_password, hash_password, new_token, token_hash

RESET_DURATION = timedelta(days=1)


def make_reset_link(session: Session, account: Account, *, by: Account | None, now: datetime) -> str:
    """The token of a link by which the account sets a new password; links made before stop working."""
    session.refresh(account, with_for_update={"key_share": True})  # of two made at once, one works
    revoke_reset_links(session, account, now=now)
    token = new_token()
    by_id = by.id if by else None
    session.add(
        PasswordReset(
            token_hash=token_hash(token),
            account_id=account.id,
            created_by=by_id,
            created_at=now,
            expires_at=now + RESET_DURATION,
        )
    )
    service.audit(session, by_id, "account.reset_link", f"account:{account.id}")
    return token


def account_of_reset_link(session: Session, token: str, *, now: datetime) -> Account:
    """Whose password the link sets.  Raises ResetLinkNotFound, ResetLinkWithdrawn."""
    link = _open_link(session, token, now=now)
    _check_maker(session, link)
    return session.get_one(Account, link.account_id)


def reset_password(session: Session, token: str, password: str, *, now: datetime) -> Account:
    """Set a new password by a link, once; every browser is signed out.

    Raises ResetLinkNotFound, ResetLinkWithdrawn, WeakPassword.
    """
    account_id = _open_link(session, token, now=now).account_id
    # The account before the link, as whoever ends its links locks them; and nobody joins a project meanwhile.
    account = session.get_one(Account, account_id, with_for_update={"key_share": True}, populate_existing=True)
    link = _open_link(session, token, now=now, lock=True)
    _check_maker(session, link)
    check_password(password, account.email)
    account.password_hash, link.used_at = hash_password(password), now
    sessions.end_sessions(session, account, now=now)
    service.audit(session, account.id, "account.password_reset", f"account:{account.id}")
    return account


def withdraw(session: Session, token: str, *, now: datetime) -> None:
    """End a link whose maker lost the right to make it, and write down that it was tried.  Raises ResetLinkNotFound."""
    link = _open_link(session, token, now=now, lock=True)
    link.revoked_at = now
    service.audit(session, None, "account.reset_link_withdrawn", f"account:{link.account_id}", made_by=link.created_by)


def _open_link(session: Session, token: str, *, now: datetime, lock: bool = False) -> PasswordReset:
    query = (
        select(PasswordReset)
        .join(Account, Account.id == PasswordReset.account_id)
        .where(PasswordReset.token_hash == token_hash(token), PasswordReset.expires_at > now)
        .where(PasswordReset.used_at.is_(None), PasswordReset.revoked_at.is_(None), Account.disabled_at.is_(None))
    )
    if lock:
        query = query.with_for_update(of=PasswordReset).execution_options(populate_existing=True)
    link = session.scalar(query)
    if link is None:
        was_made = select(PasswordReset.id).where(PasswordReset.token_hash == token_hash(token))
        raise UnknownResetLink if session.scalar(was_made) is None else ResetLinkNotFound
    return link


def _check_maker(session: Session, link: PasswordReset) -> None:
    """A link is as good as its maker's right is now, not as it was then. The command line's needs none."""
    if link.created_by is None:
        return
    maker = session.get_one(Account, link.created_by, populate_existing=True)
    if maker.disabled_at is not None or not managing.manages(session, maker, link.account_id):
        raise ResetLinkWithdrawn


def revoke_reset_links(session: Session, account: Account, *, now: datetime) -> None:
    """End the account's open links for a new password: who made them might not be allowed to make them now."""
    session.execute(
        update(PasswordReset)
        .where(PasswordReset.account_id == account.id, PasswordReset.used_at.is_(None))
        .where(PasswordReset.revoked_at.is_(None))
        .values(revoked_at=now)
    )

"""Single sign-on and the accounts: tickets for visits to the provider, and whose account the person behind one has."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.orm import Session

from app.people import invitations, reset_links, service, sessions
from app.people.errors import InvalidPerson, InvitationNotFound, TooManyAttempts
from app.people.models import Account, APIKey, Invitation, SignInAttempt, SignOnIdentity, SignOnTicket
from app.people.passwords import new_token, token_hash
from app.people.sign_on import Person, Ticket
from app.people.sign_on_errors import (
    AccountDisabled,
    AddressNotVerified,
    AddressOfAnother,
    NoSuchVisit,
    NotInvited,
    SignOnExpired,
    SignOnRefused,
    SignOnReplayed,
    SignOnUnknown,
)

TICKET_DURATION = timedelta(minutes=10)
KEPT = timedelta(days=1)  # after that a ticket is not even known as used
# Visits begun and not ended, within the window: an office that signs in at nine shares one address.
MOST_VISITS_BY_PLACE = 300
SIGN_ON = "single sign-on"  # stands for the address in failed attempts: which one it was is not known


def begin(session: Session, *, browser: str, place: str, next: str, now: datetime) -> Ticket:
    """A ticket for one visit to the provider. browser: a secret of its cookie.  Raises TooManyAttempts."""
    check_place(session, place, now=now)
    session.execute(delete(SignOnTicket).where(SignOnTicket.created_at < now - KEPT))
    ticket = Ticket(state=new_token(), nonce=new_token(), code_verifier=new_token())
    session.add(
        SignOnTicket(
            state_hash=token_hash(ticket.state),
            browser_hash=token_hash(browser),
            nonce=ticket.nonce,
            code_verifier=ticket.code_verifier,
            next=next,
            place=place,
            created_at=now,
        )
    )
    return ticket


def check_place(session: Session, place: str, *, now: datetime) -> None:
    """Forged ends of visits count with wrong passwords.  Raises TooManyAttempts."""
    since = now - sessions.ATTEMPTS_WINDOW
    failed = select(func.count()).where(SignInAttempt.address == place, SignInAttempt.at > since)
    begun = select(func.count()).where(
        SignOnTicket.place == place, SignOnTicket.created_at > since, SignOnTicket.used_at.is_(None)
    )
    if (
        session.scalars(failed).one() >= sessions.MOST_ATTEMPTS_BY_PLACE
        or session.scalars(begun).one() >= MOST_VISITS_BY_PLACE
    ):
        raise TooManyAttempts(int(sessions.ATTEMPTS_WINDOW.total_seconds()))


@dataclass(frozen=True)
class Visit:
    """A visit that has come to its end, once."""

    ticket: Ticket
    next: str


def end(session: Session, *, state: str, browser: str, now: datetime) -> Visit:
    """Take the ticket that the state belongs to; nobody can take it again.

    Raises NoSuchVisit, SignOnUnknown, SignOnReplayed, SignOnExpired.
    """
    kept = session.get(SignOnTicket, token_hash(state), with_for_update=True)
    if kept is None:
        raise NoSuchVisit
    if kept.browser_hash != token_hash(browser):
        raise SignOnUnknown
    if kept.used_at is not None:
        raise SignOnReplayed
    if kept.created_at < now - TICKET_DURATION:
        raise SignOnExpired
    kept.used_at = now
    return Visit(Ticket(state, kept.nonce, kept.code_verifier), kept.next)


def account_of(session: Session, person: Person, *, next: str, domains: frozenset[str], now: datetime) -> Account:
    """The account of the person: the one linked before, else the one of their address, else a new one if invited.

    next: where they are going; an invitation's page is an invitation.  domains: whose people need none.
    Raises AccountDisabled, AddressNotVerified, AddressOfAnother, NotInvited.
    """
    _one_at_a_time(session, person)
    identity = session.scalar(
        select(SignOnIdentity).where(SignOnIdentity.issuer == person.issuer, SignOnIdentity.subject == person.subject)
    )
    if identity is None:
        identity = _link(session, person, next=next, domains=domains, now=now)
    identity.email, identity.last_used_at = person.email, now
    account = session.get_one(Account, identity.account_id)
    if account.disabled_at is not None:
        raise AccountDisabled
    return account


def _one_at_a_time(session: Session, person: Person) -> None:
    subject = f"sign-on {person.issuer} {person.subject}"  # two tabs of a newcomer make one account
    session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:subject, 0))"), {"subject": subject})


def _link(session: Session, person: Person, *, next: str, domains: frozenset[str], now: datetime) -> SignOnIdentity:
    if person.email is None or not person.is_email_verified:
        raise AddressNotVerified
    try:
        email = service.normal_email(person.email)
    except InvalidPerson as error:
        raise AddressNotVerified from error
    account = service.find_by_email(session, email)
    if account is None:
        account = _new_account(session, person, email, next=next, domains=domains, now=now)
    else:
        session.refresh(account, with_for_update=True)  # of two who come with one address, one gets it
        _check_free(session, account, person)
        if not _is_vouched_for(session, account):
            _end_what_others_may_hold(session, account, now=now)
    identity = SignOnIdentity(account_id=account.id, issuer=person.issuer, subject=person.subject, created_at=now)
    session.add(identity)
    session.flush()
    service.audit(session, account.id, "sign_on.link", f"account:{account.id}", issuer=person.issuer)
    return identity


def _check_free(session: Session, account: Account, person: Person) -> None:
    if account.disabled_at is not None:
        raise AccountDisabled
    linked = select(SignOnIdentity.id).where(
        SignOnIdentity.account_id == account.id, SignOnIdentity.issuer == person.issuer
    )
    if session.scalar(linked) is not None:
        raise AddressOfAnother(account.email)


def _is_vouched_for(session: Session, account: Account) -> bool:
    """Whether a site admin or the command line wrote its address into the invitation that it came by.

    The first site admin's link counts too: whoever runs the server holds it.
    A project's admin vouches for nobody: the link goes to them, not to the mailbox, so they can follow it themselves.
    """
    named = (Invitation.email == account.email) | Invitation.makes_site_admin
    vouched = select(Invitation.id).where(
        Invitation.accepted_by == account.id, named, invitations.by_the_installation()
    )
    return session.scalar(vouched.limit(1)) is not None


def _end_what_others_may_hold(session: Session, account: Account, *, now: datetime) -> None:
    """Whoever got in first may have been another than the address's owner, who is proven now and starts alone.

    Else that other would go on in the owner's account (Sudhodanan and Paverd 2022, "Pre-hijacked accounts").
    """
    account.password_hash = None
    sessions.end_sessions(session, account, now=now)
    reset_links.revoke_reset_links(session, account, now=now)
    session.execute(
        update(APIKey).where(APIKey.account_id == account.id, APIKey.revoked_at.is_(None)).values(revoked_at=now)
    )
    service.audit(session, account.id, "sign_on.start_alone", f"account:{account.id}")


def _new_account(
    session: Session, person: Person, email: str, *, next: str, domains: frozenset[str], now: datetime
) -> Account:
    """Raises NotInvited."""
    offered = _invitations_for(session, email, now=now)
    if not offered and email.rpartition("@")[2] not in domains and not _holds_invitation(session, email, next, now):
        raise NotInvited(email)
    account = service.create_account(session, email=email, name=_name(person, email), password=None)
    for invitation in offered:
        invitations.take_invitation(session, invitation, account, now=now)
    return account


def _invitations_for(session: Session, email: str, *, now: datetime) -> list[Invitation]:
    return list(
        session.scalars(
            select(Invitation)
            .where(Invitation.email == email, Invitation.expires_at > now)
            .where(Invitation.accepted_at.is_(None), Invitation.revoked_at.is_(None))
            .with_for_update()
        )
    )


def _holds_invitation(session: Session, email: str, next: str, now: datetime) -> bool:
    """Whether the person is on the way to an open link that they may follow; they join on its page."""
    before, _, token = next.partition("/invitations/")
    if before or not token:
        return False
    try:
        return invitations.open_invitation(session, token, now=now).email in (None, email)
    except InvitationNotFound:
        return False


def _name(person: Person, email: str) -> str:
    try:
        return service.normal_name(person.name[: service.LONGEST_NAME])
    except InvalidPerson:
        return email.partition("@")[0][: service.LONGEST_NAME]


def unlink(session: Session, account: Account, *, by: Account) -> None:
    """Forget who the account is at providers: whoever comes with its address next is linked to it."""
    found = session.scalars(select(SignOnIdentity).where(SignOnIdentity.account_id == account.id)).all()
    for identity in found:
        session.delete(identity)
        service.audit(session, by.id, "sign_on.unlink", f"account:{account.id}", issuer=identity.issuer)


def write_down(session: Session, refused: SignOnRefused, *, place: str, now: datetime) -> None:
    """Keep a visit that did not end in a sign-in; forged ones count against where they came from."""
    if not refused.is_kept:
        return
    said: dict[str, Any] = {} if refused.names_somebody else {"said": str(refused)}
    service.audit(session, None, "sign_on.refuse", "sign-on", reason=refused.code, place=place, **said)
    if refused.looks_forged:
        session.add(SignInAttempt(email=SIGN_ON, address=place, at=now))

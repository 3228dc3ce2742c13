"""Links that make an account, give one a role, or make the first site admin. Never commits."""

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, select, text, update
from sqlalchemy.orm import Session

from app.people import reset_links, service
from app.people.access import RANK_OF_ROLE
from app.people.errors import EmailTaken, InvitationNotFound, InvitedSomeoneElse, PersonNotFound, UnknownInvitation
from app.people.models import Account, Invitation, Membership, Role, SignOnIdentity
from app.people.passwords import check_password, hash_password, new_token, token_hash
from app.projects.models import Project

INVITATION_DURATION = timedelta(days=7)
FIRST_ADMIN_LOCK = 7_305_822


def invite(
    session: Session,
    *,
    project: Project,
    role: Role,
    email: str | None,
    created_by: int | None,
    now: datetime,
) -> str:
    """Make a link's token that gives its bearer a role in the project; only its hash is stored.

    email: when given, only this address may accept.  Raises InvalidPerson.
    """
    token = new_token()
    invitation = Invitation(
        token_hash=token_hash(token),
        project_id=project.id,
        role=role,
        email=service.normal_email(email) if email else None,
        created_by=created_by,
        created_at=now,
        expires_at=now + INVITATION_DURATION,
    )
    session.add(invitation)
    session.flush()
    service.audit(
        session,
        created_by,
        "invitation.create",
        f"invitation:{invitation.id}",
        project.id,
        role=role,
    )  # for whom it is stands in the invitation alone: nothing takes a name out of the log
    return token


def first_admin_link(session: Session, base_url: str, *, now: datetime) -> str | None:
    """The one-time address that makes the first site admin, or None when there is one.

    Each call takes the place of the link before it, so that only the one printed last can be used.
    """
    session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": FIRST_ADMIN_LOCK})
    if has_site_admin(session):
        return None
    session.execute(
        update(Invitation)
        .where(Invitation.makes_site_admin, Invitation.accepted_at.is_(None), Invitation.revoked_at.is_(None))
        .values(revoked_at=now)
    )
    token = new_token()
    session.add(
        Invitation(
            token_hash=token_hash(token), makes_site_admin=True, created_at=now, expires_at=now + INVITATION_DURATION
        )
    )
    return f"{base_url.rstrip('/')}/invitations/{token}"


def has_site_admin(session: Session) -> bool:
    """Whether anyone runs the installation."""
    admins = select(Account.id).where(Account.is_site_admin, Account.disabled_at.is_(None)).limit(1)
    return session.scalar(admins) is not None


def open_invitation(session: Session, token: str, *, now: datetime, lock: bool = False) -> Invitation:
    """The invitation behind a link that may still be used.  Raises InvitationNotFound."""
    query = select(Invitation).where(Invitation.token_hash == token_hash(token))
    invitation = session.scalar(query.with_for_update() if lock else query)
    if invitation is None:
        raise UnknownInvitation
    if invitation.accepted_at or invitation.revoked_at or invitation.expires_at <= now:
        raise InvitationNotFound
    if invitation.makes_site_admin and has_site_admin(session):
        raise InvitationNotFound
    return invitation


def account_for_invitation(
    session: Session, invitation: Invitation, *, email: str, name: str, password: str
) -> Account:
    """The new account of someone who follows a link without being signed in.

    Whoever was given an account without a password gets one here, if whoever runs the installation made the link
    for their address.  Raises InvalidPerson, WeakPassword, EmailTaken.
    """
    email = service.normal_email(invitation.email or email)
    existing = service.find_by_email(session, email)
    if existing is None:
        return service.create_account(session, email=email, name=name, password=password)
    session.refresh(existing, with_for_update={"key_share": True})  # their first single sign-on may come just now
    if not _may_set_password(session, invitation, existing):
        raise EmailTaken(email)
    check_password(password, email)
    existing.name, existing.password_hash = service.normal_name(name), hash_password(password)
    service.audit(session, existing.id, "account.password", f"account:{existing.id}", invitation=invitation.id)
    return existing


def _may_set_password(session: Session, invitation: Invitation, account: Account) -> bool:
    # The link goes to whoever made it: were a project's admin enough, they could take any account that has no password.
    if invitation.email is None or account.password_hash is not None or account.is_site_admin:
        return False
    is_theirs = select(Invitation.id).where(Invitation.id == invitation.id, by_the_installation())
    has_sign_on = select(SignOnIdentity.id).where(SignOnIdentity.account_id == account.id).limit(1)
    return session.scalar(is_theirs) is not None and session.scalar(has_sign_on) is None


def by_the_installation() -> ColumnElement[bool]:
    """Whether an invitation was made by someone who may act as anyone anyway: a site admin, or at the command line."""
    site_admins = select(Account.id).where(Account.is_site_admin, Account.disabled_at.is_(None))
    return Invitation.created_by.is_(None) | Invitation.created_by.in_(site_admins)


def accept_invitation(session: Session, token: str, account: Account, *, now: datetime) -> Invitation:
    """Give the account what the link promises. A member keeps their role where it is the higher one.

    Raises InvitationNotFound, InvitedSomeoneElse.
    """
    # Whoever manages the account waits until it has joined, and then looks again whether they still do (managing.py).
    session.execute(select(Account.id).where(Account.id == account.id).with_for_update(key_share=True))
    session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": FIRST_ADMIN_LOCK})
    invitation = open_invitation(session, token, now=now, lock=True)  # of two who follow one link, one gets in
    if invitation.email is not None and invitation.email != account.email:
        raise InvitedSomeoneElse(invitation.email)
    take_invitation(session, invitation, account, now=now)
    return invitation


def take_invitation(session: Session, invitation: Invitation, account: Account, *, now: datetime) -> None:
    """Give the account what an open invitation promises; the caller has locked it, and knows that it is theirs."""
    invitation.accepted_at, invitation.accepted_by = now, account.id
    if invitation.makes_site_admin:
        account.is_site_admin = True
        reset_links.revoke_reset_links(session, account, now=now)
    if invitation.project_id is not None and invitation.role is not None:
        _join(session, account, invitation.project_id, invitation.role, now=now)
    service.audit(session, account.id, "invitation.accept", f"invitation:{invitation.id}", invitation.project_id)
    session.flush()


def _join(session: Session, account: Account, project_id: int, role: Role, *, now: datetime) -> None:
    membership = session.get(Membership, (account.id, project_id), with_for_update=True)
    if membership is None:
        session.add(Membership(account_id=account.id, project_id=project_id, role=role))
    elif RANK_OF_ROLE[membership.role] < RANK_OF_ROLE[role]:
        membership.role = role
    else:
        return
    reset_links.revoke_reset_links(session, account, now=now)


def revoke_invitation(session: Session, project: Project, invitation_id: int, *, by: Account, now: datetime) -> None:
    """Make an open link useless.  Raises PersonNotFound."""
    invitation = session.get(Invitation, invitation_id, with_for_update=True)
    if invitation is None or invitation.project_id != project.id:
        raise PersonNotFound("There is no such invitation in this project: reload the page to see those that are open.")
    if invitation.accepted_at is None and invitation.revoked_at is None:
        invitation.revoked_at = now
        service.audit(session, by.id, "invitation.revoke", f"invitation:{invitation.id}", project.id)

"""Who may act on whose account. Never commits.

Site admins manage every account. A project's admin manages those who are in no project that they do not run: whoever
could set somebody's password could otherwise take the roles that person has elsewhere.
"""

from sqlalchemy import ColumnElement, Select, exists, select
from sqlalchemy.orm import Session

from app.people.errors import NotManaged, PersonNotFound
from app.people.models import Account, Membership, Role


def managed_by(account: Account) -> Select[int]:
    """The ids of the accounts that the account manages."""
    if account.is_site_admin:
        return select(Account.id)
    run_by_them = select(Membership.project_id).where(
        Membership.account_id == account.id, Membership.role == Role.ADMIN, Membership.paused_at.is_(None)
    )
    theirs: ColumnElement[bool] = Membership.account_id == Account.id
    return select(Account.id).where(
        Account.is_site_admin.is_(False),
        Account.id != account.id,
        exists().where(theirs),
        ~exists().where(theirs, Membership.project_id.not_in(run_by_them)),
    )


def manages(session: Session, account: Account, account_id: int) -> bool:
    """Whether the account may act on another one now."""
    query = select(Account.id).where(Account.id == account_id, Account.id.in_(managed_by(account)))
    return session.scalar(query) is not None


def managed(session: Session, account_id: int, *, by: Account, lock: bool = False) -> Account:
    """The account, if `by` manages it.  Raises PersonNotFound, NotManaged.

    lock: until the transaction ends the person joins no other project, so that what is done to them may be done. Site
    admins manage everybody wherever they join: they lock nobody, and two who close each other wait in one order.
    """
    if lock and not by.is_site_admin:
        session.execute(select(Account.id).where(Account.id == account_id).with_for_update(key_share=True))
    if manages(session, by, account_id):
        return session.get_one(Account, account_id)
    is_in_a_project_of_theirs = exists().where(
        Membership.account_id == account_id,
        Membership.project_id.in_(select(Membership.project_id).where(Membership.account_id == by.id)),
    )
    if session.scalar(select(is_in_a_project_of_theirs)):
        raise NotManaged
    raise PersonNotFound("There is no such account, or you do not manage it.")

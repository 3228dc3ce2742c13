"""The short way in, for what a labeler's page asks many times a slate: no thread, one transaction, one look-up.

A dependency that is not async runs in a thread of its own, and so would the session, the account, the access and the
endpoint, one after the other. Here the endpoint itself opens the transaction, in the event loop (app.greenlets). It
gets a session in no other way, and with it comes who asks and what the time is, all from one statement.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, NamedTuple

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import ColumnElement, Executable, bindparam, or_
from sqlalchemy.orm import Session

from app.db import (
    CLOCK,
    LoopSessionFactory,
    SessionFactory,
    connect_for_one_statement,
    constant,
    table_of,
    turn,
)
from app.people.access import (
    Access,
    Credential,
    Query,
    access_of,
    credential_of,
    find_holder,
    holders_of_keys,
    holders_of_sessions,
    make_labeler,
    reach_of,
    refusal_of,
    within,
)
from app.people.errors import NotSignedIn
from app.people.models import Account, APIKey, KeyScope, Labeler, Membership
from app.people.owners import Owner
from app.projects.models import Project

Statement = Callable[[ColumnElement[bool], ColumnElement[datetime]], Executable]
MOST_MET = 20_000  # 3 MB; whoever is not among them is looked up once more
ACTS = "POST"  # whatever comes this way changes something


class SignedIn(NamedTuple):
    """An open transaction of someone who is signed in, and the database's time."""

    session: Session
    owner: Owner
    now: datetime


class AtWork(NamedTuple):
    """An open transaction of a member of a project, as the labeler that they are there."""

    session: Session
    access: Access
    labeler: Labeler
    now: datetime


class Met:
    """The credentials that were good in this process before, those used last. What it says gives nobody a right."""

    def __init__(self) -> None:
        self._hashes: dict[bytes, None] = {}  # in the order in which they were used

    def __contains__(self, credential: Credential) -> bool:
        return credential.token_hash in self._hashes

    def add(self, credential: Credential) -> None:
        """It was good just now."""
        self._hashes.pop(credential.token_hash, None)
        self._hashes[credential.token_hash] = None
        if len(self._hashes) > MOST_MET:
            del self._hashes[next(iter(self._hashes))]

    def forget(self, credential: Credential) -> None:
        """It has ended."""
        self._hashes.pop(credential.token_hash, None)


@dataclass(frozen=True)
class Caller:
    """Whoever sent a request with a credential that was good once."""

    credential: Credential
    met: Met

    def at_once(self, statement: Statement, **bound: Any) -> Any:
        """Run one statement that is a transaction of its own and looks the caller's account up by itself.

        statement: made from whether a row of Labeler is the caller's and from the time, in SQL; asked for each time,
        so it had better be kept.
        It does not mark the credential as seen: leases and submits do.
        Returns the one value that it answers with. None: it found nothing to do, perhaps because nobody is signed in.
        """
        with connect_for_one_statement() as connection:
            query = statement(_is_theirs(is_key=self.credential.is_key), CLOCK)
            return connection.scalar(query, {"token_hash": self.credential.token_hash, **bound})

    def _refusal(self) -> NotSignedIn:
        self.met.forget(self.credential)
        return refusal_of(self.credential)

    @contextmanager
    def signed_in(self) -> Iterator[SignedIn]:
        """One transaction: committed at the end, rolled back by an error.  Raises NotSignedIn, ScopeTooNarrow."""
        with LoopSessionFactory.begin() as session:
            row = find_holder(session, self.credential, _who(CLOCK, is_key=True), _who(CLOCK, is_key=False))
            if row is None:
                raise self._refusal()
            yield SignedIn(session, Owner(row.account_id, reach_of(row, ACTS).project_id), row.now)

    @contextmanager
    def at_work(self, slug: str) -> Iterator[AtWork]:
        """The same in a project that the caller is a member of.  Raises also ProjectNotFound."""
        with LoopSessionFactory.begin() as session:
            of_key, of_session = _who_in_project(CLOCK, is_key=True), _who_in_project(CLOCK, is_key=False)
            row = find_holder(session, self.credential, of_key, of_session, slug=slug)
            if row is None:
                raise self._refusal()
            access = within(reach_of(row, ACTS), access_of(row.Account, slug, row.Project, row.Membership))
            yield AtWork(session, access, row.Labeler or make_labeler(session, access), row.now)


async def identify(request: Request) -> Caller:
    """Who this request says it comes from.  Raises NotSignedIn when it says nothing, or what was never good.

    Whoever this process has not met is looked up among the pages first, in their turn: strangers with made-up keys, and
    with made-up sessions, take no connection of those that serve labelers.
    """
    credential = credential_of(request)
    if credential is None:
        raise NotSignedIn
    met: Met = request.app.state.met
    if credential not in met:
        async with turn(SessionFactory):
            await run_in_threadpool(_look_up, credential)
    met.add(credential)
    return Caller(credential, met)


def _look_up(credential: Credential) -> None:
    """Raises NotSignedIn."""
    with SessionFactory.begin() as session:
        if find_holder(session, credential, _who(CLOCK, is_key=True), _who(CLOCK, is_key=False)) is None:
            raise refusal_of(credential)


CallerDep = Annotated[Caller, Depends(identify)]


def _holders(*what: Any, is_key: bool) -> Query:
    return holders_of_keys(*what) if is_key else holders_of_sessions(*what)


@lru_cache(maxsize=2)
def _is_theirs(*, is_key: bool) -> ColumnElement[bool]:
    account, key, labeler = map(table_of, (Account, APIKey, Labeler))
    holders = _holders(account.c.id, is_key=is_key).with_only_columns(account.c.id)
    if is_key:  # who may only read is found by the statement that says so (Caller.signed_in)
        holders = holders.where(key.c.scope != constant(KeyScope.READ)).correlate(labeler)
        holders = holders.where(or_(key.c.project_id.is_(None), key.c.project_id == labeler.c.project_id))
    return labeler.c.account_id == holders.scalar_subquery()


@lru_cache(maxsize=2)
def _who(now: ColumnElement[datetime], *, is_key: bool) -> Query:
    return _holders(table_of(Account).c.id.label("account_id"), now.label("now"), is_key=is_key)


@lru_cache(maxsize=2)
def _who_in_project(now: ColumnElement[datetime], *, is_key: bool) -> Query:
    return (
        _holders(Account, Project, Membership, Labeler, now.label("now"), is_key=is_key)
        .outerjoin(Project, Project.slug == bindparam("slug"))
        .outerjoin(Membership, (Membership.account_id == Account.id) & (Membership.project_id == Project.id))
        .outerjoin(Labeler, (Labeler.account_id == Account.id) & (Labeler.project_id == Project.id))
    )

"""Owns the engine, the session and the database's clock. Knows no table of its own."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from enum import StrEnum
from functools import lru_cache, partial
from math import inf
from time import monotonic
from typing import Annotated, Any
from weakref import WeakKeyDictionary

from fastapi import Depends
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    CursorResult,
    DateTime,
    Engine,
    Enum,
    Executable,
    MetaData,
    Table,
    create_engine,
    event,
    func,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError, IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, QueuePool

TRUSTED_S = 1.0  # so long after its last use a connection is taken to be alive
# So long a process may stand still in a transaction: then the server ends it, and frees what it has locked.
IDLE_S = 300
UNPOOLED = 100  # turns where each request makes a connection of its own


class Base(DeclarativeBase):
    """Every table. Constraints are named, so that migrations and errors can speak of them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[dict[str, Any]]: JSONB,
        int: BigInteger,
    }


def one_of(states: type[StrEnum], name: str) -> Enum:
    """A column type that holds the values of an enum, checked by the database too."""
    return Enum(
        states,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=24,
        values_callable=lambda members: [member.value for member in members],
    )


def table_of(model: type[Base]) -> Table:
    """The table of a model, for statements that load no objects: those cost less."""
    table = model.__table__
    assert isinstance(table, Table)
    return table


def constraint_of(error: IntegrityError) -> str | None:
    """The name of the constraint that a statement ran against."""
    name: str | None = getattr(getattr(error.orig, "diag", None), "constraint_name", None)
    return name


def constant(state: StrEnum) -> ColumnElement[Any]:
    """A member of an enum written into the statement itself.

    A statement that is prepared once for every value cannot use an index that holds the rows of one value only.
    """
    return literal_column(f"'{state.value}'")


SessionFactory: sessionmaker[Session] = sessionmaker(expire_on_commit=False)
# Of requests that hold no thread while the database works: they run in greenlets of the event loop (app.greenlets).
LoopSessionFactory: sessionmaker[Session] = sessionmaker(expire_on_commit=False)


def connect(url: str, *, pool_size: int = 10, application: str = "podium", idle_s: int | None = None) -> Engine:
    """Make the engine of this process and bind the session factory to it.

    url: `postgresql://…`; the driver is always psycopg 3.  Connections that died are noticed before use.
    idle_s: how long a transaction may do nothing; as long as it likes where it hands a file to somebody slow.
    """
    engine = create_engine(
        driver_url(url),
        pool_size=pool_size,
        max_overflow=0,  # pool size times processes must stay below the server's max_connections
        pool_pre_ping=True,
        hide_parameters=True,  # an error's message goes into the log: what people wrote does not
        connect_args=_connect_arguments(application),
    )
    if idle_s is not None:
        event.listen(engine, "connect", partial(_end_when_idle, idle_s))
    SessionFactory.configure(bind=engine)
    return engine


def connect_apart(engine: Engine, *, application: str) -> Engine:
    """The same database, with connections that no request waits for: opened when used, closed afterwards."""
    return create_engine(
        engine.url, poolclass=NullPool, hide_parameters=True, connect_args=_connect_arguments(application)
    )


def connect_loop(url: str, *, application: str = "podium", **pool: Any) -> AsyncEngine:
    """Make the event loop's own engine, and bind its session factory to it.

    pool: of what kind and size. In tests each request has a loop of its own, and no connection may outlive it.
    """
    engine = create_async_engine(
        driver_url(url), hide_parameters=True, connect_args=_connect_arguments(application), **pool
    )
    _notice_the_dead(engine.sync_engine)
    event.listen(engine.sync_engine, "connect", _plan_once)
    event.listen(engine.sync_engine, "connect", partial(_end_when_idle, IDLE_S))
    LoopSessionFactory.configure(bind=engine.sync_engine)
    return engine


def connect_for_one_statement() -> Connection:
    """A connection of the loop on which each statement is a transaction of its own, without a BEGIN and a COMMIT."""
    return _each_on_its_own(LoopSessionFactory.kw["bind"]).connect()


@lru_cache(maxsize=1)
def _each_on_its_own(engine: Engine) -> Engine:
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def _connect_arguments(application: str) -> dict[str, Any]:
    return {"application_name": f"{application}-{os.getpid()}", "connect_timeout": 10}


def _plan_once(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    """Statements that look rows up by their keys need no new plan each time.

    A bound value matches no partial index then: what such an index is to serve says `constant`.
    """
    _set(connection, "plan_cache_mode = force_generic_plan")


def _end_when_idle(idle_s: int, connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    """A process that is stopped, or a machine that is suspended, must not keep others from what it has locked."""
    _set(connection, f"idle_in_transaction_session_timeout = '{idle_s}s'")


def _set(connection: DBAPIConnection, setting: str) -> None:
    cursor = connection.cursor()
    cursor.execute(f"SET {setting}")
    cursor.close()
    connection.commit()


def plan_once(session: Session) -> None:
    """The same for the rest of a transaction of any other connection."""
    session.execute(text("SET LOCAL plan_cache_mode = force_generic_plan"))


def _notice_the_dead(engine: Engine) -> None:
    """Ask a connection that rested for a while whether it is alive. Asking each time would cost every request.

    One that was just made is not asked: where it is dead already its statement says so, as an unreachable database.
    """

    def rest(connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
        record.info["rests_since"] = monotonic()

    def wake(connection: DBAPIConnection, record: ConnectionPoolEntry, proxy: object) -> None:
        rests_since = record.info.get("rests_since", inf)
        if monotonic() - rests_since > TRUSTED_S and not _is_alive(engine, connection):
            raise DisconnectionError

    event.listen(engine, "checkin", rest)
    event.listen(engine, "checkout", wake)


def _is_alive(engine: Engine, connection: DBAPIConnection) -> bool:
    try:
        return engine.dialect.do_ping(connection)
    except engine.dialect.loaded_dbapi.Error:
        return False


def driver_url(url: str) -> str:
    """The same database through psycopg 3: people write postgres:// and postgresql:// alike."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in {"postgres", "postgresql", "postgresql+psycopg"}:
        raise ValueError(f"DATABASE_URL must begin with postgresql://, not {scheme}")
    return f"postgresql+psycopg://{rest}"


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[sessionmaker[Session], asyncio.Semaphore]] = (
    WeakKeyDictionary()
)


@asynccontextmanager
async def turn(factory: sessionmaker[Session]) -> AsyncIterator[None]:
    """Let no more requests in than the factory has connections; the others wait here, and who came first goes first.

    Waiting inside the pool they would hold all the threads, while those with a connection waited for a thread to go on;
    and the loop's pool has whoever asks next take a connection that was given back for one who waits: under load some
    would wait until they time out.
    """
    turns = _turns.setdefault(asyncio.get_running_loop(), {})
    if factory not in turns:
        pool = factory.kw["bind"].pool
        turns[factory] = asyncio.Semaphore(pool.size() if isinstance(pool, QueuePool) else UNPOOLED)
    async with turns[factory]:
        yield


async def wait_for_turn() -> AsyncIterator[None]:
    """The turn of a request that asks for a session below."""
    async with turn(SessionFactory):
        yield


def get_session(turn: Annotated[None, Depends(wait_for_turn, scope="function")]) -> Iterator[Session]:
    """One request, one transaction: commit when the handler returns, roll back when it raises."""
    with SessionFactory.begin() as session:
        yield session


# "function" scope commits before the response is sent; by default a failed commit would still answer 201.
SessionDep = Annotated[Session, Depends(get_session, scope="function")]


# The database's time: deadlines must not depend on a process's own clock.
CLOCK: ColumnElement[datetime] = func.clock_timestamp()


def clock(session: Session) -> datetime:
    """The database's time, read once a request."""
    return session.scalars(select(CLOCK)).one()


def run_unflushed(session: Session, statement: Executable, bound: Mapping[str, Any]) -> CursorResult[*tuple[Any, ...]]:
    """Execute what asks for columns alone in the session's transaction, without looking for objects in its rows.

    The session's own unwritten changes are not flushed before.
    """
    return session.connection().execute(statement, bound)


@contextmanager
def waiting_at_most(session: Session, wait_s: float, instead: Exception) -> Iterator[None]:
    """Statements that would wait longer for another transaction raise `instead`; the session can go on after it."""
    try:
        with session.begin_nested():
            session.execute(text(f"SET LOCAL lock_timeout = '{wait_s}s'"))
            yield
            session.execute(text("SET LOCAL lock_timeout = DEFAULT"))
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != "55P03":  # lock_not_available
            raise
        raise instead from None


def notify(session: Session, channel: str, payload: str = "") -> None:
    """Wake whoever listens on the channel, when this transaction commits."""
    session.execute(text("SELECT pg_notify(:channel, :payload)"), {"channel": channel, "payload": payload})


# Who is woken by what: the sampler by slates to fill and model requests, the trainer by stages to run,
# the web's live pages by metrics and states.
SAMPLER_CHANNEL = "podium_sampler"
TRAINER_CHANNEL = "podium_trainer"
EVENTS_CHANNEL = "podium_events"  # payload: "round:<id>" or "project:<id>"

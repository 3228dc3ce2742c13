"""Whether the database is one that Podium can rely on."""

from collections.abc import Iterator
from datetime import UTC, datetime

from sqlalchemy import Engine, text

from app import migrate
from app.settings import Settings
from app.upkeep.findings import Finding, fault, good, note, warning

OLDEST = 14  # the oldest Postgres that its makers still mend
COMMANDS = 2  # connections that an operator's own commands want beside the processes
SKEW_S, BAD_SKEW_S = 2.0, 60.0
# What makes a commit stay: off only where losing acknowledged work does not matter.
DURABLE = ("fsync", "synchronous_commit", "full_page_writes")


def check_database(engine: Engine, settings: Settings) -> Iterator[Finding]:
    """Everything that the server says of itself."""
    yield from _server(engine)
    yield from _schema(engine)
    yield from _connections(engine, settings)
    yield from _clock(engine)


def _server(engine: Engine) -> Iterator[Finding]:
    with engine.connect() as connection:
        shown = {name: str(connection.exec_driver_sql(f"SHOW {name}").scalar_one()) for name in DURABLE}
        version = str(connection.exec_driver_sql("SHOW server_version").scalar_one())
        encoding = str(connection.exec_driver_sql("SHOW server_encoding").scalar_one())
        number = int(connection.exec_driver_sql("SHOW server_version_num").scalar_one())
    major = number // 10_000
    if major < OLDEST:
        yield warning("postgres", f"Postgres {version} is no longer mended", f"move to Postgres {OLDEST} or later")
    else:
        yield good("postgres", f"Postgres {version} answers")
    if encoding != "UTF8":
        advice = "make a database with ENCODING 'UTF8' and restore a backup into it"
        yield fault("encoding", f"the database's encoding is {encoding}: some texts cannot be stored", advice)
    if off := [name for name in DURABLE if shown[name] == "off"]:
        what = f"{' and '.join(off)} off: a crash of the machine can lose rankings that were acknowledged"
        yield fault("durability", what, f"set {', '.join(f'{name} = on' for name in off)} in postgresql.conf")
    else:
        yield good("durability", "what is committed is on the disk")


def _schema(engine: Engine) -> Iterator[Finding]:
    with engine.connect() as connection:
        has_tables = connection.scalar(text("SELECT to_regclass('alembic_version') IS NOT NULL"))
    standing = migrate.standing(engine) if has_tables else None
    if standing is None:
        yield fault("schema", "the database has no tables of Podium", "run `podium migrate`, or restore a backup")
    elif standing is migrate.Standing.CURRENT:
        yield good("schema", f"the schema is this version's ({migrate.head()})")
    elif standing is migrate.Standing.AHEAD:
        what = "the schema is a later version's, which still serves this one"
        yield note("schema", what, "go on with the upgrade: this process is one of the old ones")
    elif standing is migrate.Standing.BEHIND:
        yield fault("schema", "the schema is an earlier version's", "run `podium backup`, then `podium migrate`")
    else:
        yield fault("schema", "the schema is a later version's, which does not serve this one", "upgrade this process")


def _connections(engine: Engine, settings: Settings) -> Iterator[Finding]:
    with engine.connect() as connection:
        most = int(connection.exec_driver_sql("SHOW max_connections").scalar_one())
        reserved = int(connection.exec_driver_sql("SHOW superuser_reserved_connections").scalar_one())
        counted = "SELECT count(*), count(*) FILTER (WHERE application_name LIKE 'podium%') FROM pg_stat_activity"
        in_use, ours = connection.execute(text(f"{counted} WHERE backend_type = 'client backend'")).one()
    free = most - reserved
    # A web process holds its pool and a connection that listens; a sampler and a trainer a pool and one each.
    wanted = (settings.web_workers + 2) * (settings.pool_size + 1) + COMMANDS
    what = f"one web service, sampler and trainer may hold {wanted} connections; the server gives {free}"
    if wanted > free:
        advice = f"raise max_connections to {wanted + reserved}, or lower PODIUM_POOL_SIZE or PODIUM_WEB_WORKERS"
        yield fault("connections", what, advice)
    elif in_use > 0.8 * free:
        what = f"{in_use} of {free} connections are in use, {ours} of them ours"
        yield warning("connections", what, "raise max_connections")
    else:
        yield good("connections", f"{what}, {in_use} are in use")


def _clock(engine: Engine) -> Iterator[Finding]:
    with engine.connect() as connection:
        before = datetime.now(UTC)
        theirs = connection.scalar(text("SELECT clock_timestamp()"))
        after = datetime.now(UTC)
    assert isinstance(theirs, datetime)
    skew = (theirs - (before + (after - before) / 2)).total_seconds()
    what = f"this machine's clock and the database's differ by {abs(skew):.1f} s"
    if abs(skew) > BAD_SKEW_S:
        yield fault("clock", f"{what}: signatures and single sign-on fail", "set both by NTP")
    elif abs(skew) > SKEW_S:
        yield warning("clock", what, "set both by NTP")
    else:
        yield good("clock", what)

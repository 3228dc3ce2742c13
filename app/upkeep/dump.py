"""The database as pg_dump writes it and pg_restore reads it: the programs of the embedded server's wheel, or of PATH.

A dump holds the tables with their rows and makes constraints, indexes and triggers after them: what is append-only
does not stop a restore, and is as it was at its end. Knows no table.
"""

import contextlib
import itertools
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from psycopg.conninfo import make_conninfo
from sqlalchemy import Connection, make_url

from app.db import driver_url
from app.embedded_postgres import PostgresDidNotStart, binaries
from app.upkeep.archive import CHUNK, chunks_of
from app.upkeep.errors import DumpFailed, NoDumpProgram

AS_OURSELVES = ("--no-owner", "--no-privileges")
# pg_dump and pg_restore from 17 on set it, also on servers that do not know it.
KNOWS_TRANSACTION_TIMEOUT = 17
UNKNOWN_LINE, HEAD_LINES = b"SET transaction_timeout = 0;\n", 50  # and it stands among the first lines
BEGIN, COMMIT = b"BEGIN;\n", b"COMMIT;\n"
LOCK_WAIT = "60s"  # a dump waits so long for a migration that holds a table
LAST_WORDS = 600  # characters of a program's complaint that are passed on


def server_major(connection: Connection) -> int:
    """15, 16, 17, 18 …"""
    return int(connection.exec_driver_sql("SHOW server_version_num").scalar_one()) // 10_000


def dump(url: str, *, snapshot: str, server: int) -> Iterator[bytes]:
    """The database of a moment, in pieces. snapshot: what pg_export_snapshot gave, in a transaction still open.

    server: its major version.  Raises NoDumpProgram, DumpFailed.
    """
    program = find_program("pg_dump", server)
    arguments = ["--format=custom", *AS_OURSELVES, f"--lock-wait-timeout={LOCK_WAIT}"]
    with _run(program, [*arguments, f"--snapshot={snapshot}"], url) as process:
        assert process.stdout is not None
        yield from chunks_of(process.stdout)


def restore(url: str, pieces: Iterable[bytes], *, server: int) -> None:
    """Make everything that the dump holds, in one transaction: all of it or nothing. Raises as `dump` does."""
    program = find_program("pg_restore", server)
    if server < KNOWS_TRANSACTION_TIMEOUT <= _major(program):
        _restore_by_script(program, url, pieces)
        return
    with _run(program, ["--single-transaction", "--exit-on-error", *AS_OURSELVES], url) as process:
        assert process.stdin is not None
        _feed(process.stdin, pieces)


def _restore_by_script(program: Path, url: str, pieces: Iterable[bytes]) -> None:
    """What pg_restore would execute, but for the one setting that the server does not know.

    The transaction is in what psql reads, and ends well only once pg_restore has: where the script breaks off, because
    this process was killed or because pg_restore was, psql ends without a COMMIT and the server rolls back.
    """
    arguments = ["--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1"]
    with _run(program.with_name("psql"), arguments, url) as psql, tempfile.TemporaryFile() as complaints:
        command = [str(program), *AS_OURSELVES, "--file=-"]
        script = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints)
        assert psql.stdin is not None
        assert script.stdin is not None
        assert script.stdout is not None
        problems: list[BaseException] = []
        feeder = threading.Thread(target=_feed_and_tell, args=(script.stdin, pieces, problems), daemon=True)
        feeder.start()
        try:
            lines = (line for number, line in enumerate(script.stdout) if number > HEAD_LINES or line != UNKNOWN_LINE)
            _feed(psql.stdin, itertools.chain([BEGIN], lines), close=False)
        finally:
            script.stdout.close()  # where psql has ended, pg_restore sees that nobody reads
            status = script.wait()
            feeder.join()
        if problems or status != 0:
            psql.kill()
            complaints.seek(0)
            words = complaints.read().decode(errors="replace").strip()
            raise problems[0] if problems else DumpFailed(program.name, words or f"exit code {status}")
        _feed(psql.stdin, [COMMIT])


def _feed(stdin: IO[bytes], pieces: Iterable[bytes], *, close: bool = True) -> None:
    with contextlib.suppress(BrokenPipeError):  # the program has ended, and says why
        for piece in pieces:
            stdin.write(piece)
        if close:
            stdin.close()


def _feed_and_tell(stdin: IO[bytes], pieces: Iterable[bytes], problems: list[BaseException]) -> None:
    try:
        _feed(stdin, pieces)
    except BaseException as error:  # raised again where somebody waits for it
        problems.append(error)
        stdin.close()


def find_program(name: str, server: int) -> Path:
    """A pg_dump or pg_restore that is not older than the server. Raises NoDumpProgram."""
    for program in _candidates(name):
        if _major(program) >= server:
            return program
    raise NoDumpProgram(name, server)


def _candidates(name: str) -> Iterator[Path]:
    with contextlib.suppress(PostgresDidNotStart):  # without the wheel there are a server and programs of one's own
        yield binaries() / name
    if found := shutil.which(name):
        yield Path(found)


def _major(program: Path) -> int:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"(\d+)", said.partition(")")[2])
    return int(found.group(1)) if found else 0


@contextmanager
def _run(program: Path, arguments: list[str], url: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A program at work on the database; killed if the work is broken off. Raises DumpFailed."""
    parsed = make_url(driver_url(url))
    _, known = parsed.get_dialect()().create_connect_args(parsed)  # as psycopg takes it, and so libpq
    secret = known.pop("password", None)
    password = {"PGPASSWORD": str(secret)} if secret else {}  # not for whoever lists processes
    is_dump = program.name == "pg_dump"
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            [program, *arguments, f"--dbname={make_conninfo(**known)}"],
            stdin=subprocess.DEVNULL if is_dump else subprocess.PIPE,
            stdout=subprocess.PIPE if is_dump else subprocess.DEVNULL,
            stderr=complaints,
            env={**os.environ, **password, "LC_ALL": "C.UTF-8", "PGAPPNAME": f"podium-{program.name}"},
            bufsize=CHUNK,
        )
        try:
            yield process
            status = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            for pipe in filter(None, (process.stdin, process.stdout)):
                with contextlib.suppress(BrokenPipeError):  # what was not read any more
                    pipe.close()
        if status != 0:
            complaints.seek(0)
            words = complaints.read().decode(errors="replace").strip()
            raise DumpFailed(program.name, " ".join(words[-LAST_WORDS:].split()) or f"exit code {status}")

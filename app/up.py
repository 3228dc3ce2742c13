"""`podium up`: everything on one machine. Database, migrations, starter project, web, sampler and trainer.

The three processes are children that are started again when they die, and that die with this one. The embedded
Postgres is no child; it is started again too, and stopped at the end.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from types import FrameType

import fasteners

from app import db, embedded_postgres, migrate, serving, terminal
from app.artifact_errors import ArtifactError
from app.artifacts import open_store
from app.people.invitations import first_admin_link
from app.projects.starter import ensure_starter_project
from app.settings import Settings
from app.supervision import STOP_TIMEOUT_S, Child
from app.terminal import CannotStart, say

LOOK_S = 0.2  # between two looks at the children
LOOK_AT_POSTGRES_S = 1.0


def up(settings: Settings) -> None:
    """Run until Ctrl-C or SIGTERM. Raises CannotStart when the surroundings do not allow it."""
    stopping = threading.Event()

    def stop(signal_number: int, frame: FrameType | None) -> None:
        if stopping.is_set():
            raise KeyboardInterrupt  # a second time: at once
        stopping.set()

    _check_store(settings)
    settings.home.mkdir(parents=True, exist_ok=True)
    lock = fasteners.InterProcessLock(settings.home / "up.lock")
    if not lock.acquire(blocking=False):
        raise CannotStart(f"another `podium up` runs in {settings.home}: stop it, or set PODIUM_HOME to another folder")
    listener = serving.listen(settings)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    children: list[Child] = []
    try:
        url = terminal.database_url(settings)
        engine = terminal.reach(url, settings, application="podium-up")
        migrate.upgrade(engine)
        children = _children(settings, url, listener)
        for child in children:
            child.start()
        _greet(settings, serving.address(settings, listener))
        engine.dispose()
        _look_after(settings, children, stopping)
    finally:
        _stop(settings, children)
        lock.release()


def _check_store(settings: Settings) -> None:
    """Raises CannotStart."""
    try:
        if store := open_store(settings):
            store.check(writes=True)
    except ArtifactError as error:
        raise CannotStart(str(error)) from error


def _children(settings: Settings, url: str, listener: socket.socket) -> list[Child]:
    host, port = listener.getsockname()[:2]
    environment = {"DATABASE_URL": url, "PODIUM_HOME": str(settings.home), "PYTHONUNBUFFERED": "1"}
    environment |= {"PODIUM_HOST": host, "PODIUM_PORT": str(port)}  # what links in notifications begin with
    logs = settings.home / "logs"
    web = [sys.executable, "-m", "app.cli", "serve", "--listener", str(listener.fileno())]
    return [
        Child("web", web, environment, logs / "web.log", pass_fds=(listener.fileno(),)),
        Child("sampler", [sys.executable, "-m", "trainer.sampler"], environment, logs / "sampler.log"),
        Child("trainer", [sys.executable, "-m", "trainer.worker"], environment, logs / "trainer.log"),
    ]


def _greet(settings: Settings, address: str) -> None:
    with db.SessionFactory.begin() as session:
        ensure_starter_project(session)
    with db.SessionFactory.begin() as session:
        link = first_admin_link(session, address, now=db.clock(session))
    say(f"Podium is at {address}")
    if link is not None:
        say(f"Open this link once to become its administrator: {link}")
    say(f"Data and logs are in {settings.home}. Ctrl-C stops everything; nothing is lost.")


def _look_after(settings: Settings, children: list[Child], stopping: threading.Event) -> None:
    look_at_postgres_at = time.monotonic()
    while not stopping.wait(LOOK_S):
        now = time.monotonic()
        if settings.database_url is None and now >= look_at_postgres_at:
            look_at_postgres_at = now + LOOK_AT_POSTGRES_S
            _revive_postgres(settings)
        for child in children:
            if (news := child.look_after(now)) is not None:
                _say(news)


def _revive_postgres(settings: Settings) -> None:
    folder = terminal.postgres_folder(settings)
    if _is_alive(settings):
        return
    _say("the database ended; starting it again")
    try:
        embedded_postgres.start(folder)
    except embedded_postgres.PostgresDidNotStart as error:
        _say(str(error))  # its last processes may still be leaving: looked at again in a second


def _say(news: str) -> None:
    """What cannot be printed is not said: where the output lies on a full disk, all goes on."""
    with contextlib.suppress(OSError):
        say(news)


def _is_alive(settings: Settings) -> bool:
    """Whether the server's process exists, without starting a program each second to ask."""
    pid_file = terminal.postgres_folder(settings) / "data" / "postmaster.pid"
    try:
        pid = int(pid_file.read_text().split()[0])
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)  # as a container's first process we are its heir: the dead wait to be fetched
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, ValueError, IndexError):
        return False
    return True


def _stop(settings: Settings, children: list[Child]) -> None:
    if children:
        say("stopping; a stage that runs is saved first")
    for child in reversed(children):
        child.ask_to_stop()
    deadline = time.monotonic() + STOP_TIMEOUT_S
    try:
        for child in children:
            child.wait_or_kill(max(0.0, deadline - time.monotonic()))
    except KeyboardInterrupt:
        for child in children:
            child.wait_or_kill(0.0)
    if settings.database_url is None:
        embedded_postgres.stop(terminal.postgres_folder(settings))

"""The heartbeat of a sampler or trainer: renews what it holds and says what it does, while its work goes on."""

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import delete, exists, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.db import SessionFactory, clock
from app.rounds.models import Heartbeat

log = logging.getLogger(__name__)

BEAT_S = 5.0
BEATS_MISSED = 4  # in a row: the process is not ready, as far as whoever asks it can tell
SILENT_AFTER = timedelta(minutes=2)  # a process that was not heard of for so long is taken to be gone


def new_owner(process: str) -> str:
    """A name for this process that no other one has: claims are made in it."""
    return f"{process}@{socket.gethostname()}:{os.getpid()}-{secrets.token_hex(3)}"


class Heart:
    """Beats in a thread of its own. renew: called in each beat's transaction, to hold claims for longer."""

    def __init__(
        self,
        owner: str,
        process: str,
        *,
        renew: Callable[[Session, datetime], None],
        beat_s: float = BEAT_S,
        device: str | None = None,
        memory_gb: float | None = None,
    ) -> None:
        """device, memory_gb: what it computes on, where that decides what can run."""
        self.doing = "starting"
        self._beat_at: float | None = None
        self._device, self._memory_gb = device, memory_gb
        self._owner, self._process, self._renew, self._beat_s = owner, process, renew, beat_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heart", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_beating(self) -> bool:
        """Whether a beat has reached the database lately, and nobody asked for the end."""
        at = self._beat_at
        return at is not None and not self._stopping.is_set() and time.monotonic() - at < BEATS_MISSED * self._beat_s

    def stop(self) -> None:
        """End in good order: the process is not missing."""
        self._stopping.set()
        self._thread.join(timeout=10)
        try:
            with SessionFactory.begin() as session:
                stop_beating(session, self._owner)
        except OperationalError:
            log.warning("the database is away; the heartbeat of %s stays until it is overlooked", self._owner)

    def _run(self) -> None:
        while True:
            try:
                with SessionFactory.begin() as session:
                    now = clock(session)
                    beat(
                        session,
                        self._owner,
                        self._process,
                        self.doing,
                        now=now,
                        device=self._device,
                        memory_gb=self._memory_gb,
                    )
                    self._renew(session, now)
                self._beat_at = time.monotonic()
            except OperationalError as error:
                log.warning("heartbeat failed, next in %s s: %s", self._beat_s, str(error.orig).splitlines()[0])
            except Exception:
                log.exception("heartbeat failed, next in %s s", self._beat_s)
            if self._stopping.wait(self._beat_s):
                return


def beat(
    session: Session,
    owner: str,
    process: str,
    doing: str,
    *,
    now: datetime,
    device: str | None = None,
    memory_gb: float | None = None,
) -> None:
    """Say that a sampler or trainer is alive, what it does, and on what."""
    row = {
        "owner": owner,
        "process": process,
        "doing": doing,
        "beat_at": now,
        "device": device,
        "memory_gb": memory_gb,
    }
    session.execute(insert(Heartbeat).values(row).on_conflict_do_update(index_elements=["owner"], set_=row))


def stop_beating(session: Session, owner: str) -> None:
    """A process that ends in good order is not missing."""
    session.execute(delete(Heartbeat).where(Heartbeat.owner == owner))


def is_alive(session: Session, process: str, *, now: datetime) -> bool:
    """Whether any process of the kind has been heard of lately."""
    return bool(
        session.scalar(select(exists().where(Heartbeat.process == process, Heartbeat.beat_at > now - SILENT_AFTER)))
    )

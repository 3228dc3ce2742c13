"""What a worker lends to those who run its stages and its evaluations.

One of the modules here that touch the database.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from sqlalchemy.orm import Session

from app.artifacts import Store
from app.db import clock
from app.rounds import devices
from app.rounds.heart import Heart
from app.settings import Settings
from app.wakeups import Wakeups

Answer = TypeVar("Answer")


class Transact(Protocol):
    """Runs an action in a transaction, again from its start when the database goes away meanwhile."""

    def __call__(self, action: Callable[[Session], Answer]) -> Answer:
        """What the action returns. Raises Stopping."""


@dataclass(frozen=True)
class Hands:
    """What the worker lends: how it reaches the database, what it computes on, and when it is to stop."""

    settings: Settings
    store: Store | None
    wakeups: Wakeups
    owner: str
    heart: Heart
    stopping: threading.Event
    device: str
    gpu: str | None
    claim_duration: timedelta
    transact: Transact

    def keep_device(self, session: Session, now: datetime) -> None:
        """Part of a heartbeat that renews a claim: the GPU stays with whoever computes."""
        if self.gpu is not None:
            devices.keep(session, self.gpu, self.owner, duration=self.claim_duration, now=now)

    def release_device(self) -> None:
        """Let go of the GPU, if this worker has it."""
        gpu = self.gpu
        if gpu is not None:
            self.transact(lambda session: devices.release(session, gpu, self.owner, now=clock(session)))

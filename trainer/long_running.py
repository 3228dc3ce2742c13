"""What the sampler and the trainer share as processes: how they are told to stop, and how they miss the database.

One of the modules here that touch the database.
"""

import logging
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn, Protocol

from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, OperationalError

from app import terminal
from app.monitoring.listener import listening
from app.rounds.heart import Heart
from app.supervision import end_with_parent, leave_at_latest
from app.terminal import CannotStart
from app.wakeups import Wakeups

log = logging.getLogger(__name__)

RETRY_S = 1.0  # while the database is away


class LongRunning(Protocol):
    """A sampler, or a trainer's worker."""

    stopping: threading.Event
    heart: Heart
    wakeups: Wakeups

    def run(self) -> None:
        """Until told to stop."""

    def stop(self) -> None:
        """Finish what is at hand, and end."""

    def give_back(self) -> None:
        """Release all that is claimed, from another thread."""


def run_until_told(
    work: LongRunning,
    engine: Engine,
    *,
    leave_after_s: float,
    place: str | None,
    token: SecretStr | None,
    registry: CollectorRegistry,
) -> NoReturn:
    """Run it until SIGTERM, Ctrl-C or its parent's end, and leave. leave_after_s: then all is given back, and it ends.

    place, token, registry: where it says how it is, to whom, and what it counts.
    """

    def stop(signum: int, frame: FrameType | None) -> None:
        if not work.stopping.is_set():
            leave_at_latest(leave_after_s, work.give_back)
        work.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    end_with_parent()
    try:
        with listening(place, token, registry, lambda: work.heart.is_beating):
            work.run()
    except CannotStart as error:
        terminal.refuse(str(error), exit_code=terminal.USAGE)
    work.wakeups.close()
    engine.dispose()
    sys.exit(0)


def only_if_away(error: DBAPIError) -> None:
    """Say that the database went away; it is tried again. Raises the error if that is not what happened."""
    if not isinstance(error, OperationalError) and not error.connection_invalidated:
        raise error
    first_line = str(error.orig).strip().splitlines()[0]
    log.warning("the database went away, trying again in %s s: %s", RETRY_S, first_line)

"""Waiting for Postgres to call: one LISTEN connection of a long-running process. Polling stays the fallback."""

import logging
import threading

import psycopg
from sqlalchemy import Engine

log = logging.getLogger(__name__)

RETRY_S = 1.0


class Wakeups:
    """Set whenever one of the channels is notified, and once after each time the connection was lost.

    A thread of its own listens, so a notification that comes while its owner works is there when it looks.
    """

    def __init__(self, engine: Engine, channels: tuple[str, ...]) -> None:
        """engine: says where the database is; its pool is not used."""
        self._arguments, self._options = engine.dialect.create_connect_args(engine.url)
        self._channels = channels
        self._called = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="wakeups", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Wait until somebody called since the last wait, at most timeout_s; whether somebody did."""
        called = self._called.wait(timeout_s)
        self._called.clear()
        return called

    def wake(self) -> None:
        """End the current wait, from a signal handler or another thread."""
        self._called.set()

    def close(self) -> None:
        """Stop listening; the thread ends within a second."""
        self._stopping.set()
        self._called.set()
        self._thread.join(timeout=5)

    def _listen(self) -> None:
        while not self._stopping.is_set():
            try:
                with psycopg.connect(
                    *self._arguments, **{**self._options, "autocommit": True, "connect_timeout": 10}
                ) as connection:
                    for channel in self._channels:
                        connection.execute(f"LISTEN {channel}")
                    self._called.set()  # something may have happened while nobody listened
                    while not self._stopping.is_set():
                        for _ in connection.notifies(timeout=0.5):
                            self._called.set()
            except psycopg.OperationalError as error:
                log.warning("listening failed, trying again in %s s: %s", RETRY_S, str(error).splitlines()[0])
                self._stopping.wait(RETRY_S)

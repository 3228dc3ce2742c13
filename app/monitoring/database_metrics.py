"""Reads the figures when somebody scrapes, on a connection of its own: it answers also where a pool is used up."""

import logging
import threading
from collections.abc import Iterator, Sequence
from math import inf
from time import monotonic
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from app.db import SessionFactory
from app.monitoring.figures import FIGURES, Figure

log = logging.getLogger(__name__)

CONNECT_S = 3  # Prometheus gives up after ten; what this process knows by itself must come by then
STATEMENT_S = 2
ALL_S = 5  # for all statements together
UP = "podium_database_up"
UP_HELP = "1 if the database answered when it was last asked, else 0."

Rows = Sequence[Sequence[Any]]


class Figures(Collector):
    """Collects every figure, none older than it may be. However many ask at once, the database is asked once."""

    def __init__(self, figures: Sequence[Figure] = FIGURES) -> None:
        self.figures = figures
        self._lock = threading.Lock()
        self._read: dict[str, tuple[float, Rows]] = {}
        self._last_asked: dict[str, float] = {}
        self._is_up = False
        self._asked_at = -inf

    def describe(self) -> Iterator[Metric]:
        """Their names, without the database."""
        for figure in self.figures:
            yield GaugeMetricFamily(figure.name, figure.help, labels=figure.labels)
        yield GaugeMetricFamily(UP, UP_HELP)

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            self._refresh()
            read, is_up = dict(self._read), self._is_up
        yield GaugeMetricFamily(UP, UP_HELP, value=float(is_up))
        for figure in self.figures if is_up else ():  # what was true before it went away may be no more
            family = GaugeMetricFamily(figure.name, figure.help, labels=figure.labels)
            for *labels, value in read.get(figure.name, (0.0, ()))[1]:
                family.add_metric([str(label) for label in labels], float(value or 0))
            yield family

    def _refresh(self) -> None:
        now = monotonic()
        due = [each for each in self.figures if now - self._read.get(each.name, (-inf, ()))[0] >= each.max_age_s]
        due.sort(key=lambda figure: self._last_asked.get(figure.name, -inf))  # one that was left out comes first
        if not due or (not self._is_up and now - self._asked_at < CONNECT_S):
            return
        self._asked_at = now
        engine = connect(SessionFactory.kw["bind"])
        try:
            with engine.connect() as connection:
                connection.execute(text(f"SET statement_timeout = '{STATEMENT_S}s'"))
                self._is_up = True
                for figure in due:
                    self._ask(connection, figure, now)
        except OperationalError as error:
            self._is_up = False
            self._read.clear()
            log.warning("figures: the database does not answer: %s", str(error.orig).strip().splitlines()[0])
        finally:
            engine.dispose()

    def _ask(self, connection: Connection, figure: Figure, now: float) -> None:
        """One that takes too long is left out until its next turn, and so are those for which no time is left."""
        if monotonic() - now > ALL_S:
            self._read.pop(figure.name, None)
            log.warning("figure=%s is left out: the database is slow", figure.name)
            return
        self._last_asked[figure.name] = now
        try:
            rows = connection.execute(text(figure.statement)).all()
        except SQLAlchemyError as error:
            if isinstance(error, OperationalError) and error.connection_invalidated:
                raise
            log.warning("figure=%s cannot be told: %s", figure.name, str(error).splitlines()[0])
            rows = []
        self._read[figure.name] = now, [tuple(row) for row in rows]


def connect(engine: Engine) -> Engine:
    """The same database, with a connection that lives as long as one look; each statement is on its own, and bounded.

    A snapshot that a long transaction held would keep the database from clearing up behind it.
    """
    arguments = {"application_name": "podium-metrics", "connect_timeout": CONNECT_S}
    return create_engine(engine.url, poolclass=NullPool, connect_args=arguments, isolation_level="AUTOCOMMIT")


REGISTRY = CollectorRegistry()
REGISTRY.register(Figures())

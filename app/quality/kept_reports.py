"""The quality reports of large projects: made beside the requests, kept in the database, renewed while people look.

A report of two thousand rankings is made while its page waits, from what the database has at that moment. One of a
million takes half a minute: whoever asks is shown the newest that there is, and told when it was made. A report that
has grown old is made anew by a thread of the web process that was asked; a claim in its row keeps other processes from
making the same one. A process that is killed loses the thread, and its claim runs out.
"""

import hashlib
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from time import monotonic

from pydantic import TypeAdapter
from sqlalchemy import Engine, delete, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.db import SessionFactory, clock, connect_apart
from app.labeling.models import Ranking
from app.quality.errors import ReportBeingMade
from app.quality.judgements import Filter, make_digests
from app.quality.models import KeptReport
from app.quality.reports import Between, QualityReport, quality_report, report_of_digests

log = logging.getLogger(__name__)

FEW = 2_000  # rankings: reported while the page waits, in less than half a second with a hundred people
RENEW_AFTER = timedelta(minutes=10)
LONGEST_MAKING = timedelta(minutes=15)  # its process was killed
UNUSED_FOR = timedelta(days=7)  # and not kept any longer
WAIT_S = 2.0  # for the first report of a filter: of most projects it is made by then
FORMAT = 1  # of what is kept: one that was kept by another version of Podium is made anew

_REPORT = TypeAdapter(QualityReport)
_making: dict[str, threading.Thread] = {}  # by name: what this process makes now
_lock = threading.Lock()


def report_to_show(
    session: Session, project_id: int, chosen: Filter, between: Between, *, now: datetime
) -> QualityReport:
    """The report as it is now, or the newest that is kept of a large project. Raises ReportBeingMade."""
    if has_few_rankings(session, project_id):
        return quality_report(session, project_id, chosen, between)
    name = name_of(project_id, chosen, between)
    kept = session.get(KeptReport, name)
    if kept is None or kept.made_at is None or now - kept.made_at > RENEW_AFTER:
        making = make_beside(name, project_id, chosen, between)
        if kept is None or kept.made_at is None:
            making.join(WAIT_S)
            kept = session.get(KeptReport, name, populate_existing=True)
    if kept is None or kept.report is None:
        raise ReportBeingMade
    return replace(_REPORT.validate_python(kept.report), made_at=kept.made_at)


def has_few_rankings(session: Session, project_id: int) -> bool:
    """Whether there are at most FEW; reads no more than that of an index."""
    some = select(literal(1)).select_from(Ranking).where(Ranking.project_id == project_id).limit(FEW + 1).subquery()
    return session.scalars(select(func.count()).select_from(some)).one() <= FEW


def name_of(project_id: int, chosen: Filter, between: Between) -> str:
    """What a project's report of a filter is kept under."""
    return hashlib.sha256(repr((FORMAT, project_id, chosen, between)).encode()).hexdigest()


def make_beside(name: str, project_id: int, chosen: Filter, between: Between) -> threading.Thread:
    """The thread of this process that makes the report; a new one where none does."""

    def make() -> None:
        engine = connect_apart(SessionFactory.kw["bind"], application="podium-report")
        try:
            make_and_keep(
                engine, name, project_id, lambda session: report_of_digests(session, project_id, chosen, between)
            )
        except Exception:
            log.exception("project=%s report=%s: not made; the next who asks tries again", project_id, name[:8])
        finally:
            engine.dispose()
            with _lock:
                del _making[name]

    with _lock:
        if name not in _making:
            _making[name] = threading.Thread(target=make, name="podium-report", daemon=True)
            _making[name].start()
        return _making[name]


def make_and_keep(engine: Engine, name: str, project_id: int, make: Callable[[Session], QualityReport]) -> None:
    """Make the report unless another process does."""
    with Session(engine) as session, session.begin():
        if not claim(session, name, project_id, now=clock(session)):
            return
    start = monotonic()
    try:
        with Session(engine) as session, session.begin():
            make_digests(
                session, project_id
            )  # committed before the long part: who looks at their own work waits for it
        with Session(engine) as session, session.begin():
            report = make(session)
    except BaseException:
        with Session(engine) as session, session.begin():
            session.execute(update(KeptReport).where(KeptReport.name == name).values(making_until=None))
        raise
    with Session(engine) as session, session.begin():
        keep(session, name, report, now=clock(session))
    log.info(
        "project=%s report=%s rankings=%s took_s=%.1f", project_id, name[:8], report.num_rankings, monotonic() - start
    )


def claim(session: Session, name: str, project_id: int, *, now: datetime) -> bool:
    """Whether this process is the one to make the report. What nobody asked for in a long time goes meanwhile."""
    session.execute(
        delete(KeptReport).where(KeptReport.project_id == project_id, KeptReport.made_at < now - UNUSED_FOR)
    )
    claimed = session.execute(
        insert(KeptReport)
        .values(name=name, project_id=project_id, making_until=now + LONGEST_MAKING)
        .on_conflict_do_update(
            index_elements=[KeptReport.name],
            set_={"making_until": now + LONGEST_MAKING},
            where=or_(KeptReport.making_until.is_(None), KeptReport.making_until < now)
            & or_(KeptReport.made_at.is_(None), KeptReport.made_at < now - RENEW_AFTER),
        )
        .returning(KeptReport.name)
    )
    return claimed.first() is not None


def keep(session: Session, name: str, report: QualityReport, *, now: datetime) -> None:
    session.execute(
        update(KeptReport)
        .where(KeptReport.name == name)
        .values(report=_REPORT.dump_python(report, mode="json"), made_at=now, making_until=None)
    )

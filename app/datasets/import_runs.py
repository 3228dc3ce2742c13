"""Imports that may outlive the request that sent the file: a thread of the web process reads it in one transaction.

Beside that transaction a record says how far it has come. A process that is killed takes the transaction with it, so
nothing of the file is left, and the record's heartbeat stops: whoever looks is told to send the file again.
"""

import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Any, BinaryIO

from sqlalchemy import Connection, CursorResult, Engine, delete, func, select, update
from sqlalchemy.orm import Session

from app.datasets import reports
from app.datasets.errors import ImportNotRunning, ImportRefused, ImportStopped, Problem
from app.datasets.imports import (
    Imported,
    check_format,
    import_file,
    keep_lines,
    new_record,
    same_file,
    sha256_of,
)
from app.datasets.models import DatasetImport, DatasetImportLines, ImportState
from app.db import EVENTS_CHANNEL, SessionFactory, clock, connect_apart, notify
from app.errors import PodiumError
from app.people.models import Account
from app.people.service import audit
from app.projects.models import Project

log = logging.getLogger(__name__)

WAIT_S = 2.0  # most files are read by then, and the answer to the request is the report itself
HEARTBEAT_S = 1.0
SILENCE = timedelta(seconds=60)  # without a heartbeat: its process was killed
CHECKS_KEPT = timedelta(days=7)  # reports of what a file would become
WAS_KILLED = Problem(None, "the server was stopped while it read the file, and nothing of it was left")
OUR_FAULT = Problem(None, "an error of Podium's own, which the server's log has, ended the import; send the file again")


@dataclass
class ImportRun:
    """One import and the thread that makes it. outcome: what came of it, once the thread has ended."""

    record_id: int
    project_id: int
    what: str
    file: BinaryIO
    file_name: str
    format: str | None
    account_id: int
    is_trial: bool
    outcome: Imported | PodiumError | None = None

    def __call__(self) -> None:
        engine = connect_apart(SessionFactory.kw["bind"], application="podium-import")
        try:
            with engine.connect() as beside:
                self.outcome = self.run(engine, beside.execution_options(isolation_level="AUTOCOMMIT"))
        except PodiumError as error:
            self.outcome = error
            fail(engine, self.record_id, problems_of(error))
        except Exception:
            log.exception("import=%s failed", self.record_id)
            fail(engine, self.record_id, [OUR_FAULT])
        finally:
            self.file.close()
            engine.dispose()

    def run(self, engine: Engine, beside: Connection) -> Imported:
        watch = Heart(self.record_id, self.file, beside)
        watch.beat(0)
        with Session(engine, expire_on_commit=False) as session, session.begin():
            now = clock(session)
            imported = import_file(
                session,
                session.get_one(Project, self.project_id),
                self.what,
                self.file,
                self.file_name,
                format=self.format,
                now=now,
                is_trial=self.is_trial,
                record_id=self.record_id,
                watch=watch,
            )
            self.finish(session, imported)
        return imported

    def finish(self, session: Session, imported: Imported) -> None:
        """Write the report down in the transaction of the import itself. Raises ImportStopped."""
        # Its address is known to whoever sent it, also where somebody else brought the same file while it waited.
        report = imported.report if imported.is_new else reports.nothing_new(imported.record, imported.report)
        if imported.lines is not None and self.is_trial:
            keep_lines(session, self.record_id, imported.lines)
        ended = session.execute(
            update(DatasetImport)
            .where(DatasetImport.id == self.record_id, DatasetImport.state == ImportState.RUNNING)
            .values(
                state=ImportState.DONE,
                format=imported.format,
                report=report,
                num_bytes_read=DatasetImport.num_bytes,
                num_lines_read=report["counts"].get("lines", 0),
                finished_at=func.clock_timestamp(),
            )
        )
        if num_rows(ended) == 0:
            raise ImportStopped
        if imported.is_new and not self.is_trial:
            subject = f"import:{self.record_id}"
            audit(session, self.account_id, "dataset.import", subject, project_id=self.project_id, what=self.what)
        notify(session, EVENTS_CHANNEL, f"project:{self.project_id}")


class Heart:
    """Says on a connection of its own how far an import has come; ends the import that somebody stopped."""

    def __init__(self, record_id: int, file: BinaryIO, beside: Connection) -> None:
        self.record_id, self.file, self.beside = record_id, file, beside
        self.next_at = 0.0

    def __call__(self, num_lines_read: int) -> None:
        if monotonic() >= self.next_at:
            self.beat(num_lines_read)

    def beat(self, num_lines_read: int) -> None:
        """Raises ImportStopped."""
        self.next_at = monotonic() + HEARTBEAT_S
        told = self.beside.execute(
            update(DatasetImport)
            .where(DatasetImport.id == self.record_id, DatasetImport.state == ImportState.RUNNING)
            .values(num_bytes_read=self.file.tell(), num_lines_read=num_lines_read, heartbeat_at=func.clock_timestamp())
        )
        if num_rows(told) == 0:
            raise ImportStopped


def num_rows(result: Any) -> int:
    """How many rows a statement changed."""
    assert isinstance(result, CursorResult)
    return result.rowcount


def start_import(
    session: Session,
    project: Project,
    what: str,
    file: BinaryIO,
    file_name: str,
    *,
    format: str | None,
    account: Account,
    is_trial: bool,
) -> ImportRun | Imported:
    """Begin an import and wait a moment for its end; or say at once that the file was imported before.

    file: an open file of the system; it may be closed when this returns.
    Raises UnknownFormat.
    """
    check_format(what, format)
    digest = sha256_of(file)
    if (earlier := same_file(session, project, what, digest)) is not None:
        return Imported(what, earlier.format, earlier.report, earlier, is_new=False)
    own = os.fdopen(os.dup(file.fileno()), "rb")
    # Committed before the thread begins: it may be watched from then on. Not by a connection of the pool: this request
    # holds one of them, and where each of all waits for a second one, none is left.
    engine = connect_apart(SessionFactory.kw["bind"], application="podium-import")
    with Session(engine) as apart, apart.begin():
        tidy(apart, project, now := clock(apart))
        record_id = new_record(
            apart,
            project,
            what,
            file_name,
            digest,
            format,
            account,
            now,
            state=ImportState.RUNNING,
            is_trial=is_trial,
            heartbeat_at=now,
            num_bytes=os.fstat(own.fileno()).st_size,
        ).id
    run = ImportRun(record_id, project.id, what, own, file_name, format, account.id, is_trial)
    thread = threading.Thread(target=run, name=f"import-{record_id}", daemon=True)
    thread.start()
    thread.join(WAIT_S)
    return run


def tidy(session: Session, project: Project, now: datetime) -> None:
    """Say of imports whose process was killed that they failed; forget what old files would have become."""
    silent = select(DatasetImport.id).where(
        DatasetImport.project_id == project.id,
        DatasetImport.state == ImportState.RUNNING,
        DatasetImport.heartbeat_at < now - SILENCE,
    )
    for record_id in session.scalars(silent).all():
        end_failed(session, record_id, [WAS_KILLED])
    old = select(DatasetImport.id).where(
        DatasetImport.project_id == project.id, DatasetImport.is_trial, DatasetImport.created_at < now - CHECKS_KEPT
    )
    ids = session.scalars(old).all()
    session.execute(delete(DatasetImportLines).where(DatasetImportLines.import_id.in_(ids)))
    session.execute(delete(DatasetImport).where(DatasetImport.id.in_(ids)))


def is_silent(record: DatasetImport, now: datetime) -> bool:
    """Whether its process was killed."""
    return (
        record.state is ImportState.RUNNING and record.heartbeat_at is not None and record.heartbeat_at < now - SILENCE
    )


def stop_import(session: Session, record: DatasetImport, account: Account) -> None:
    """End an import that runs; nothing of its file stays. Raises ImportNotRunning."""
    if not end_failed(session, record.id, [Problem(None, "stopped by a person")]):
        raise ImportNotRunning(record.file_name)
    audit(session, account.id, "dataset.stop_import", f"import:{record.id}", project_id=record.project_id)


def end_failed(session: Session, record_id: int, problems: Sequence[Problem]) -> bool:
    """Whether it was running until now."""
    ended = session.execute(
        update(DatasetImport)
        .where(DatasetImport.id == record_id, DatasetImport.state == ImportState.RUNNING)
        .values(
            state=ImportState.FAILED,
            problems=[{"line": problem.line, "reason": problem.reason} for problem in problems],
            finished_at=func.clock_timestamp(),
        )
    )
    return num_rows(ended) > 0


def fail(engine: Engine, record_id: int, problems: Sequence[Problem]) -> None:
    with Session(engine) as session, session.begin():
        end_failed(session, record_id, problems)
        record = session.get_one(DatasetImport, record_id)
        notify(session, EVENTS_CHANNEL, f"project:{record.project_id}")


def problems_of(error: PodiumError) -> Sequence[Problem]:
    return error.problems if isinstance(error, ImportRefused) else [Problem(None, str(error))]

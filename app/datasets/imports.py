"""Files become prompts, rankings and demonstrations: all of a file or nothing of it, and the same file only once."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO

from psycopg.errors import DiskFull
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.batches import batches
from app.datasets import reports
from app.datasets.copying import copy_rows
from app.datasets.demonstration_imports import write_demonstrations
from app.datasets.errors import (
    BadFile,
    ImportNotFound,
    ImportRefused,
    ImportRunning,
    NoRoom,
    Problem,
    UnknownFormat,
)
from app.datasets.files import CONTAINERS, container_of, records
from app.datasets.importing import Import, Watch, unwatched
from app.datasets.line_log import Line, LineLog, unpacked
from app.datasets.models import DatasetImport, DatasetImportLines, ImportState
from app.datasets.ranking_imports import write_rankings
from app.datasets.readers import RANKING_FORMATS
from app.datasets.readers.fields import prompt_of
from app.db import clock, waiting_at_most
from app.people.models import Account
from app.projects.models import Project

BATCH_SIZE = 500
IMPORT_LOCK = 0x1A << 40  # plus the project's id: Postgres's advisory locks are numbers
LOCK_WAIT_S = 10  # for another import into the project; whoever must wait longer is told


@dataclass(frozen=True)
class Imported:
    """What an import did. record: what is stored of it; None when it was only tried.

    lines: what each line became, of an import that this process has just made.
    """

    what: str
    format: str
    report: dict[str, Any]  # {"counts": {name: count}, "k": {K: slates}, "lines": {remark: [line]}, …}
    record: DatasetImport | None
    is_new: bool  # false: the same file was imported before, and nothing has changed
    lines: LineLog | None = None

    @property
    def summary(self) -> str:
        return reports.summary(self.report)

    @property
    def remarks(self) -> list[str]:
        return reports.remarks(self.report)


def import_file(
    session: Session,
    project: Project,
    what: str,
    file: BinaryIO,
    file_name: str,
    *,
    format: str | None = None,
    account: Account | None = None,
    now: datetime,
    is_trial: bool = False,
    record_id: int | None = None,
    watch: Watch = unwatched,
) -> Imported:
    """Import all of the file or nothing of it.

    what: "prompts", "rankings" or "demonstrations".  format: one of FORMATS[what]; None finds out from the file.
    is_trial: report what would happen, and store nothing.
    record_id: of the record that tells of this import while it runs (import_runs.py); None makes one that is done.
    Raises ImportRefused, with the lines that are wrong, UnknownFormat, ImportRunning.
    """
    check_format(what, format)
    lock_imports(session, project)
    digest = sha256_of(file)
    if (earlier := same_file(session, project, what, digest)) is not None:
        return Imported(what, earlier.format, earlier.report, earlier, is_new=False)
    with session.begin_nested() as savepoint:
        if record_id is None:
            record_id = new_record(session, project, what, file_name, digest, format, account, now).id
        running = Import(session, project, record_id, file_name, now, watch)
        used = read_all(running, what, file, format)
        report = running.report.as_json()
        if is_trial:
            savepoint.rollback()
    if is_trial:
        return Imported(what, used, report, None, is_new=True, lines=running.report.log)
    record = session.get_one(DatasetImport, record_id)
    record.format, record.report, record.finished_at = used, report, clock(session)
    keep_lines(session, record_id, running.report.log)
    session.flush()
    return Imported(what, used, report, record, is_new=True, lines=running.report.log)


def check_format(what: str, format: str | None) -> None:
    """Raises UnknownFormat."""
    if format is not None and format not in FORMATS[what]:
        raise UnknownFormat(what, format, FORMATS[what])


def lock_imports(session: Session, project: Project) -> None:
    """One import into a project at a time: two of the same file must not both be the first. Raises ImportRunning.

    Nobody but imports waits for this lock, which may be held for minutes.
    """
    with waiting_at_most(session, LOCK_WAIT_S, ImportRunning(project.slug)):
        session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": IMPORT_LOCK + project.id})


def new_record(
    session: Session,
    project: Project,
    what: str,
    file_name: str,
    digest: str,
    format: str | None,
    account: Account | None,
    now: datetime,
    **more: Any,
) -> DatasetImport:
    record = DatasetImport(
        project_id=project.id,
        what=what,
        format=format or "",
        file_name=file_name,
        sha256=digest,
        created_by=None if account is None else account.id,
        created_at=now,
        has_keyed_ids=True,
        **more,
    )
    session.add(record)
    session.flush()
    return record


def keep_lines(session: Session, import_id: int, log: LineLog) -> None:
    """Keep what each line became."""
    blocks = enumerate(log.blocks())
    copy_rows(
        session,
        DatasetImportLines,
        ({"import_id": import_id, "block": number, "packed": block} for number, block in blocks),
    )


def lines_of(session: Session, record: DatasetImport) -> Iterator[Line]:
    """What each line became, read some thousand at a time."""
    query = select(DatasetImportLines.packed).where(DatasetImportLines.import_id == record.id)
    result = session.scalars(query.order_by(DatasetImportLines.block), execution_options={"yield_per": 1})
    return unpacked(iter(result))


def read_all(running: Import, what: str, file: BinaryIO, format: str | None) -> str:
    """Write what the file holds; returns the format it was read as. Raises ImportRefused."""
    used = ""
    try:
        used = WRITERS[what](running, file, format)
    except BadFile as error:
        running.problems.append(error.problem)
    except (DBAPIError, DiskFull) as error:
        if not isinstance(getattr(error, "orig", error), DiskFull):
            raise
        raise NoRoom from error
    if not running.problems and running.report.counts["lines"] == 0:
        running.problems.append(Problem(None, "the file holds no records"))
    if running.problems:
        raise ImportRefused(running.file_name, running.problems)
    return used


def sha256_of(file: BinaryIO) -> str:
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(2**20):
        digest.update(block)
    return digest.hexdigest()


def same_file(session: Session, project: Project, what: str, digest: str) -> DatasetImport | None:
    return session.scalars(
        select(DatasetImport)
        .where(
            DatasetImport.project_id == project.id,
            DatasetImport.what == what,
            DatasetImport.sha256 == digest,
            DatasetImport.state == ImportState.DONE,
            ~DatasetImport.is_trial,
            ~DatasetImport.report.has_key("same_as"),
        )
        .limit(1)
    ).one_or_none()


def find_import(session: Session, project: Project, import_id: int) -> DatasetImport:
    """Raises ImportNotFound, also for another project's."""
    record = session.get(DatasetImport, import_id)
    if record is None or record.project_id != project.id:
        raise ImportNotFound(import_id)
    return record


def list_imports(session: Session, project: Project, *, limit: int = 20) -> Sequence[DatasetImport]:
    """The project's imports, the newest first; without those that only looked."""
    query = (
        select(DatasetImport)
        .where(DatasetImport.project_id == project.id, ~DatasetImport.is_trial)
        .order_by(DatasetImport.id.desc())
    )
    return session.scalars(query.limit(limit)).all()


def write_prompts(running: Import, file: BinaryIO, format: str | None) -> str:
    """Add the prompts that are new. Exact and near-duplicates are skipped and reported by line."""
    container = format or container_of(file, running.file_name)
    for batch in batches(running.read(records(file, container), prompt_of), BATCH_SIZE):
        found = running.place([messages for _, messages in batch], skips_near_duplicates=True)
        for (line, _), placed in zip(batch, found, strict=True):
            if placed.outcome == "added":
                running.report.counts["prompts"] += 1
                running.became(line, "prompt", prompt="new")
            else:
                running.report.remark(placed.outcome, line)
                running.became(line, "nothing new", prompt="reused", remark=placed.outcome)
        running.tell()
    return container


Writer = Callable[[Import, BinaryIO, str | None], str]

WRITERS: dict[str, Writer] = {
    "prompts": write_prompts,
    "rankings": write_rankings,
    "demonstrations": write_demonstrations,
}
FORMATS: dict[str, tuple[str, ...]] = {
    "prompts": CONTAINERS,
    "rankings": tuple(RANKING_FORMATS),
    "demonstrations": CONTAINERS[1:],
}

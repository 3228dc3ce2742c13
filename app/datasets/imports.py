"""Files become prompts, rankings and demonstrations: all of a file or nothing of it, and the same file only once."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO
from uuid import UUID, uuid5

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from app.batches import batches
from app.datasets import reports
from app.datasets.errors import BadFile, ImportNotFound, ImportRefused, Problem, UnknownFormat
from app.datasets.files import CONTAINERS, container_of, records
from app.datasets.formats import RANKING_FORMATS, GivenDemonstration, prompt_of, read_demonstration
from app.datasets.importing import Import
from app.datasets.models import DatasetImport
from app.datasets.ranking_imports import find_labelers, write_rankings
from app.labeling.models import Demonstration
from app.people.models import Account
from app.projects.models import Project
from app.prompts.models import PromptKind
from app.prompts.service import add_prompts, lock_prompts, place_prompts

BATCH_SIZE = 500
DEMONSTRATIONS = UUID("0b0e8b61-5c0e-5d8a-9e0c-0c6d1d2b7a11")  # the namespace of their ids


@dataclass(frozen=True)
class Imported:
    """What an import did. record: what is stored of it; None when it was only tried."""

    what: str
    format: str
    report: dict[str, Any]  # {"counts": {name: count}, "k": {K: slates}, "lines": {remark: [line]}}
    record: DatasetImport | None
    is_new: bool  # false: the same file was imported before, and nothing has changed

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
) -> Imported:
    """Import all of the file or nothing of it.

    what: "prompts", "rankings" or "demonstrations".  format: one of FORMATS[what]; None finds out from the file.
    is_trial: report what would happen, and store nothing.
    Raises ImportRefused, with the lines that are wrong, and UnknownFormat.
    """
    if format is not None and format not in FORMATS[what]:
        raise UnknownFormat(what, format, FORMATS[what])
    lock_prompts(session, project)  # one import at a time: two of the same file must not both be the first
    digest = sha256_of(file)
    if (earlier := same_file(session, project, what, digest)) is not None:
        return Imported(what, earlier.format, earlier.report, earlier, is_new=False)
    with session.begin_nested() as savepoint:
        record = DatasetImport(
            project_id=project.id,
            what=what,
            format=format or "",
            file_name=file_name,
            sha256=digest,
            created_by=None if account is None else account.id,
            created_at=now,
        )
        session.add(record)
        session.flush()
        running = Import(session, project, record.id, file_name, now)
        used = read_all(running, what, file, format)
        report = running.report.as_json()
        record.format, record.report = used, report
        session.flush()
        if is_trial:
            savepoint.rollback()
    return Imported(what, used, report, None if is_trial else record, is_new=True)


def read_all(running: Import, what: str, file: BinaryIO, format: str | None) -> str:
    """Write what the file holds; returns the format it was read as. Raises ImportRefused."""
    used = ""
    try:
        used = WRITERS[what](running, file, format)
    except BadFile as error:
        running.problems.append(error.problem)
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
        .where(DatasetImport.project_id == project.id, DatasetImport.what == what, DatasetImport.sha256 == digest)
        .limit(1)
    ).one_or_none()


def find_import(session: Session, project: Project, import_id: int) -> DatasetImport:
    """Raises ImportNotFound, also for another project's."""
    record = session.get(DatasetImport, import_id)
    if record is None or record.project_id != project.id:
        raise ImportNotFound(import_id)
    return record


def list_imports(session: Session, project: Project, *, limit: int = 20) -> Sequence[Imported]:
    """The project's imports, the newest first."""
    query = select(DatasetImport).where(DatasetImport.project_id == project.id).order_by(DatasetImport.id.desc())
    return [
        Imported(record.what, record.format, record.report, record, is_new=True)
        for record in session.scalars(query.limit(limit))
    ]


def write_prompts(running: Import, file: BinaryIO, format: str | None) -> str:
    """Add the prompts that are new. Exact and near-duplicates are skipped and reported by line."""
    container = format or container_of(file, running.file_name)
    for batch in batches(running.read(records(file, container), prompt_of), BATCH_SIZE):
        added = add_prompts(
            running.session,
            running.project,
            [messages for _, messages in batch],
            kind=PromptKind.IMPORTED,
            import_id=running.id,
        )
        for (line, _), placed in zip(batch, added.placed, strict=True):
            if placed.outcome == "added":
                running.report.counts["prompts"] += 1
            else:
                running.report.remark(placed.outcome, line)
    return container


def write_demonstrations(running: Import, file: BinaryIO, format: str | None) -> str:
    """Add the demonstrations that are new: the same completion of the same prompt is one demonstration."""
    container = format or container_of(file, running.file_name)
    for batch in batches(running.read(records(file, container), read_demonstration), BATCH_SIZE):
        placed = place_prompts(
            running.session,
            running.project,
            [given.messages for _, given in batch],
            kind=PromptKind.IMPORTED,
            import_id=running.id,
        )
        running.report.counts["prompts"] += placed.num_added
        known = known_demonstrations(running, [prompt.prompt_id for prompt in placed.placed])
        new: list[tuple[int, GivenDemonstration]] = []
        for (line, given), prompt in zip(batch, placed.placed, strict=True):
            if (prompt.prompt_id, given.text) in known:
                running.report.remark("known", line)
            else:
                known.add((prompt.prompt_id, given.text))
                new.append((prompt.prompt_id, given))
        add_demonstrations(running, new)
    return container


def add_demonstrations(running: Import, new: Sequence[tuple[int, GivenDemonstration]]) -> None:
    """new: prompt and demonstration. Their ids are hashes of what they say."""
    labelers = find_labelers(running, [given.labeler for _, given in new if given.labeler is not None])
    rows: list[dict[str, Any]] = [
        {
            "id": uuid5(DEMONSTRATIONS, f"{prompt_id}:{given.text}"),
            "prompt_id": prompt_id,
            "labeler_id": None if given.labeler is None else labelers[given.labeler],
            "text": given.text,
            "import_id": running.id,
        }
        for prompt_id, given in new
    ]
    if rows:
        running.session.execute(insert(Demonstration), rows)
        running.report.counts["demonstrations"] += len(rows)


def known_demonstrations(running: Import, prompt_ids: Sequence[int]) -> set[tuple[int, str]]:
    """Prompt and text of those that stand: our own export coming home changes nothing."""
    query = select(Demonstration.prompt_id, Demonstration.text).where(
        Demonstration.prompt_id.in_(set(prompt_ids)), Demonstration.retracted_at.is_(None)
    )
    return {(prompt_id, text) for prompt_id, text in running.session.execute(query)}


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

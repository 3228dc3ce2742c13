"""A file that a browser or a program sends, imported on behalf of whoever sends it."""

from pathlib import PurePath
from typing import Protocol

from fastapi import UploadFile
from fastapi.responses import RedirectResponse, Response
from sqlalchemy.orm import Session

from app.datasets.errors import ImportRefused, Problem, UnknownFormat
from app.datasets.files import MAX_FILE_BYTES
from app.datasets.import_runs import ImportRun, start_import
from app.datasets.imports import Imported
from app.errors import PodiumError
from app.people.access import Access


class ImportPage(Protocol):
    """The page a file was sent from, shown again with what came of it."""

    def __call__(
        self,
        *,
        status_code: int = 200,
        refused: ImportRefused | UnknownFormat | None = None,
        imported: Imported | None = None,
    ) -> Response: ...


def answer_upload(
    session: Session, access: Access, what: str, upload: UploadFile, format: str, is_trial: bool, *, page: ImportPage
) -> Response:
    """Import the file; answer with the page of its import, or with the page it came from and why there is none."""
    try:
        imported = run_upload(session, access, what, upload, format, is_trial)
    except (ImportRefused, UnknownFormat) as error:
        return page(status_code=422, refused=error)
    if isinstance(imported, Imported):
        return page(imported=imported)
    return RedirectResponse(f"/projects/{access.project.slug}/datasets/imports/{imported.record_id}", status_code=303)


def run_upload(
    session: Session, access: Access, what: str, upload: UploadFile, format: str, is_trial: bool
) -> ImportRun | Imported:
    """Import the file: its import, which may still run, or Imported if it changes nothing. format: "" finds out.

    Raises ImportRefused, UnknownFormat, and whatever else ended it while one waited.
    """
    name = PurePath(upload.filename or "upload").name
    if (upload.size or 0) > MAX_FILE_BYTES:
        raise ImportRefused(name, [Problem(None, f"the file is longer than {MAX_FILE_BYTES >> 30} GiB; split it")])
    run = start_import(
        session,
        access.project,
        what,
        upload.file,
        name,
        format=format or None,
        account=access.account,
        is_trial=is_trial,
    )
    if isinstance(run, Imported):
        return run
    if isinstance(run.outcome, PodiumError):
        raise run.outcome
    if run.outcome is not None and not run.outcome.is_new:
        return run.outcome
    return run

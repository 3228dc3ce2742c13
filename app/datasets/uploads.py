"""A file that a browser or a program sends, imported on behalf of whoever sends it."""

from pathlib import PurePath
from typing import Protocol

from fastapi import UploadFile
from fastapi.responses import RedirectResponse, Response
from sqlalchemy.orm import Session

from app.datasets.errors import ImportRefused, Problem, UnknownFormat
from app.datasets.files import MAX_FILE_BYTES
from app.datasets.imports import Imported, import_file
from app.db import clock
from app.people.access import Access
from app.people.service import audit


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
    """Import the file; answer with its report, or with the page it came from and why there is none."""
    try:
        imported = run_upload(session, access, what, upload, format, is_trial)
    except (ImportRefused, UnknownFormat) as error:
        return page(status_code=422, refused=error)
    if imported.record is None or not imported.is_new:
        return page(imported=imported)
    report = f"/projects/{access.project.slug}/datasets/imports/{imported.record.id}"
    return RedirectResponse(report, status_code=303)


def run_upload(
    session: Session, access: Access, what: str, upload: UploadFile, format: str, is_trial: bool
) -> Imported:
    """Import the file. format: "" finds out. Raises ImportRefused, UnknownFormat."""
    name = PurePath(upload.filename or "upload").name
    if (upload.size or 0) > MAX_FILE_BYTES:
        raise ImportRefused(name, [Problem(None, f"the file is longer than {MAX_FILE_BYTES >> 30} GiB; split it")])
    imported = import_file(
        session,
        access.project,
        what,
        upload.file,
        name,
        format=format or None,
        account=access.account,
        now=clock(session),
        is_trial=is_trial,
    )
    if imported.record is not None and imported.is_new:
        audit(
            session,
            access.account.id,
            "dataset.import",
            f"import:{imported.record.id}",
            project_id=access.project.id,
            what=what,
        )
    return imported

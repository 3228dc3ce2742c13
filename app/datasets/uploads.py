"""A file that a browser or a program sends, imported on behalf of whoever sends it."""

from pathlib import PurePath

from fastapi import UploadFile
from sqlalchemy.orm import Session

from app.datasets.errors import ImportRefused, Problem
from app.datasets.files import MAX_FILE_BYTES
from app.datasets.imports import Imported, import_file
from app.db import clock
from app.people.access import Access
from app.people.service import audit


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

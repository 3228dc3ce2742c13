"""Imports: the forms, what a file's lines became or would become, and how far one that runs has come."""

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, File, Form, Request, UploadFile
from fastapi.responses import RedirectResponse, Response, StreamingResponse
from sqlalchemy.orm import Session

from app.datasets import line_log, reports
from app.datasets.errors import Problem
from app.datasets.import_runs import WAS_KILLED, is_silent, stop_import
from app.datasets.imports import FORMATS, Imported, find_import, lines_of, list_imports
from app.datasets.line_log import Line
from app.datasets.models import DatasetImport, ImportState
from app.datasets.readers.given import REMARKS
from app.datasets.schemas import ImportOut
from app.datasets.uploads import answer_upload, run_upload
from app.db import SessionDep, SessionFactory, clock
from app.pages import render
from app.people.access import Access, ResearcherAccess
from app.people.models import Account
from app.rounds.events import live

router = APIRouter(prefix="/projects/{slug}/datasets/imports")
api = APIRouter(prefix="/projects/{slug}/imports", tags=["datasets"])

What = Annotated[str, Form(pattern="^(rankings|demonstrations)$")]
MEDIA_TYPES = {"jsonl": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}


def found_import(access: ResearcherAccess, import_id: int, session: SessionDep) -> DatasetImport:
    """The import of the address."""
    return find_import(session, access.project, import_id)


FoundImport = Annotated[DatasetImport, Depends(found_import)]


@router.get("")
def imports_page(request: Request, session: SessionDep, access: ResearcherAccess) -> Response:
    """What files can be brought, and those that were."""
    return page(request, session, access)


@router.post("")
def upload(
    request: Request,
    session: SessionDep,
    access: ResearcherAccess,
    file: Annotated[UploadFile, File()],
    what: What = "rankings",
    format: Annotated[str, Form()] = "",
    is_trial: Annotated[bool, Form()] = False,
) -> Response:
    """Import rankings or demonstrations, or only say what each line would become."""
    return answer_upload(session, access, what, file, format, is_trial, page=partial(page, request, session, access))


def page(request: Request, session: Session, access: Access, *, status_code: int = 200, **shown: Any) -> Response:
    context: dict[str, Any] = {"refused": None, "imported": None}
    return render(
        request,
        "datasets/imports.html",
        status_code=status_code,
        project=access.project,
        imports=list_imports(session, access.project),
        summary=reports.summary,
        formats=FORMATS,
        now=clock(session),
        is_silent=is_silent,
        **(context | shown),
    )


@router.get("/{import_id}")
def import_page(request: Request, session: SessionDep, access: ResearcherAccess, record: FoundImport) -> Response:
    """What became of a file's lines, or how far its import has come."""
    return shown(request, session, access, record, "datasets/import.html")


@router.get("/{import_id}/live")
def import_now(request: Request, session: SessionDep, access: ResearcherAccess, record: FoundImport) -> Response:
    """The part of the page that changes."""
    return shown(request, session, access, record, "datasets/_import_state.html")


def shown(request: Request, session: Session, access: Access, record: DatasetImport, template: str) -> Response:
    return render(
        request,
        template,
        project=access.project,
        record=record,
        importer=session.get(Account, record.created_by) if record.created_by else None,
        summary=reports.summary(record.report) if record.report else "",
        remarks=reports.remarks(record.report) if record.report else [],
        lines=[Line(**line) for line in record.report.get("first", [])],
        words=REMARKS | reports.SKIPPED,
        problems=[Problem(**problem) for problem in record.problems],
        is_silent=is_silent(record, clock(session)),
        seconds_left=reports.seconds_left(record),
    )


@router.get("/{import_id}/events")
async def import_events(access: ResearcherAccess, record: FoundImport) -> StreamingResponse:
    """Server-sent events: `changed` when an import into the project has ended."""
    return live(f"project:{access.project.id}")


@router.post("/{import_id}/stop")
def stop(session: SessionDep, access: ResearcherAccess, record: FoundImport) -> Response:
    """End an import that runs; nothing of its file stays."""
    stop_import(session, record, access.account)
    return RedirectResponse(f"/projects/{access.project.slug}/datasets/imports/{record.id}", status_code=303)


@router.get("/{import_id}/lines")
def download_lines(record: FoundImport, file: Literal["csv", "jsonl"] = "csv") -> Response:
    """What each line of the file became, all of them."""

    def chunks() -> Iterator[bytes]:
        with SessionFactory() as session:  # its own: the request's is closed before the last line is sent
            yield from line_log.WRITERS[file](lines_of(session, record))

    name = f"import-{record.id}-lines.{file}"
    return StreamingResponse(
        chunks(), media_type=MEDIA_TYPES[file], headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )


@api.post("", status_code=201)
def import_as_api(
    session: SessionDep,
    access: ResearcherAccess,
    file: Annotated[UploadFile, File()],
    response: Response,
    what: What = "rankings",
    format: Annotated[str, Form()] = "",
    is_trial: Annotated[bool, Form()] = False,
) -> ImportOut:
    """Import a file of rankings or demonstrations.

    201: imported. 200: there was nothing to do, or it was only checked. 202: it is being read; ask for it again by its
    id. 422: refused, with each line's problem.
    """
    imported = run_upload(session, access, what, file, format, is_trial)
    if isinstance(imported, Imported):
        assert imported.record is not None
        response.status_code = 200
        return as_json(session, imported.record).model_copy(update={"is_new": False})
    if imported.outcome is None:
        response.status_code = 202
    elif is_trial:
        response.status_code = 200
    return as_json(session, find_import(session, access.project, imported.record_id))


def as_json(session: Session, record: DatasetImport) -> ImportOut:
    """The import; one whose process was killed has failed, although nobody was left to write that down."""
    told = ImportOut.model_validate(record).model_copy(update={"is_new": "same_as" not in record.report})
    if not is_silent(record, clock(session)):
        return told
    return told.model_copy(update={"state": ImportState.FAILED, "problems": [asdict(WAS_KILLED)]})


@api.get("")
def list_as_json(session: SessionDep, access: ResearcherAccess) -> list[ImportOut]:
    """The project's imports, the newest first."""
    return [as_json(session, record) for record in list_imports(session, access.project)]


@api.get("/{import_id}")
def show_as_json(session: SessionDep, access: ResearcherAccess, record: FoundImport) -> ImportOut:
    """One import: its state, its report, and how far it has come."""
    return as_json(session, record)


@api.get("/{import_id}/lines")
def lines_as_api(access: ResearcherAccess, record: FoundImport, file: Literal["csv", "jsonl"] = "jsonl") -> Response:
    """What each line of the file became."""
    return download_lines(record, file)

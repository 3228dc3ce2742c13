"""Datasets: what there is to freeze, snapshots and their exports, and imports with their reports."""

from functools import partial
from typing import Annotated, Any, get_args

from fastapi import APIRouter, File, Form, Query, Request, UploadFile
from fastapi.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from sqlalchemy.orm import Session

from app.datasets import cards
from app.datasets.demonstrations import demonstrations_between
from app.datasets.errors import (
    BadFilter,
    NothingSelected,
    SnapshotNameTaken,
    UnknownLicence,
)
from app.datasets.explorer_routes import form_of, told_of
from app.datasets.exports import (
    ExportChoice,
    FileType,
    Format,
    Labels,
    Style,
    Ties,
    check_export,
    export_chunks,
    file_name_of,
    tag_of,
)
from app.datasets.filter_words import in_words
from app.datasets.filters import SnapshotFilter
from app.datasets.imports import FORMATS, Imported, find_import, list_imports
from app.datasets.licences import licence_of
from app.datasets.models import Snapshot
from app.datasets.reading import rows_between
from app.datasets.schemas import FilterQuery, ImportOut, SnapshotForm, SnapshotIn, SnapshotOut
from app.datasets.snapshots import create_snapshot, find_snapshot, list_snapshots
from app.datasets.uploads import answer_upload, run_upload
from app.db import SessionDep, clock
from app.pages import render
from app.people.access import Access, ResearcherAccess
from app.people.models import Account
from app.people.service import audit

router = APIRouter()
api = APIRouter(tags=["datasets"])

NUM_EXAMPLES = 3

MEDIA_TYPES = {"jsonl": "application/x-ndjson", "parquet": "application/vnd.apache.parquet"}


@router.get("/projects/{slug}/datasets")
def datasets_page(
    request: Request, session: SessionDep, access: ResearcherAccess, query: Annotated[FilterQuery, Query()]
) -> Response:
    """Snapshots, what the filter in the address would freeze, and imports."""
    return page(request, session, access, query=query)


@router.post("/projects/{slug}/datasets/snapshots")
def freeze(
    request: Request, session: SessionDep, access: ResearcherAccess, form: Annotated[SnapshotForm, Form()]
) -> Response:
    """Freeze what the form's filter selects."""
    try:
        with session.begin_nested():  # a refusal renders the page again, on a session that can still be used
            snapshot = freeze_as(session, access, form.name, form.as_filter(), licence_of(form.licence))
    except (BadFilter, NothingSelected, SnapshotNameTaken, UnknownLicence) as error:
        typed = {"name": form.name, "licence": form.licence}
        return page(request, session, access, status_code=422, query=form, problem=str(error), **typed)
    return RedirectResponse(f"/projects/{access.project.slug}/datasets/snapshots/{snapshot.id}", status_code=303)


def freeze_as(session: Session, access: Access, name: str, filter: SnapshotFilter, licence: str | None) -> Snapshot:
    snapshot = create_snapshot(
        session,
        access.project,
        name=name,
        filter=filter,
        licence=licence,
        account=access.account,
        now=clock(session),
    )
    audit(
        session,
        access.account.id,
        "snapshot.create",
        f"snapshot:{snapshot.id}",
        project_id=access.project.id,
        name=snapshot.name,
    )
    return snapshot


@router.post("/projects/{slug}/datasets/imports")
def import_upload(
    request: Request,
    session: SessionDep,
    access: ResearcherAccess,
    file: Annotated[UploadFile, File()],
    what: Annotated[str, Form(pattern="^(rankings|demonstrations)$")] = "rankings",
    format: Annotated[str, Form()] = "",
    is_trial: Annotated[bool, Form()] = False,
) -> Response:
    """Import rankings or demonstrations, or only say what the file would become."""
    return answer_upload(session, access, what, file, format, is_trial, page=partial(page, request, session, access))


def page(
    request: Request,
    session: Session,
    access: Access,
    *,
    status_code: int = 200,
    query: FilterQuery = FilterQuery(),  # noqa: B008 - frozen
    problem: str | None = None,
    **shown: Any,
) -> Response:
    told = told_of(session, access, query)
    if told["problem"]:
        status_code = 422
    elif problem:
        told["problem"] = problem
    context: dict[str, Any] = {**told, **form_of(session, access, query), "refused": None, "imported": None}
    return render(
        request,
        "datasets/index.html",
        status_code=status_code,
        snapshots=list_snapshots(session, access.project),
        imports=list_imports(session, access.project),
        formats=FORMATS,
        **(context | shown),
    )


@router.get("/projects/{slug}/datasets/snapshots/{snapshot_id}")
def snapshot_page(request: Request, session: SessionDep, access: ResearcherAccess, snapshot_id: int) -> Response:
    """One snapshot: what it holds, how to get it, and its first rankings."""
    snapshot = find_snapshot(session, access.project, snapshot_id)
    creator = session.get(Account, snapshot.created_by) if snapshot.created_by else None
    return render(
        request,
        "datasets/snapshot.html",
        project=access.project,
        snapshot=snapshot,
        creator=creator,
        chosen=in_words(SnapshotFilter.model_validate(snapshot.filter)),
        examples=list(rows_between(session, snapshot.id, 1, NUM_EXAMPLES)),
        written=list(demonstrations_between(session, snapshot.id, 1, NUM_EXAMPLES)),
        address=str(request.base_url).rstrip("/"),
        files=get_args(FileType),
        ties=get_args(Ties),
        styles=get_args(Style),
    )


@router.get("/projects/{slug}/datasets/snapshots/{snapshot_id}/export")
def download(
    request: Request,
    session: SessionDep,
    access: ResearcherAccess,
    snapshot_id: int,
    format: Format = "kwise",
    file: FileType = "jsonl",
    ties: Ties = "drop",
    labels: Labels = "given",
    style: Style = "auto",
) -> Response:
    """The snapshot as a file."""
    choice = ExportChoice(format=format, file=file, ties=ties, labels=labels, style=style)
    return streamed(request, access, find_snapshot(session, access.project, snapshot_id), choice)


def streamed(request: Request, access: Access, snapshot: Snapshot, choice: ExportChoice) -> Response:
    """The file, sent as it is made; nothing at all to whoever has it already."""
    check_export(snapshot, choice)
    tag = f'"{tag_of(snapshot, choice)}"'
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"ETag": tag})
    name = file_name_of(access.project.slug, snapshot, choice)
    return StreamingResponse(
        export_chunks(snapshot, choice),
        media_type=MEDIA_TYPES[choice.file],
        headers={"Content-Disposition": f'attachment; filename="{name}"', "ETag": tag},
    )


@router.get("/projects/{slug}/datasets/snapshots/{snapshot_id}/card")
def card(session: SessionDep, access: ResearcherAccess, snapshot_id: int) -> Response:
    """The snapshot's dataset card, in Markdown."""
    snapshot = find_snapshot(session, access.project, snapshot_id)
    return PlainTextResponse(cards.dataset_card(access.project, snapshot), media_type="text/markdown; charset=utf-8")


@router.get("/projects/{slug}/datasets/imports/{import_id}")
def import_page(request: Request, session: SessionDep, access: ResearcherAccess, import_id: int) -> Response:
    """What became of a file's lines."""
    record = find_import(session, access.project, import_id)
    account = session.get(Account, record.created_by) if record.created_by else None
    imported = Imported(record.what, record.format, record.report, record, is_new=True)
    return render(
        request,
        "datasets/import.html",
        project=access.project,
        record=record,
        imported=imported,
        importer=account,
    )


@api.get("/projects/{slug}/snapshots")
def list_as_json(session: SessionDep, access: ResearcherAccess) -> list[SnapshotOut]:
    """The project's snapshots, the newest first."""
    return [SnapshotOut.model_validate(snapshot) for snapshot in list_snapshots(session, access.project)]


@api.post("/projects/{slug}/snapshots", status_code=201)
def create_as_json(session: SessionDep, access: ResearcherAccess, wanted: SnapshotIn) -> SnapshotOut:
    """Freeze what the filter selects."""
    licence = wanted.licence or access.project.licence
    return SnapshotOut.model_validate(freeze_as(session, access, wanted.name, wanted.filter, licence))


@api.get("/projects/{slug}/snapshots/{snapshot_id}")
def show_as_json(session: SessionDep, access: ResearcherAccess, snapshot_id: int) -> SnapshotOut:
    """One snapshot."""
    return SnapshotOut.model_validate(find_snapshot(session, access.project, snapshot_id))


@api.get("/projects/{slug}/snapshots/{snapshot_id}/export")
def export_as_api(
    request: Request,
    session: SessionDep,
    access: ResearcherAccess,
    snapshot_id: int,
    format: Format = "kwise",
    file: FileType = "jsonl",
    ties: Ties = "drop",
    labels: Labels = "given",
    style: Style = "auto",
) -> Response:
    """The snapshot as a file: the same bytes each time, which the ETag names."""
    return download(request, session, access, snapshot_id, format, file, ties, labels, style)


@api.post("/projects/{slug}/imports", status_code=201)
def import_as_api(
    session: SessionDep,
    access: ResearcherAccess,
    file: Annotated[UploadFile, File()],
    response: Response,
    what: Annotated[str, Form(pattern="^(rankings|demonstrations)$")] = "rankings",
    format: Annotated[str, Form()] = "",
    is_trial: Annotated[bool, Form()] = False,
) -> ImportOut:
    """Import a file of rankings or demonstrations; 200 when there was nothing to do, 422 with each line's problem."""
    imported = run_upload(session, access, what, file, format, is_trial)
    if not imported.is_new or imported.record is None:
        response.status_code = 200
    return ImportOut(
        id=None if imported.record is None else imported.record.id,
        what=imported.what,
        format=imported.format,
        is_new=imported.is_new,
        report=imported.report,
    )

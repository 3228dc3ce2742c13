"""Datasets: what there is to freeze, snapshots and their exports, and imports with their reports."""

from functools import partial
from typing import Annotated, Any, get_args

from fastapi import APIRouter, File, Form, Query, Request, UploadFile
from fastapi.responses import PlainTextResponse, RedirectResponse, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets import cards
from app.datasets.comparisons import Ties
from app.datasets.demonstrations import demonstrations_between
from app.datasets.errors import (
    BadFilter,
    NothingSelected,
    SnapshotNameTaken,
)
from app.datasets.export_choices import FileType, Style
from app.datasets.imports import FORMATS, Imported, find_import, list_imports
from app.datasets.models import Snapshot
from app.datasets.reading import rows_between
from app.datasets.schemas import FilterQuery, ImportOut, SnapshotForm, SnapshotIn, SnapshotOut
from app.datasets.snapshots import (
    Content,
    SnapshotFilter,
    create_snapshot,
    find_snapshot,
    list_snapshots,
    preview,
)
from app.datasets.uploads import answer_upload, run_upload
from app.db import SessionDep, clock
from app.labeling.models import FITTING_KINDS, SlateKind
from app.pages import render
from app.people.access import Access, ResearcherAccess
from app.people.models import Account
from app.people.service import audit
from app.policies.models import PolicyVersion
from app.prompts.models import Split

router = APIRouter()
api = APIRouter(tags=["datasets"])

NUM_EXAMPLES = 3


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
            snapshot = freeze_as(session, access, form.name, form.as_filter())
    except (BadFilter, NothingSelected, SnapshotNameTaken) as error:
        return page(request, session, access, status_code=422, query=form, name=form.name, problem=str(error))
    return RedirectResponse(f"/projects/{access.project.slug}/datasets/snapshots/{snapshot.id}", status_code=303)


def freeze_as(session: Session, access: Access, name: str, filter: SnapshotFilter) -> Snapshot:
    snapshot = create_snapshot(
        session, access.project, name=name, filter=filter, account=access.account, now=clock(session)
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
    try:
        found = preview(session, access.project, query.as_filter(), num_examples=NUM_EXAMPLES)
    except BadFilter as error:
        found, status_code, problem = None, 422, str(error)
    context: dict[str, Any] = {"name": "", "refused": None, "imported": None}
    return render(
        request,
        "datasets/index.html",
        status_code=status_code,
        project=access.project,
        snapshots=list_snapshots(session, access.project),
        preview=found,
        problem=problem,
        query=query,
        contents=list(Content),
        chosen_contents=query.contents or tuple(Content),
        chosen_kinds=query.kinds or FITTING_KINDS,
        chosen_splits=query.splits or tuple(Split),
        kinds=list(SlateKind),
        splits=list(Split),
        policies=policy_numbers(session, access),
        imports=list_imports(session, access.project),
        formats=FORMATS,
        **(context | shown),
    )


def policy_numbers(session: Session, access: Access) -> list[int]:
    query = select(PolicyVersion.number).where(PolicyVersion.project_id == access.project.id)
    return list(session.scalars(query.order_by(PolicyVersion.number)))


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
        examples=list(rows_between(session, snapshot.id, 1, NUM_EXAMPLES)),
        written=list(demonstrations_between(session, snapshot.id, 1, NUM_EXAMPLES)),
        files=get_args(FileType),
        ties=get_args(Ties),
        styles=get_args(Style),
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
    return SnapshotOut.model_validate(freeze_as(session, access, wanted.name, wanted.filter))


@api.get("/projects/{slug}/snapshots/{snapshot_id}")
def show_as_json(session: SessionDep, access: ResearcherAccess, snapshot_id: int) -> SnapshotOut:
    """One snapshot."""
    return SnapshotOut.model_validate(find_snapshot(session, access.project, snapshot_id))


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

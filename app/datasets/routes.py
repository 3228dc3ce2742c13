"""Datasets: what there is to freeze, and snapshots with their exports."""

from typing import Annotated, Any, get_args

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import PlainTextResponse, RedirectResponse, Response
from sqlalchemy.orm import Session

from app.datasets import cards
from app.datasets.comparisons import Ties
from app.datasets.demonstrations import demonstrations_between
from app.datasets.errors import (
    BadFilter,
    NothingSelected,
    SnapshotNameTaken,
    UnknownLicence,
)
from app.datasets.explorer_routes import form_of, told_of
from app.datasets.export_choices import FileType, Style
from app.datasets.filter_words import in_words
from app.datasets.filters import SnapshotFilter
from app.datasets.licences import licence_of
from app.datasets.models import Snapshot
from app.datasets.reading import rows_between
from app.datasets.schemas import FilterQuery, SnapshotForm, SnapshotIn, SnapshotOut
from app.datasets.snapshots import create_snapshot, find_snapshot, list_snapshots
from app.db import SessionDep, clock
from app.pages import render
from app.people.access import Access, ResearcherAccess
from app.people.models import Account
from app.people.service import audit

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


def page(
    request: Request,
    session: Session,
    access: Access,
    *,
    status_code: int = 200,
    query: FilterQuery = FilterQuery(),  # noqa: B008 - frozen
    problem: str | None = None,
    **typed: Any,
) -> Response:
    told = told_of(session, access, query)
    if told["problem"]:
        status_code = 422
    elif problem:
        told["problem"] = problem
    return render(
        request,
        "datasets/index.html",
        status_code=status_code,
        snapshots=list_snapshots(session, access.project),
        **(told | typed),
        **form_of(session, access, query),
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
        files=get_args(FileType),
        ties=get_args(Ties),
        styles=get_args(Style),
    )


@router.get("/projects/{slug}/datasets/snapshots/{snapshot_id}/card")
def card(session: SessionDep, access: ResearcherAccess, snapshot_id: int) -> Response:
    """The snapshot's dataset card, in Markdown."""
    snapshot = find_snapshot(session, access.project, snapshot_id)
    return PlainTextResponse(cards.dataset_card(access.project, snapshot), media_type="text/markdown; charset=utf-8")


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

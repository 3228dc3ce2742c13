"""The audit log as pages, as JSON and as files: a project's for its admins, the installation's for site admins."""

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response, StreamingResponse
from sqlalchemy.orm import Session

from app.db import SessionDep
from app.pages import render
from app.people import audit_log
from app.people.access import AdminAccess, SiteAdmin
from app.people.audit_log import AuditFilter, FileType
from app.people.errors import BadAuditFilter
from app.people.models import Account
from app.people.schemas import AuditEventOut, AuditPageOut
from app.people.service import audit
from app.projects.models import Project

router = APIRouter()
api = APIRouter(tags=["audit"])

EVENTS_A_PAGE = 100
Wanted = Annotated[AuditFilter, Depends()]


@router.get("/projects/{slug}/audit")
def project_audit_page(
    request: Request, session: SessionDep, access: AdminAccess, wanted: Wanted, before: int | None = None
) -> Response:
    """Who did what in the project."""
    return _page(request, session, wanted, project=access.project, before=before)


@router.get("/audit")
def audit_page(
    request: Request, session: SessionDep, account: SiteAdmin, wanted: Wanted, before: int | None = None
) -> Response:
    """Who did what in the whole installation."""
    return _page(request, session, wanted, project=None, before=before)


@router.get("/projects/{slug}/audit/export")
@api.get("/projects/{slug}/audit/export", response_class=StreamingResponse)
def export_project(session: SessionDep, access: AdminAccess, wanted: Wanted, file: FileType = "csv") -> Response:
    """The project's log as a file, by the same filter."""
    return _file(session, wanted, file, project=access.project, by=access.account)


@router.get("/audit/export")
@api.get("/audit/export", response_class=StreamingResponse)
def export_everything(session: SessionDep, account: SiteAdmin, wanted: Wanted, file: FileType = "csv") -> Response:
    """The installation's log as a file, by the same filter."""
    return _file(session, wanted, file, project=None, by=account)


@api.get("/projects/{slug}/audit")
def list_project(session: SessionDep, access: AdminAccess, wanted: Wanted, before: int | None = None) -> AuditPageOut:
    """Who did what in the project, newest first."""
    return _listed(session, wanted, project=access.project, before=before)


@api.get("/audit")
def list_everything(session: SessionDep, account: SiteAdmin, wanted: Wanted, before: int | None = None) -> AuditPageOut:
    """Who did what in the whole installation, newest first."""
    return _listed(session, wanted, project=None, before=before)


def _page(
    request: Request, session: Session, wanted: AuditFilter, *, project: Project | None, before: int | None
) -> Response:
    problem, events = None, []
    try:
        events = audit_log.page_of(session, wanted, project=project, before=before, limit=EVENTS_A_PAGE + 1)
    except BadAuditFilter as error:
        problem = str(error)
    chosen = urlencode({name: value for name, value in vars(wanted).items() if value})
    return render(
        request,
        "people/audit.html",
        status_code=422 if problem else 200,
        events=events[:EVENTS_A_PAGE],
        has_more=len(events) > EVENTS_A_PAGE,
        actions=audit_log.actions(session, project=project),
        wanted=wanted,
        chosen=chosen,
        said=audit_log.said,
        system=audit_log.SYSTEM,
        problem=problem,
    )


def _file(session: Session, wanted: AuditFilter, file: FileType, *, project: Project | None, by: Account) -> Response:
    chunks = audit_log.exported(wanted, project=project, file=file)
    asked = {name: value for name, value in vars(wanted).items() if value}
    audit(session, by.id, "audit.export", "audit", project.id if project else None, file=file, filter=asked)
    name = f"{project.slug if project else 'podium'}-audit.{file}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(chunks, media_type=audit_log.MEDIA_TYPES[file], headers=headers)


def _listed(session: Session, wanted: AuditFilter, *, project: Project | None, before: int | None) -> AuditPageOut:
    events = audit_log.page_of(session, wanted, project=project, before=before, limit=EVENTS_A_PAGE + 1)
    shown = [AuditEventOut(**audit_log.record(event)) for event in events[:EVENTS_A_PAGE]]
    return AuditPageOut(events=shown, next=shown[-1].id if len(events) > EVENTS_A_PAGE else None)

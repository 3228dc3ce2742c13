"""Names beside pseudonyms, as a page, as JSON and as a file: for those who may see them."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from app.db import SessionDep
from app.pages import render
from app.people import names
from app.people.access import ResearcherAccess

router = APIRouter()
api = APIRouter(tags=["people"])


@router.get("/projects/{slug}/names")
def names_page(request: Request, session: SessionDep, access: ResearcherAccess) -> Response:
    """Who is behind each pseudonym."""
    return render(request, "people/names.html", found=names.key_of(session, access))


@router.get("/projects/{slug}/names/export")
@api.get("/projects/{slug}/names/export", response_class=StreamingResponse)
def export_names(session: SessionDep, access: ResearcherAccess) -> Response:
    """The same as CSV."""
    headers = {"Content-Disposition": f'attachment; filename="{access.project.slug}-names.csv"'}
    return StreamingResponse(names.exported_key(session, access), media_type="text/csv; charset=utf-8", headers=headers)


@api.get("/projects/{slug}/names")
def list_names(session: SessionDep, access: ResearcherAccess) -> list[dict[str, Any]]:
    """Every labeler's pseudonym and name."""
    return [asdict(each) for each in names.key_of(session, access)]

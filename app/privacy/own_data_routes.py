"""A person's own data: what is kept about them as a page, and all of it as a file."""

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from app.db import SessionDep
from app.pages import render
from app.people.access import WholeAccount
from app.people.account_routes import BrowserAccount
from app.privacy.own_data import given_by, own_data

router = APIRouter(prefix="/account/data")
api = APIRouter()


@router.get("")
def own_data_page(request: Request, session: SessionDep, account: BrowserAccount) -> Response:
    """What is kept about me, why, and how to have it or to have it erased."""
    return render(request, "privacy/own_data.html", given=given_by(session, account))


@router.get("/export")
@api.get("/me/data", response_class=StreamingResponse)
def export_own_data(session: SessionDep, account: WholeAccount) -> Response:
    """All of it as JSON."""
    headers = {"Content-Disposition": 'attachment; filename="my-podium-data.json"'}
    return StreamingResponse(own_data(session, account), media_type="application/json", headers=headers)

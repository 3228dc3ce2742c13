"""The first page after sign-in."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app.db import SessionDep, clock
from app.pages import render
from app.people.access import CurrentAccount, CurrentReach
from app.people.home import projects_at_a_glance

router = APIRouter()


@router.get("/")
def home(request: Request, session: SessionDep, account: CurrentAccount, reach: CurrentReach) -> Response:
    """My projects, and what waits for me in each."""
    projects = projects_at_a_glance(session, account, reach, now=clock(session))
    return render(request, "people/home.html", projects=projects)

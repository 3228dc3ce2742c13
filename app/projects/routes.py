"""The page of a project: the loop as one picture. Making projects and their settings have routes of their own."""

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from sqlalchemy.orm import Session

from app.db import SessionDep, clock
from app.notifications.alarms import alarms_beside_needs
from app.notifications.kinds import MEANINGS
from app.pages import render
from app.people.access import (
    Access,
    CurrentAccount,
    CurrentReach,
    ResearcherAccess,
    access_to,
    projects_of,
    within,
)
from app.people.models import Role
from app.policies.service import current_version
from app.projects import settings_routes
from app.projects.needs import Need, needs_of
from app.projects.overview import overview, round_of
from app.projects.picture import picture_of
from app.projects.schemas import ProjectOut
from app.rounds import rules
from app.rounds.events import live

router = APIRouter(prefix="/projects")
api = APIRouter(prefix="/projects", tags=["projects"])


@router.get("/{slug}")
def show_project(request: Request, access: ResearcherAccess, session: SessionDep) -> Response:
    """The loop as one picture; the page keeps itself up to date."""
    return loop_page(request, "projects/show.html", access, session)


@router.get("/{slug}/live")
def project_now(request: Request, access: ResearcherAccess, session: SessionDep) -> Response:
    """The part of the project's page that changes."""
    return loop_page(request, "projects/live.html", access, session)


def loop_page(request: Request, template: str, access: Access, session: Session) -> Response:
    project = access.project
    now = clock(session)
    seen = overview(session, project, now)
    return render(
        request,
        template,
        seen=seen,
        needs=[*needs_of(project, seen), *(Need(*each) for each in rules.needs(session, project, now))],
        alarms=alarms_beside_needs(session, project),
        meanings=MEANINGS,
        picture=picture_of(project, seen),
        reward_round=round_of(session, seen.reward_model) if seen.reward_model else None,
    )


@router.get("/{slug}/events")
async def project_events(access: ResearcherAccess) -> StreamingResponse:
    """Server-sent events: `changed` whenever the project has."""
    return live(f"project:{access.project.id}")


router.include_router(settings_routes.router)


# The API


@api.get("")
def my_projects(account: CurrentAccount, reach: CurrentReach, session: SessionDep) -> list[ProjectOut]:
    """The projects of whoever asks, with their role."""
    found = projects_of(session, account, reach)
    return [project_out(session, within(reach, access_to(session, account, project.slug))) for project in found]


@api.get("/{slug}")
def get_project_out(access: ResearcherAccess, session: SessionDep) -> ProjectOut:
    """One project."""
    return project_out(session, access)


def project_out(session: Session, access: Access) -> ProjectOut:
    """Labelers learn no version: which policy writes is not theirs to know."""
    project = access.project
    return ProjectOut(
        slug=project.slug,
        name=project.name,
        role=access.role,
        is_paused=project.paused_at is not None,
        current_version=None if access.role == Role.LABELER else current_version(session, project).number,
    )

"""Pages of projects: the loop as one picture, a new project; its settings have routes of their own."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse
from sqlalchemy.orm import Session

from app.db import SessionDep, clock
from app.errors import PodiumError
from app.notifications.alarms import alarms_beside_needs
from app.notifications.kinds import MEANINGS
from app.pages import render
from app.people.access import Access, CurrentAccount, ResearcherAccess, SiteAdmin, access_to, projects_of
from app.people.models import Role
from app.policies.service import STARTER_SOURCE, current_version
from app.projects import service, settings_routes
from app.projects.inspection import inspect
from app.projects.models import Project
from app.projects.overview import overview
from app.projects.schemas import ProjectOut
from app.rounds.events import live

router = APIRouter(prefix="/projects")
api = APIRouter(prefix="/projects", tags=["projects"])


@router.get("/new")
def new_project_page(request: Request, account: SiteAdmin) -> Response:
    """The form that makes a project."""
    return new_project_form(request, given={}, problems={})


@router.post("/new")
def create_project(
    request: Request,
    account: SiteAdmin,
    session: SessionDep,
    slug: Annotated[str, Form()] = "",
    name: Annotated[str, Form()] = "",
    policy: Annotated[str, Form()] = STARTER_SOURCE,
    source: Annotated[str, Form()] = "",
    guidelines: Annotated[str, Form()] = "",
) -> Response:
    """Look at the policy, then make the project; nothing is made when anything is wrong."""
    given = {"slug": slug, "name": name, "policy": policy, "source": source, "guidelines": guidelines}
    try:
        service.check_new(session, slug=slug, name=name, guidelines=guidelines)  # before the slow look at the policy
        inspected = inspect(STARTER_SOURCE if policy == STARTER_SOURCE else source)
        with session.begin_nested():
            project = service.create_project(
                session,
                slug=slug,
                name=name,
                policy=inspected,
                guidelines=guidelines,
                created_by=account,
                now=clock(session),
            )
    except PodiumError as error:
        field = {"slug_taken": "slug", "policy_not_usable": "source"}.get(error.code, getattr(error, "setting", "form"))
        return new_project_form(request, given=given, problems={field: str(error)}, status=422)
    return RedirectResponse(f"/projects/{project.slug}", status_code=303)


def new_project_form(
    request: Request, *, given: dict[str, str], problems: dict[str, str], status: int = 200
) -> Response:
    return render(request, "projects/new.html", status_code=status, given=given, problems=problems)


@router.get("/{slug}")
def show_project(request: Request, access: ResearcherAccess, session: SessionDep) -> Response:
    """The loop as one picture; the page keeps itself up to date."""
    return render(request, "projects/show.html", **what_a_project_shows(session, access.project))


@router.get("/{slug}/live")
def project_now(request: Request, access: ResearcherAccess, session: SessionDep) -> Response:
    """The part of the project's page that changes."""
    return render(request, "projects/live.html", **what_a_project_shows(session, access.project))


def what_a_project_shows(session: Session, project: Project) -> dict[str, Any]:
    return {
        "seen": overview(session, project, clock(session)),
        "alarms": alarms_beside_needs(session, project),
        "meanings": MEANINGS,
    }


@router.get("/{slug}/events")
async def project_events(access: ResearcherAccess) -> StreamingResponse:
    """Server-sent events: `changed` whenever the project has."""
    return live(f"project:{access.project.id}")


router.include_router(settings_routes.router)


# The API


@api.get("")
def my_projects(account: CurrentAccount, session: SessionDep) -> list[ProjectOut]:
    """The projects of whoever asks, with their role."""
    return [
        project_out(session, access_to(session, account, project.slug)) for project in projects_of(session, account)
    ]


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

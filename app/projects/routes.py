"""Pages of a project: the loop as one picture, and its settings. wizard_routes.py makes new ones."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse
from sqlalchemy.orm import Session

from app.db import SessionDep, clock
from app.pages import render
from app.people.access import Access, AdminAccess, CurrentAccount, ResearcherAccess, access_to, projects_of
from app.people.models import Role
from app.policies.service import current_version
from app.projects import service
from app.projects.errors import BadProjectSetting
from app.projects.models import DEFAULT_FLAGS, Project
from app.projects.needs import needs_of
from app.projects.overview import overview, round_of
from app.projects.picture import picture_of
from app.projects.schemas import ProjectOut
from app.projects.settings import (
    GROUPS,
    MIXTURE_SOURCES,
    SETTINGS,
    TASKS,
    read_mixture,
    read_settings,
    read_task_weights,
)
from app.rounds.events import live

router = APIRouter(prefix="/projects")
api = APIRouter(prefix="/projects", tags=["projects"])

TASK_NAMES = {
    "rank": "Rank 4 to 9 completions",
    "compare": "Compare two completions",
    "answer": "Answer a given prompt",
    "write": "Write a prompt and its answer",
    "converse": "Converse with the policy",
}
MIXTURE_NAMES = {
    "current": "The current policy",
    "previous": "The one before",
    "sft": "The SFT policy",
    "demonstration": "A person's demonstration, where there is one",
}


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
    seen = overview(session, project, clock(session))
    return render(
        request,
        template,
        seen=seen,
        needs=needs_of(project, seen),
        picture=picture_of(project, seen),
        reward_round=round_of(session, seen.reward_model) if seen.reward_model else None,
    )


@router.get("/{slug}/events")
async def project_events(access: ResearcherAccess) -> StreamingResponse:
    """Server-sent events: `changed` whenever the project has."""
    return live(f"project:{access.project.id}")


@router.get("/{slug}/settings")
def settings_page(request: Request, access: AdminAccess, session: SessionDep, saved: str = "") -> Response:
    """Everything an admin decides about the project."""
    return settings_form(request, access, session, given={}, problems={}, saved=saved)


async def sent_texts(request: Request) -> dict[str, str]:
    """The form's fields as texts, the last one where a name comes twice."""
    form = await request.form()
    return {name: text for name, text in form.multi_items() if isinstance(text, str)}


SentTexts = Annotated[dict[str, str], Depends(sent_texts)]


@router.post("/{slug}/settings")
def save_settings(request: Request, access: AdminAccess, session: SessionDep, form: SentTexts) -> Response:
    """Change the settings, or show the form again with every problem beside its field and nothing lost."""
    values, problems = read_settings({name: form.get(name) for name in SETTINGS})
    values["flags"] = lines_of(form.get("flags", ""))
    values["use_cases"] = lines_of(form.get("use_cases", ""))
    try:
        values["task_weights"] = read_task_weights({task: form.get(f"task.{task}", "") for task in TASKS})
    except BadProjectSetting as error:
        problems["task_weights"] = error.rule
    try:
        values["mixture"] = read_mixture([mixture_row(form, source) for source in MIXTURE_SOURCES])
    except BadProjectSetting as error:
        problems["mixture"] = error.rule
    if not problems:
        try:
            service.update_settings(session, access.project, values, account=access.account)
        except BadProjectSetting as error:
            problems[error.setting] = error.rule
    if problems:
        unticked = {name: "false" for name, setting in SETTINGS.items() if setting.kind == "bool"}
        return settings_form(request, access, session, given=unticked | form, problems=problems, status=422)
    return RedirectResponse(f"/projects/{access.project.slug}/settings?saved=settings", status_code=303)


def lines_of(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def mixture_row(form: dict[str, str], source: str) -> dict[str, str]:
    return {"source": source} | {
        field: form.get(f"mixture.{source}.{field}", "") for field in ("weight", "temperature", "top_p")
    }


@router.post("/{slug}/settings/pause")
def pause_project(access: AdminAccess, session: SessionDep) -> Response:
    """Sample and hand out nothing until the project goes on."""
    service.pause(session, access.project, account=access.account, now=clock(session))
    return RedirectResponse(f"/projects/{access.project.slug}/settings", status_code=303)


@router.post("/{slug}/settings/go-on")
def let_project_go_on(access: AdminAccess, session: SessionDep) -> Response:
    """End the pause."""
    service.go_on(session, access.project, account=access.account)
    return RedirectResponse(f"/projects/{access.project.slug}/settings", status_code=303)


def settings_form(
    request: Request,
    access: Access,
    session: Session,
    *,
    given: dict[str, str],
    problems: dict[str, str],
    saved: str = "",
    status: int = 200,
) -> Response:
    project = access.project
    return render(
        request,
        "projects/settings.html",
        status_code=status,
        groups=GROUPS,
        values=texts_of(project) | given,
        problems=problems,
        mixture=[(source, MIXTURE_NAMES[source]) for source in MIXTURE_SOURCES],
        tasks=[(task, TASK_NAMES[task]) for task in TASKS],
        guidelines=service.current_guidelines(session, project),
        default_flags=DEFAULT_FLAGS,
        saved=saved,
    )


def texts_of(project: Project) -> dict[str, str]:
    """The project's settings as the form's texts."""
    texts = {}
    for name, setting in SETTINGS.items():
        value = getattr(project, name)
        texts[name] = (
            "" if value is None else ("true" if value else "false") if setting.kind == "bool" else f"{value:g}"
        )
        if setting.kind == "int" and value is not None:
            texts[name] = str(value)
    texts["flags"] = "\n".join(project.flags)
    texts["use_cases"] = "\n".join(project.use_cases)
    texts |= {f"task.{task}": f"{weight:g}" for task, weight in project.task_weights.items()}
    for entry in project.mixture:
        for field in ("weight", "temperature", "top_p"):
            texts[f"mixture.{entry['source']}.{field}"] = f"{entry[field]:g}"
    return texts


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

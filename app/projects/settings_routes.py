"""A project's settings: the form, what they were before, and the pause."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy.orm import Session

from app.db import SessionDep, clock
from app.pages import render
from app.people.access import Access, AdminAccess
from app.projects import service, settings_history
from app.projects.errors import BadProjectSetting, SettingsChangedMeanwhile, SettingsVersionNotFound
from app.projects.models import DEFAULT_FLAGS
from app.projects.settings import (
    GROUPS,
    MIXTURE_SOURCES,
    SETTINGS,
    TASKS,
    read_mixture,
    read_settings,
    read_task_weights,
)
from app.projects.settings_words import MIXTURE_NAMES, NAMES, TASK_NAMES, difference, in_words

router = APIRouter()

MIXTURE_FIELDS = ("weight", "temperature", "top_p")
SHOWN_BELOW_THE_FORM, CHANGES_A_PAGE = 5, 50


@router.get("/{slug}/settings")
def settings_page(
    request: Request, access: AdminAccess, session: SessionDep, saved: str = "", before_change: int | None = None
) -> Response:
    """Everything an admin decides about the project; or the form filled with what it was before a change."""
    if before_change is None:
        return settings_form(request, access, session, saved=saved)
    now = settings_history.current(access.project)
    later = settings_history.changes(session, access.project, after=before_change - 1)
    if not later or later[-1].id != before_change:
        raise SettingsVersionNotFound
    then = settings_history.undone(now, later)
    return settings_form(
        request,
        access,
        session,
        given=texts_of(then),
        marks={name: f"now {in_words(name, now[name])}" for name in then if then[name] != now[name]},
        goes_back_before=later[-1],
    )


async def sent_texts(request: Request) -> dict[str, str]:
    """The form's fields as texts, the last one where a name comes twice."""
    form = await request.form()
    return {name: text for name, text in form.multi_items() if isinstance(text, str)}


SentTexts = Annotated[dict[str, str], Depends(sent_texts)]


@router.post("/{slug}/settings")
def save_settings(request: Request, access: AdminAccess, session: SessionDep, form: SentTexts) -> Response:
    """Change the settings, or show the form again with every problem beside its field and nothing lost."""
    values, problems = read_form(form)
    seen, goes_back_before = id_of(form.get("seen")), id_of(form.get("goes_back_before"))
    if not problems:
        try:
            settings_history.save(
                session,
                access.project,
                values,
                seen=settings_history.version_of(session, access.project) if seen is None else seen,
                account=access.account,
                goes_back_before=goes_back_before,
            )
        except BadProjectSetting as error:
            problems[error.setting] = error.rule
        except SettingsChangedMeanwhile as error:
            return show_both(request, access, session, error)
    if problems:
        unticked = {name: "false" for name, setting in SETTINGS.items() if setting.kind == "bool"}
        return settings_form(
            request, access, session, given=unticked | form, problems=problems, version=seen, status=422
        )
    return RedirectResponse(f"/projects/{access.project.slug}/settings?saved=settings", status_code=303)


def read_form(form: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The values of all settings, and what is wrong, by setting."""
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
    return values, problems


def lines_of(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def mixture_row(form: Mapping[str, str], source: str) -> dict[str, str]:
    return {"source": source} | {field: form.get(f"mixture.{source}.{field}", "") for field in MIXTURE_FIELDS}


def id_of(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None


def show_both(request: Request, access: Access, session: Session, error: SettingsChangedMeanwhile) -> Response:
    """The form with what was typed and what others changed meanwhile, to be looked at and saved again."""
    now = settings_history.current(access.project)
    return settings_form(
        request,
        access,
        session,
        given=texts_of(error.merged),
        marks={
            name: f"changed meanwhile to {in_words(name, now[name])}"
            + ("; yours stands here" if error.merged[name] != now[name] else "")
            for change in error.meanwhile
            for name in change.changed
        },
        meanwhile=error.meanwhile,
        version=error.version,
        status=409,
    )


@router.get("/{slug}/settings/history")
def history_page(request: Request, access: AdminAccess, session: SessionDep, before: int | None = None) -> Response:
    """Every change of the settings: who, when, from what to what."""
    changes = settings_history.changes(session, access.project, before=before, limit=CHANGES_A_PAGE + 1)
    return render(
        request,
        "projects/settings_history.html",
        changes=changes[:CHANGES_A_PAGE],
        has_more=len(changes) > CHANGES_A_PAGE,
        names=NAMES,
        difference=difference,
    )


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
    given: Mapping[str, str] | None = None,
    problems: Mapping[str, str] | None = None,
    marks: Mapping[str, str] | None = None,
    meanwhile: list[settings_history.Change] | None = None,
    goes_back_before: settings_history.Change | None = None,
    version: int | None = None,
    saved: str = "",
    status: int = 200,
) -> Response:
    """given: texts in place of what is stored.  version: of the settings that the form was made from."""
    project = access.project
    return render(
        request,
        "projects/settings.html",
        status_code=status,
        groups=GROUPS,
        values=texts_of(settings_history.current(project)) | dict(given or {}),
        problems=problems or {},
        marks=marks or {},
        meanwhile=meanwhile or [],
        goes_back_before=goes_back_before,
        version=settings_history.version_of(session, project) if version is None else version,
        changes=settings_history.changes(session, project, limit=SHOWN_BELOW_THE_FORM),
        names=NAMES,
        difference=difference,
        mixture=[(source, MIXTURE_NAMES[source]) for source in MIXTURE_SOURCES],
        tasks=[(task, TASK_NAMES[task]) for task in TASKS],
        guidelines=service.current_guidelines(session, project),
        default_flags=DEFAULT_FLAGS,
        saved=saved,
    )


def texts_of(settings: settings_history.Values) -> dict[str, str]:
    """Settings as the texts of the form's fields, of each field one."""
    texts = {f"task.{task}": "" for task in TASKS}
    texts |= {f"mixture.{source}.{field}": "" for source in MIXTURE_SOURCES for field in MIXTURE_FIELDS}
    for name, setting in SETTINGS.items():
        value = settings[name]
        texts[name] = (
            "" if value is None else ("true" if value else "false") if setting.kind == "bool" else f"{value:g}"
        )
        if setting.kind == "int" and value is not None:
            texts[name] = str(value)
    texts["flags"] = "\n".join(settings["flags"])
    texts["use_cases"] = "\n".join(settings["use_cases"])
    texts |= {f"task.{task}": f"{weight:g}" for task, weight in settings["task_weights"].items()}
    for entry in settings["mixture"]:
        for field in MIXTURE_FIELDS:
            texts[f"mixture.{entry['source']}.{field}"] = f"{entry[field]:g}"
    return texts

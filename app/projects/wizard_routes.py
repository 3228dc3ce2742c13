"""The pages that make a project, one step each; they work without a script, and Back keeps everything."""

from collections.abc import Mapping
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy.orm import Session
from starlette.datastructures import UploadFile

from app.datasets.errors import ImportRefused
from app.db import SessionDep, clock
from app.pages import render
from app.people.access import SiteAdmin
from app.policies.service import STARTER_SOURCE, InspectedPolicy
from app.projects import new_prompts, wizard
from app.projects.errors import PolicyNotUsable, SlugTaken
from app.projects.inspection import Inspections, answer, chosen_source
from app.projects.settings import MIXTURE_SOURCES, SETTINGS
from app.projects.settings_words import MIXTURE_NAMES
from app.projects.starter import inspect_starter

LARGEST_SENT = 64 << 20  # bytes: a larger file is named as too large where it was chosen

router = APIRouter(prefix="/projects/new")
api = APIRouter()  # programs make projects on the command line


class Sent:
    """What the form sent: its fields as texts, and the file that was chosen on the page, packed into one of them."""

    def __init__(self, texts: dict[str, str], file_problem: str = "") -> None:
        self.given = wizard.beginnings() | {name: texts[name] for name in wizard.FIELDS if name in texts}
        self.step = wizard.step_of(texts.get("step", ""))
        self.go = texts.get("go", "next")
        self.file_problem = file_problem


async def sent(request: Request) -> Sent:
    """The last value where a name comes twice: a checkbox stands after the field that says no for it."""
    form = await request.form()
    texts = {name: value for name, value in form.multi_items() if isinstance(value, str)}
    problem = ""
    upload = form.get("file")
    if isinstance(upload, UploadFile) and upload.filename:
        try:
            texts |= {"prompts": "file", "prompts_file": new_prompts.pack(upload.file), "prompts_name": upload.filename}
        except new_prompts.CannotCarry as error:
            problem = str(error)
    await form.close()
    return Sent(texts, problem)


@router.get("")
def new_project_page(request: Request, account: SiteAdmin, session: SessionDep) -> Response:
    """The first step."""
    return step_page(request, session, wizard.STEPS[0], wizard.beginnings())


@router.post("", max_body_size=LARGEST_SENT)
def go_on(request: Request, account: SiteAdmin, session: SessionDep, form: Annotated[Sent, Depends(sent)]) -> Response:
    """To the next step, back, or to the end: every page sends all that was given."""
    inspections = Inspections(request_id_of(form.given))
    if form.file_problem:
        return step_page(request, session, form.step, form.given, {"prompts_file": form.file_problem})
    if form.go == "back":
        return step_page(request, session, wizard.before(form.step), form.given)
    if form.go in {step.key for step in wizard.STEPS}:
        return step_page(request, session, wizard.step_of(form.go), form.given)
    if form.go == "create":
        return create(request, account, session, form.given, inspections)
    problems = wizard.problems_of(session, form.step, form.given, inspections)
    form.given["inspection"] = str(inspections.request_id or "")
    if problems:
        return step_page(request, session, form.step, form.given, problems)
    if form.go == "look":
        return step_page(request, session, form.step, form.given)
    return step_page(request, session, wizard.after(form.step), form.given)


def create(
    request: Request, account: SiteAdmin, session: Session, given: dict[str, str], inspections: Inspections
) -> Response:
    """Make the project, or show the first step with something wrong in it."""
    if (wrong := wizard.first_problem(session, given, inspections)) is not None:
        return step_page(request, session, wrong[0], given, wrong[1])
    try:
        project = wizard.create(session, given, inspections.policy(given), account=account, now=clock(session))
    except SlugTaken as error:
        return step_page(request, session, wizard.step_of("policy"), given, {"slug": str(error)})
    return RedirectResponse(f"/projects/{project.slug}", status_code=303)


def request_id_of(given: Mapping[str, str]) -> UUID | None:
    try:
        return UUID(given["inspection"])
    except ValueError:
        return None


def step_page(
    request: Request,
    session: Session,
    step: wizard.Step,
    given: Mapping[str, str],
    problems: wizard.Problems | None = None,
) -> Response:
    """One step, with all that was given; prompts that cannot be imported lead back to where they are given."""
    preview, problems = None, dict(problems or {})
    if given["prompts"] != "later" and step.key in ("prompts", "summary") and not new_prompts.check_prompts(given):
        try:
            preview = new_prompts.preview(session, given, clock(session))
        except ImportRefused as error:
            problems.setdefault("prompts", str(error))
            step = wizard.step_of("prompts")
    page = render(
        request,
        "projects/new.html",
        status_code=422 if problems else 200,
        step=step,
        steps=wizard.STEPS,
        carried=[(name, given[name]) for other in wizard.STEPS if other is not step for name in other.fields],
        given=given,
        problems=problems,
        preview=preview,
        found=known_policy(given),
        settings=SETTINGS,
        asked=wizard.ASKED,
        shaped=wizard.SHAPED,
        decided=wizard.DECIDED,
        mixture=[(source, MIXTURE_NAMES[source]) for source in MIXTURE_SOURCES],
    )
    # The browser's own Back shows a step as it was left, and asks nobody whether to send a form again.
    page.headers["Cache-Control"] = "private, no-cache"
    return page


def known_policy(given: Mapping[str, str]) -> InspectedPolicy | None:
    """What is known of the policy so far; never waits."""
    source = chosen_source(given)
    if source == STARTER_SOURCE:
        return inspect_starter()
    request_id = request_id_of(given)
    try:
        return None if request_id is None else answer(request_id, source)
    except PolicyNotUsable:
        return None

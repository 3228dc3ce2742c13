"""The pages and the API of writing demonstrations: parse, call one service, answer."""

from random import SystemRandom
from typing import Annotated, Literal
from uuid import UUID, uuid4

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import ValidationError
from sqlalchemy.orm import Session
from starlette.datastructures import FormData

from app.db import SessionDep, clock
from app.errors import PodiumError, status_of
from app.labeling import demonstrations, suggestions, writings
from app.labeling.demonstration_content import Pair, WritingContent, known_content
from app.labeling.demonstration_look import look_at
from app.labeling.demonstration_schemas import (
    ContentForm,
    SubmissionForm,
    SubmissionOut,
    SuggestionOut,
    SuggestionRequestOut,
    WritingDraftForm,
    WritingOut,
    WritingRequest,
    WritingSkipForm,
    WritingsOut,
    content_of_fields,
)
from app.labeling.leases import refuse_when_paused
from app.labeling.next_task import next_task
from app.labeling.schemas import SavedDraftOut
from app.labeling.screen import newest_guidelines
from app.labeling.task_errors import IncompleteWriting, TaskNotOffered
from app.labeling.task_models import Writing, WritingTask
from app.labeling.tasks import NAMES, PATHS, Task, on_offer
from app.labeling.token_counts import CountTokens, token_counter
from app.pages import render
from app.people.access import Access, LabelerAccess, OwnWork, WorkAccess, labeler_of
from app.projects.models import Project
from app.prompts.messages import Messages
from app.prompts.models import Prompt

router = APIRouter()
api = APIRouter(tags=["demonstrations"])

RNG = SystemRandom()
Kind = Literal["plain", "few_shot", "user_based", "both_sides"]
KIND_NAMES: dict[Kind, str] = {
    "plain": "A prompt",
    "few_shot": "A few-shot prompt",
    "user_based": "For a use case",
    "both_sides": "A whole conversation",
}
SKIP_REASONS = (
    "Outside my knowledge",
    "The prompt makes no sense",
    "The prompt lacks what it refers to",
    "I would rather not answer this",
)
SPARE_PARTS = 2  # empty pairs or turns that the form offers beyond those that are filled


async def _fields(request: Request) -> FormData:
    return await request.form()


Fields = Annotated[FormData, Depends(_fields)]


@router.get("/projects/{slug}/work")
def start(access: WorkAccess, session: SessionDep) -> RedirectResponse:
    """To the next task."""
    refuse_when_paused(access)
    labeler = labeler_of(session, access)
    task = next_task(session, labeler, access.project, now=clock(session), rng=RNG)
    return RedirectResponse(f"/projects/{access.project.slug}{PATHS[task]}", status_code=303)


@router.get("/projects/{slug}/answer")
def answer_page(request: Request, access: WorkAccess, session: SessionDep) -> HTMLResponse:
    """A prompt to answer."""
    return open_page(request, access, session, WritingTask.ANSWER)


@router.get("/projects/{slug}/write")
def write_page(access: LabelerAccess) -> RedirectResponse:
    """Prompts that labelers write themselves, with their answers."""
    refuse_when_not_offered(access.project, WritingTask.PLAIN)
    return RedirectResponse(f"/projects/{access.project.slug}/write/plain", status_code=303)


@router.get("/projects/{slug}/write/{kind}")
def write_kind_page(request: Request, access: WorkAccess, session: SessionDep, kind: Kind) -> HTMLResponse:
    """One kind of prompt to write, and its answer."""
    return open_page(request, access, session, WritingTask(kind))


def open_page(request: Request, access: Access, session: Session, task: WritingTask) -> HTMLResponse:
    refuse_when_paused(access)
    refuse_when_not_offered(access.project, task)
    labeler = labeler_of(session, access)
    writing = writings.open_writing(session, labeler, access.project, task, now=clock(session), rng=RNG)
    return page(request, access, session, task, writing, known_content(writing.content if writing else {}))


@router.post("/projects/{slug}/answer")
def submit_answer(request: Request, fields: Fields, access: LabelerAccess, session: SessionDep) -> Response:
    """The answer page's form, sent without a script."""
    return submit_page(request, fields, access, session, WritingTask.ANSWER)


@router.post("/projects/{slug}/write/{kind}")
def submit_written(
    request: Request, fields: Fields, access: LabelerAccess, session: SessionDep, kind: Kind
) -> Response:
    """A writing page's form, sent without a script."""
    return submit_page(request, fields, access, session, WritingTask(kind))


def submit_page(request: Request, fields: FormData, access: Access, session: Session, task: WritingTask) -> Response:
    """Submit, give back, or show the form again with what is wrong and nothing lost."""
    try:
        writing_id, submission_id = UUID(str(fields.get("writing_id"))), UUID(str(fields.get("submission_id")))
        content = content_of_fields(fields.multi_items())
    except ValueError as error:
        raise IncompleteWriting(problem_of(error)) from error
    owner, now = access.owner, clock(session)
    writing = writings.find_writing(session, owner, writing_id)
    try:
        if fields.get("do") == "skip":
            writings.skip(session, owner, writing_id, str(fields.get("reason") or "no reason given"), now)
        else:
            count_tokens = counter_for(request, session, access.project)
            demonstrations.submit(
                session, owner, writing_id, submission_id, content, count_tokens=count_tokens, now=now
            )
    except PodiumError as error:
        return page(request, access, session, task, writing, content, problem=str(error), status=status_of(error))
    return RedirectResponse(f"/projects/{access.project.slug}/work", status_code=303)


@router.post("/projects/{slug}/demonstrations/{submission_id}/retraction")
def retract_page(submission_id: UUID, access: LabelerAccess, session: SessionDep) -> RedirectResponse:
    """Take a submission back, and go on with its text."""
    task = demonstrations.retract(session, access.owner, submission_id, clock(session)).task
    path = "/answer" if task is WritingTask.ANSWER else f"/write/{task}"
    return RedirectResponse(f"/projects/{access.project.slug}{path}", status_code=303)


def page(
    request: Request,
    access: Access,
    session: Session,
    task: WritingTask,
    writing: Writing | None,
    content: WritingContent,
    *,
    problem: str | None = None,
    status: int = 200,
) -> HTMLResponse:
    project = access.project
    given = given_messages(session, writing)
    return render(
        request,
        "labeling/write.html",
        status_code=status,
        project=project,
        task=task,
        kinds=KIND_NAMES.items(),
        writing=writing,
        draft=known_content(writing.content if writing else {}).model_dump(mode="json", exclude_defaults=True),
        given=given,
        content=with_spare_parts(content),
        problem=problem,
        submission_id=uuid4(),
        look=look_at(project, task, content, given, counter_for(request, session, project)),
        recent=demonstrations.recent_submissions(session, labeler_of(session, access).id),
        skip_reasons=SKIP_REASONS,
        guidelines=newest_guidelines(session, project.id),
    )


def with_spare_parts(content: WritingContent) -> WritingContent:
    """The content with empty pairs and turns to write into, before any script has run."""
    parts = content.model_copy(deep=True)
    while parts.pairs and parts.pairs[-1].is_empty:
        parts.pairs.pop()
    while parts.turns and not parts.turns[-1].strip():
        parts.turns.pop()
    parts.pairs += [Pair() for _ in range(SPARE_PARTS)]
    parts.turns += [""] * (SPARE_PARTS + len(parts.turns) % 2)
    return parts


def given_messages(session: Session, writing: Writing | None) -> Messages | None:
    if writing is None or writing.prompt_id is None:
        return None
    return [
        {"role": str(message["role"]), "content": str(message["content"])}
        for message in session.get_one(Prompt, writing.prompt_id).messages
    ]


def refuse_when_not_offered(project: Project, task: WritingTask) -> None:
    """Raises TaskNotOffered."""
    wanted = {WritingTask.ANSWER: Task.ANSWER, WritingTask.CONVERSE: Task.CONVERSE}.get(task, Task.WRITE)
    if wanted not in on_offer(project.task_weights):
        raise TaskNotOffered([NAMES[task] for task in on_offer(project.task_weights)])


def counter_for(request: Request, session: Session, project: Project) -> CountTokens | None:
    return token_counter(session, request.app.state.settings, project)


def problem_of(error: ValueError) -> str:
    """What is wrong with the form, in words."""
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(str(part) for part in p['loc'])}: {p['msg']}" for p in error.errors())
    return "The form lacks something"


# The API


@api.post("/projects/{slug}/writings")
def open_writing(form: WritingRequest, access: LabelerAccess, session: SessionDep) -> WritingsOut:
    """The open piece of this task with its draft, or a new one."""
    refuse_when_paused(access)
    refuse_when_not_offered(access.project, form.task)
    labeler = labeler_of(session, access)
    writing = writings.open_writing(session, labeler, access.project, form.task, now=clock(session), rng=RNG)
    if writing is None:
        return WritingsOut(writing=None)
    prompt = None if writing.prompt_id is None else session.get_one(Prompt, writing.prompt_id)
    return WritingsOut(writing=WritingOut.of(writing, prompt))


@api.put("/writings/{writing_id}/draft")
def save_draft(writing_id: UUID, form: WritingDraftForm, owner: OwnWork, session: SessionDep) -> SavedDraftOut:
    """Store what was written so far; a stale draft is refused with the newer one."""
    content = form.content.model_dump(mode="json", exclude_defaults=True)
    revision = writings.save_draft(
        session, owner, writing_id, builds_on=form.revision, content=content, now=clock(session)
    )
    return SavedDraftOut(revision=revision)


@api.post("/writings/{writing_id}/demonstration", status_code=201)
def submit(
    request: Request,
    writing_id: UUID,
    form: SubmissionForm,
    owner: OwnWork,
    session: SessionDep,
    response: Response,
) -> SubmissionOut:
    """Store what was written; the same id again answers 200 with the first receipt."""
    writing = writings.find_writing(session, owner, writing_id)
    project = session.get_one(Project, writing.project_id)
    receipt = demonstrations.submit(
        session,
        owner,
        writing_id,
        form.submission_id,
        form.content,
        count_tokens=counter_for(request, session, project),
        now=clock(session),
    )
    if receipt.is_retry:
        response.status_code = 200
    return SubmissionOut.of(receipt)


@api.post("/writings/{writing_id}/skip", status_code=204)
def skip(writing_id: UUID, form: WritingSkipForm, owner: OwnWork, session: SessionDep) -> None:
    """Give a prompt back, or throw a beginning away."""
    writings.skip(session, owner, writing_id, form.reason, clock(session))


@api.post("/demonstrations/{submission_id}/retraction", status_code=204)
def retract(submission_id: UUID, owner: OwnWork, session: SessionDep) -> None:
    """Take an own submission back, as long as nothing was made from it."""
    demonstrations.retract(session, owner, submission_id, clock(session))


@api.post("/writings/{writing_id}/suggestions", status_code=202)
def ask_for_suggestion(
    writing_id: UUID, form: ContentForm, owner: OwnWork, session: SessionDep
) -> SuggestionRequestOut:
    """Ask the policy for an answer to the prompt as it stands."""
    writing = writings.find_writing(session, owner, writing_id)
    return SuggestionRequestOut(id=suggestions.ask(session, writing, form.content, now=clock(session), rng=RNG))


@api.get("/writings/{writing_id}/suggestions/{suggestion_id}")
def get_suggestion(writing_id: UUID, suggestion_id: UUID, owner: OwnWork, session: SessionDep) -> SuggestionOut:
    """How far the suggestion is."""
    writing = writings.find_writing(session, owner, writing_id)
    state = suggestions.find(session, writing, suggestion_id, clock(session))
    return SuggestionOut(text=state.text, problem=state.problem)


@api.post("/writings/{writing_id}/look", include_in_schema=False)
def look(request: Request, writing_id: UUID, form: ContentForm, owner: OwnWork, session: SessionDep) -> HTMLResponse:
    """Lengths and preview of what is written so far."""
    writing = writings.find_writing(session, owner, writing_id)
    project = session.get_one(Project, writing.project_id)
    seen = look_at(
        project,
        writing.task,
        form.content,
        given_messages(session, writing),
        counter_for(request, session, project),
    )
    return render(request, "labeling/_look.html", look=seen)

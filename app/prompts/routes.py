"""The prompts of a project: listed, added one by one, and imported."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Query, Request, UploadFile
from fastapi.responses import Response

from app.datasets.imports import FORMATS
from app.datasets.uploads import answer_upload
from app.db import SessionDep
from app.pages import render
from app.people.access import Access, AdminAccess, ResearcherAccess
from app.prompts.errors import PromptError
from app.prompts.listing import count_by_split, count_prompts, list_prompts
from app.prompts.messages import checked_prompt, user_message
from app.prompts.models import PromptKind, Split, Use
from app.prompts.schemas import AddedPromptOut, PromptIn, PromptOut, PromptPage, PromptQuery
from app.prompts.service import PlacedPrompt, add_prompts

router = APIRouter()
api = APIRouter(tags=["prompts"])

A_PAGE = 50
EVERYTHING = PromptQuery()


@router.get("/projects/{slug}/prompts")
def prompts_page(
    request: Request, session: SessionDep, access: ResearcherAccess, query: Annotated[PromptQuery, Query()]
) -> Response:
    """The prompts that the filter in the address allows."""
    return page(request, session, access, query=query)


@router.post("/projects/{slug}/prompts")
def add_one(request: Request, session: SessionDep, access: AdminAccess, text: Annotated[str, Form()] = "") -> Response:
    """Add the prompt that was typed in."""
    try:
        (placed,) = add_prompts(session, access.project, [user_message(text)], kind=PromptKind.PLAIN).placed
    except PromptError as error:
        return page(request, session, access, status_code=422, problem=str(error), text=text)
    return page(request, session, access, placed=placed)


@router.post("/projects/{slug}/prompts/import")
def import_prompts(
    request: Request,
    session: SessionDep,
    access: AdminAccess,
    file: Annotated[UploadFile, File()],
    format: Annotated[str, Form()] = "",
    is_trial: Annotated[bool, Form()] = False,
) -> Response:
    """Import a file, or only say what it would become."""
    return answer_upload(
        session, access, "prompts", file, format, is_trial, page=partial(page, request, session, access)
    )


def page(
    request: Request,
    session: SessionDep,
    access: Access,
    *,
    status_code: int = 200,
    query: PromptQuery = EVERYTHING,
    **shown: Any,
) -> Response:
    prompts = list_prompts(session, access.project, query, before=query.before, limit=A_PAGE)
    context: dict[str, Any] = {"problem": None, "text": "", "placed": None, "refused": None, "imported": None}
    return render(
        request,
        "prompts/list.html",
        status_code=status_code,
        project=access.project,
        prompts=prompts,
        filter=query,
        total=count_prompts(session, access.project, query),
        splits=count_by_split(session, access.project),
        choices={"split": list(Split), "use": list(Use), "kind": list(PromptKind)},
        formats=FORMATS["prompts"],
        next_page=request.url.include_query_params(before=prompts[-1].id) if len(prompts) == A_PAGE else None,
        **(context | shown),
    )


@api.get("/projects/{slug}/prompts")
def list_as_json(session: SessionDep, access: ResearcherAccess, query: Annotated[PromptQuery, Query()]) -> PromptPage:
    """The prompts that the filter allows, the newest first."""
    prompts = list_prompts(session, access.project, query, before=query.before, limit=query.limit)
    return PromptPage(
        prompts=[PromptOut.model_validate(prompt) for prompt in prompts],
        next=prompts[-1].id if len(prompts) == query.limit else None,
    )


@api.post("/projects/{slug}/prompts", status_code=201)
def add_as_json(
    session: SessionDep, access: AdminAccess, prompts: list[PromptIn], response: Response
) -> list[AddedPromptOut]:
    """Add prompts; duplicates and near-duplicates are skipped and say which prompt they duplicate."""
    messages = [
        user_message(prompt.text) if prompt.text is not None else checked_prompt(prompt.messages) for prompt in prompts
    ]
    placed = add_prompts(session, access.project, messages, kind=PromptKind.PLAIN).placed
    if all(prompt.outcome != "added" for prompt in placed):
        response.status_code = 200
    return [out(prompt) for prompt in placed]


def out(placed: PlacedPrompt) -> AddedPromptOut:
    return AddedPromptOut(prompt_id=placed.prompt_id, outcome=placed.outcome)

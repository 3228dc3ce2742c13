"""The page on which two versions answer one prompt side by side."""

from random import SystemRandom
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import SessionDep, clock
from app.errors import status_of
from app.pages import render
from app.people.access import Access, ResearcherAccess
from app.policies import service, try_outs
from app.policies.errors import BadTryOut
from app.policies.try_outs import LARGEST_SEED, MOST_COMPLETIONS, Question, TryOut
from app.prompts.models import Prompt
from app.prompts.turns import is_learned_from, one_at_random
from app.rounds.events import live

router = APIRouter(prefix="/projects/{slug}/policies/try-out")

MOST_TURNS = 40
RNG = SystemRandom()


class TryOutForm(BaseModel):
    """The form as people send it: numbers are read later, so that a mistyped one loses nothing.

    turns: what was said, the user first and then by turns.  system: what stands before it.  action: which button.
    """

    model_config = ConfigDict(extra="ignore")

    left: int
    right: int
    system: str = ""
    turns: list[str] = []
    temperature: str = "1"
    top_p: str = "1"
    max_completion_tokens: str = ""
    seed: str = ""
    num_completions: str = "1"
    action: str = "ask"


@router.get("")
def try_out_page(
    request: Request,
    access: ResearcherAccess,
    session: SessionDep,
    left: int | None = None,
    right: int | None = None,
    draw: bool = False,
) -> Response:
    """The empty form. left, right: which versions.  draw: with a prompt of the project."""
    form = empty_form(session, access, left, right)
    if draw:
        messages = drawn_prompt(session, access)
        form = form.model_copy(update=turns_of(messages))
    return page(request, session, access, form)


@router.post("")
def ask(
    request: Request, access: ResearcherAccess, session: SessionDep, form: Annotated[TryOutForm, Form()]
) -> Response:
    """Ask both, or change the number of turns; a mistake shows the form again with nothing lost."""
    if form.action != "ask":
        turns = [*form.turns, "", ""] if form.action == "more" else form.turns[:-2] or [""]
        return page(request, session, access, form.model_copy(update={"turns": turns[:MOST_TURNS]}))
    versions = [service.get_version(session, access.project, number) for number in (form.left, form.right)]
    try:
        left, right = try_outs.ask(session, access.project, question_in(form), versions, now=clock(session))
    except BadTryOut as error:
        return page(request, session, access, form, problems=error.problems, status_code=status_of(error))
    return RedirectResponse(f"/projects/{access.project.slug}/policies/try-out/{left}/{right}", status_code=303)


def question_in(form: TryOutForm) -> Question:
    """What the form asks. Raises BadTryOut where a number is none."""
    problems: dict[str, str] = {}

    def read(name: str, kind: type[int] | type[float]) -> Any:
        try:
            return kind(getattr(form, name))
        except ValueError:
            problems[name] = "must be a whole number" if kind is int else "must be a number"
            return 0

    question = Question(
        left=form.left,
        right=form.right,
        messages=messages_in(form),
        temperature=read("temperature", float),
        top_p=read("top_p", float),
        max_completion_tokens=read("max_completion_tokens", int),
        seed=read("seed", int),
        num_completions=read("num_completions", int),
    )
    if problems:
        raise BadTryOut(problems)
    return question


def messages_in(form: TryOutForm) -> list[dict[str, str]]:
    said = [{"role": "assistant" if number % 2 else "user", "content": text} for number, text in enumerate(form.turns)]
    return [{"role": "system", "content": form.system}, *said] if form.system.strip() else said


def turns_of(messages: list[dict[str, str]]) -> dict[str, Any]:
    """The form's fields that say these messages."""
    system = next((message["content"] for message in messages if message["role"] == "system"), "")
    return {"system": system, "turns": [message["content"] for message in messages if message["role"] != "system"]}


def empty_form(session: Session, access: Access, left: int | None, right: int | None) -> TryOutForm:
    """The newest version beside the current one; a seed that is drawn, and shown."""
    numbers = [version.number for version in service.versions_of(session, access.project)]
    current = service.current_version(session, access.project).number
    others = [number for number in numbers if number != current]
    return TryOutForm(
        left=left or (others[-1] if others else current),
        right=right or current,
        turns=[""],
        temperature="1",
        max_completion_tokens=str(access.project.max_completion_tokens),
        seed=str(RNG.randrange(1_000_000)),
    )


def drawn_prompt(session: Session, access: Access) -> list[dict[str, str]]:
    """A prompt of the project, at random; test prompts are kept for comparisons that are blind."""
    messages = one_at_random(
        session, access.project, select(Prompt.messages).where(*is_learned_from(access.project)), RNG
    )
    return messages or [{"role": "user", "content": ""}]


def page(
    request: Request,
    session: Session,
    access: Access,
    form: TryOutForm,
    *,
    problems: dict[str, str] | None = None,
    status_code: int = 200,
    try_out: TryOut | None = None,
) -> Response:
    return render(
        request,
        "policies/try_out.html",
        status_code=status_code,
        form=form,
        problems=problems or {},
        versions=service.versions_of(session, access.project),
        try_out=try_out,
        most_tokens=access.project.max_completion_tokens,
        largest_seed=LARGEST_SEED,
        most_completions=MOST_COMPLETIONS,
    )


def found_try_out(access: ResearcherAccess, left_id: UUID, right_id: UUID, session: SessionDep) -> TryOut:
    """The try-out of the address."""
    return try_outs.find(session, access.project, left_id, right_id, now=clock(session))


FoundTryOut = Annotated[TryOut, Depends(found_try_out)]


@router.get("/{left_id}/{right_id}")
def show_try_out(
    request: Request,
    access: ResearcherAccess,
    session: SessionDep,
    try_out: FoundTryOut,
    go_on: int | None = None,
    side: int = 0,
) -> Response:
    """What both wrote so far, and the form to ask again. go_on: with this completion of a side as the next turn."""
    form = form_of(try_out)
    if go_on is not None and side in (0, 1) and 0 <= go_on < len(try_out.sides[side].completions):
        chosen = str(try_out.sides[side].completions[go_on]["text"])
        form = form.model_copy(update={"turns": [*form.turns, chosen, ""][:MOST_TURNS]})
    return page(request, session, access, form, try_out=try_out)


@router.get("/{left_id}/{right_id}/live")
def try_out_now(request: Request, try_out: FoundTryOut) -> Response:
    """The part of the page that changes."""
    return render(request, "policies/_try_out.html", try_out=try_out)


@router.get("/{left_id}/{right_id}/events")
async def try_out_events(try_out: FoundTryOut) -> StreamingResponse:
    """Server-sent events: `changed` whenever one of the two has answered."""
    return live(*(f"request:{side.request.id}" for side in try_out.sides))


def form_of(try_out: TryOut) -> TryOutForm:
    question = try_outs.question_of(try_out)
    return TryOutForm(
        left=question.left,
        right=question.right,
        temperature=f"{question.temperature:g}",
        top_p=f"{question.top_p:g}",
        max_completion_tokens=str(question.max_completion_tokens),
        seed=str(question.seed),
        num_completions=str(question.num_completions),
        **turns_of(question.messages),
    )

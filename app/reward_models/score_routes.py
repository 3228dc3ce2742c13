"""The page on which a reward model scores texts that somebody writes."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict

from app.db import SessionDep, clock
from app.errors import status_of
from app.pages import render
from app.people.access import ResearcherAccess
from app.reward_models import scoring
from app.reward_models.addresses import FoundModel
from app.reward_models.errors import BadScoring
from app.reward_models.scoring import MOST_COMPLETIONS, Scoring
from app.reward_models.service import Fitted
from app.rounds.events import live

router = APIRouter()

LEAST_FIELDS = 3  # for completions, when the form is empty


class ScoringForm(BaseModel):
    """The form as people send it. action: which button."""

    model_config = ConfigDict(extra="ignore")

    prompt: str = ""
    completions: list[str] = []
    action: str = "score"


def found_scoring(access: ResearcherAccess, fitted: FoundModel, request_id: UUID, session: SessionDep) -> Scoring:
    """The scoring of the address."""
    return scoring.find(session, access.project, fitted.version, request_id, now=clock(session))


FoundScoring = Annotated[Scoring, Depends(found_scoring)]


@router.get("/{number}/score")
def empty_page(request: Request, fitted: FoundModel) -> Response:
    """The empty form."""
    return page(request, fitted, ScoringForm())


@router.post("/{number}/score")
def score(
    request: Request,
    access: ResearcherAccess,
    fitted: FoundModel,
    session: SessionDep,
    form: Annotated[ScoringForm, Form()],
) -> Response:
    """Ask the model, or offer one more field; a mistake shows the form again with nothing lost."""
    if form.action == "more":
        return page(request, fitted, form.model_copy(update={"completions": [*form.completions, ""]}))
    messages = [{"role": "user", "content": form.prompt}]
    try:
        asked = scoring.ask(session, access.project, fitted.version, messages, form.completions, now=clock(session))
    except BadScoring as error:
        return page(request, fitted, form, problem=str(error), status_code=status_of(error))
    address = f"/projects/{access.project.slug}/reward-models/{fitted.version.number}/score/{asked}"
    return RedirectResponse(address, status_code=303)


@router.get("/{number}/score/{request_id}")
def scoring_page(request: Request, fitted: FoundModel, found: FoundScoring) -> Response:
    """The scores once they are there, and the form to ask again."""
    form = ScoringForm(prompt=found.messages[-1]["content"], completions=list(found.completions))
    return page(request, fitted, form, found=found)


@router.get("/{number}/score/{request_id}/live")
def scoring_now(request: Request, fitted: FoundModel, found: FoundScoring) -> Response:
    """The part of the page that changes."""
    return render(request, "reward_models/_scores.html", scoring=found, fitted=fitted)


@router.get("/{number}/score/{request_id}/events")
async def scoring_events(found: FoundScoring) -> StreamingResponse:
    """Server-sent events: `changed` when it is answered."""
    return live(f"request:{found.request.id}")


def page(
    request: Request,
    fitted: Fitted,
    form: ScoringForm,
    *,
    found: Scoring | None = None,
    problem: str | None = None,
    status_code: int = 200,
) -> Response:
    fields = form.completions[:MOST_COMPLETIONS]
    return render(
        request,
        "reward_models/score.html",
        status_code=status_code,
        fitted=fitted,
        form=form,
        fields=fields + [""] * (LEAST_FIELDS - len(fields)),
        most=MOST_COMPLETIONS,
        scoring=found,
        problem=problem,
    )

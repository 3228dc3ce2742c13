"""What the addresses of rounds name: the round, one of its stages."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.responses import RedirectResponse, Response

from app.db import SessionDep
from app.people.access import Access, ResearcherAccess
from app.rounds import service
from app.rounds.errors import StageNotFound
from app.rounds.models import Round, Stage


def found_round(access: ResearcherAccess, number: int, session: SessionDep) -> Round:
    """The round of the address, for whoever may look at it."""
    return service.get_round(session, access.project, number)


FoundRound = Annotated[Round, Depends(found_round)]


def found_stage(round: FoundRound, recipe: str) -> Stage:
    """The stage of the address. Raises StageNotFound."""
    for stage in round.stages:
        if stage.recipe == recipe:
            return stage
    raise StageNotFound(round.number, recipe)


FoundStage = Annotated[Stage, Depends(found_stage)]


async def sent_form(request: Request) -> dict[str, list[str]]:
    """The form's fields as they were sent: its settings are known by the recipes, not by this route's signature."""
    form = await request.form()
    return {name: [text for text in form.getlist(name) if isinstance(text, str)] for name in form}


SentForm = Annotated[dict[str, list[str]], Depends(sent_form)]


def back_to(access: Access, round: Round) -> Response:
    return RedirectResponse(f"/projects/{access.project.slug}/rounds/{round.number}", status_code=303)

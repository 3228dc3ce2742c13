"""The page and the API of conversing: parse, call one service, answer."""

from random import SystemRandom
from typing import Annotated, Any
from uuid import UUID, uuid4

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from app.db import SessionDep, clock
from app.errors import PodiumError, status_of
from app.labeling import conversation_replies, conversations
from app.labeling.conversation_screen import shown_conversation
from app.labeling.conversations import Choice
from app.labeling.demonstration_content import known_content
from app.labeling.demonstration_routes import Fields, counter_for, refuse_when_not_offered
from app.labeling.leases import refuse_when_paused
from app.labeling.models import Strength
from app.labeling.schemas import Form, Rank, Seconds, Words
from app.labeling.screen import newest_guidelines
from app.labeling.task_errors import IncompleteWriting
from app.labeling.task_models import Writing, WritingTask
from app.labeling.writings import find_writing, open_writing
from app.pages import render
from app.people.access import Access, LabelerAccess, OwnWork, WorkAccess, labeler_of
from app.rounds.events import live

router = APIRouter()
api = APIRouter(tags=["conversations"])

RNG = SystemRandom()
STRENGTHS = {
    Strength.SIGNIFICANTLY: "significantly better than the others",
    Strength.BETTER: "better",
    Strength.SLIGHTLY: "slightly better",
    Strength.NEGLIGIBLY: "negligibly better, or unsure",
}


class TurnForm(Form):
    """What the labeler says next, under an id that the client made."""

    turn_id: UUID
    text: Words


class ChoiceForm(Form):
    """How the turn goes on. ranks: of every reply, or empty; then `strength` is needed."""

    ranking_id: UUID
    chosen: UUID
    ranks: dict[UUID, Rank] = Field(default_factory=dict)
    strength: Strength | None = None
    edited: Words = ""
    active_s: Seconds | None = None

    def choice(self) -> Choice:
        """The form's content in the service's words."""
        return Choice(self.chosen, self.ranks, self.strength, self.edited, self.active_s)


class TurnOut(BaseModel):
    id: UUID


def own_conversation(writing_id: UUID, access: LabelerAccess, session: SessionDep) -> Writing:
    """The caller's own, in this project: whoever is paused in one must not go on through another's."""
    return find_writing(session, access.owner, writing_id)


OwnConversation = Annotated[Writing, Depends(own_conversation)]


@router.get("/projects/{slug}/converse")
def converse_page(request: Request, access: WorkAccess, session: SessionDep) -> HTMLResponse:
    """The labeler's conversation with the policy, as it stands."""
    refuse_when_paused(access)
    refuse_when_not_offered(access.project, WritingTask.CONVERSE)
    labeler, now = labeler_of(session, access), clock(session)
    writing = open_writing(session, labeler, access.project, WritingTask.CONVERSE, now=now, rng=RNG)
    assert writing is not None  # only answers need a prompt
    return page(request, access, session, writing)


@router.get("/projects/{slug}/conversations/{writing_id}/live")
def conversation_now(
    request: Request, access: WorkAccess, writing: OwnConversation, session: SessionDep
) -> HTMLResponse:
    """The part of the page that changes."""
    return render(request, "labeling/_conversation.html", **shown(access, session, writing))


@router.get("/projects/{slug}/conversations/{writing_id}/events")
async def conversation_events(writing: OwnConversation) -> StreamingResponse:
    """Server-sent events: `changed` whenever a reply has come."""
    return live(conversation_replies.topic(writing.id))


@router.post("/projects/{slug}/conversations/{writing_id}")
def act_on_page(
    request: Request, writing: OwnConversation, fields: Fields, access: LabelerAccess, session: SessionDep
) -> Response:
    """The page's forms, sent without a script."""
    owner, now, given = access.owner, clock(session), {name: str(value) for name, value in fields.items()}
    try:
        if given.get("do") == "ask":
            refuse_when_paused(access)
            turn = TurnForm.model_validate({"turn_id": given.get("id"), "text": given.get("text", "")})
            count_tokens = counter_for(request, session, access.project)
            conversations.ask(
                session, owner, writing.id, turn.turn_id, turn.text, count_tokens=count_tokens, now=now, rng=RNG
            )
        elif given.get("do") == "choose":
            form = choice_of_fields(given)
            conversations.choose(
                session, owner, UUID(given["turn_id"]), form.ranking_id, form.choice(), now=now, rng=RNG
            )
        elif given.get("do") == "withdraw":
            conversations.withdraw(session, owner, UUID(given["turn_id"]), now)
        elif given.get("do") == "end":
            conversations.end(session, owner, writing.id, now)
            return RedirectResponse(f"/projects/{access.project.slug}/work", status_code=303)
    except PodiumError as error:
        return page(request, access, session, writing, given=given, problem=str(error), status=status_of(error))
    except (ValueError, KeyError):
        problem = str(IncompleteWriting("Choose the reply to go on with, and rank all replies or none"))
        return page(request, access, session, writing, given=given, problem=problem, status=422)
    return RedirectResponse(f"/projects/{access.project.slug}/converse", status_code=303)


def choice_of_fields(given: dict[str, str]) -> ChoiceForm:
    """Raises ValueError for fields that make no choice."""
    return ChoiceForm.model_validate(
        {
            "ranking_id": given.get("id"),
            "chosen": given.get("chosen"),
            "ranks": ranks_of_fields(given),
            "strength": given.get("strength") or None,
            "edited": given.get("edited", "").replace("\r\n", "\n"),
        }
    )


def ranks_of_fields(given: dict[str, str]) -> dict[str, str]:
    """Completion id -> rank, as sent."""
    return {name.removeprefix("rank:"): rank for name, rank in given.items() if name.startswith("rank:")}


def page(
    request: Request,
    access: Access,
    session: Session,
    writing: Writing,
    *,
    given: dict[str, str] | None = None,
    problem: str | None = None,
    status: int = 200,
) -> HTMLResponse:
    return render(
        request,
        "labeling/converse.html",
        status_code=status,
        problem=problem,
        guidelines=newest_guidelines(session, access.project.id),
        **shown(access, session, writing, given),
    )


def shown(access: Access, session: Session, writing: Writing, given: dict[str, str] | None = None) -> dict[str, Any]:
    """given: the fields of a form that was refused; they come before the draft."""
    draft = known_content(writing.content)
    drafted = {str(completion_id): str(rank) for completion_id, rank in draft.ranks.items()}
    now = clock(session)
    return {
        "project": access.project,
        "writing": writing,
        "draft": draft.model_dump(mode="json", exclude_defaults=True),
        "seen": shown_conversation(session, writing, now, RNG),
        "text": (given or {}).get("text", draft.prompt),
        "edited": (given or {}).get("edited", draft.answer),
        "ranks": drafted if given is None else ranks_of_fields(given),
        "chosen": (given or {}).get("chosen", str(draft.chosen or "")),
        "strength": (given or {}).get("strength", draft.strength or ""),
        "strengths": STRENGTHS.items(),
        "new_id": uuid4,
    }


# The API


@api.post("/projects/{slug}/conversations/{writing_id}/turns", status_code=201)
def ask(
    request: Request, writing: OwnConversation, form: TurnForm, access: LabelerAccess, session: SessionDep
) -> TurnOut:
    """Say the next thing; the replies come to the page. The same id again is the same turn."""
    refuse_when_paused(access)
    turn = conversations.ask(
        session,
        access.owner,
        writing.id,
        form.turn_id,
        form.text,
        count_tokens=counter_for(request, session, access.project),
        now=clock(session),
        rng=RNG,
    )
    return TurnOut(id=turn.id)


@api.post("/turns/{turn_id}/choice", status_code=201)
def choose(turn_id: UUID, form: ChoiceForm, owner: OwnWork, session: SessionDep) -> TurnOut:
    """Rank the replies or pick one, and go on with it. The same ranking id again changes nothing."""
    turn = conversations.choose(session, owner, turn_id, form.ranking_id, form.choice(), now=clock(session), rng=RNG)
    return TurnOut(id=turn.id)


@api.post("/turns/{turn_id}/withdrawal", status_code=204)
def withdraw(turn_id: UUID, owner: OwnWork, session: SessionDep) -> None:
    """Take a turn back that is not judged yet, or could not be answered."""
    conversations.withdraw(session, owner, turn_id, clock(session))


@api.post("/conversations/{writing_id}/end", status_code=204)
def end(writing_id: UUID, owner: OwnWork, session: SessionDep) -> None:
    """Finish the conversation."""
    conversations.end(session, owner, writing_id, clock(session))

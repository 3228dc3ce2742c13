"""Suggestions of the current policy to who writes: asked for by a button, sampled by the sampler, kept when used."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.labeling.demonstration_content import WritingContent, prompt_of
from app.labeling.task_errors import SuggestionNotFound, SuggestionsNotOffered
from app.labeling.task_models import Writing
from app.policies.service import current_version
from app.projects.models import Project
from app.prompts.models import Prompt
from app.rounds import model_requests
from app.rounds.models import ModelRequest, ModelRequestKind

PATIENCE = timedelta(minutes=2)
SEED_BITS = 63


@dataclass(frozen=True)
class Suggestion:
    """What the policy suggested. Which policy never reaches a labeler."""

    text: str
    policy_version_id: int


@dataclass(frozen=True)
class SuggestionState:
    """How far a suggestion is: text once it is there, else a problem, else neither yet."""

    text: str | None
    problem: str | None


def ask(session: Session, writing: Writing, content: WritingContent, *, now: datetime, rng: Random) -> UUID:
    """Ask the sampler for an answer to the prompt as it stands; returns the request's id.

    Raises IncompleteWriting where there is no prompt yet, SuggestionsNotOffered where the project offers none.
    """
    project = session.get_one(Project, writing.project_id)
    if not project.offers_suggestions:
        raise SuggestionsNotOffered
    given = None if writing.prompt_id is None else session.get_one(Prompt, writing.prompt_id).messages
    input = {
        "policy_version_id": current_version(session, project).id,
        "messages": prompt_of(writing.task, content) if given is None else given,
        "seeds": [rng.getrandbits(SEED_BITS)],
        "temperature": 1.0,
        "top_p": 1.0,
        "max_completion_tokens": project.max_completion_tokens,
        "labeler_id": writing.labeler_id,
    }
    request = model_requests.ask(
        session, ModelRequestKind.SAMPLE, input, deadline=now + PATIENCE, project_id=project.id
    )
    return request.id


def find(session: Session, writing: Writing, request_id: UUID, now: datetime) -> SuggestionState:
    """Raises SuggestionNotFound."""
    request = _request(session, writing, request_id)
    if request.output is not None:
        return SuggestionState(request.output["completions"][0]["text"], None)
    if request.error is not None:
        return SuggestionState(None, f"There is no suggestion: {request.error}.")
    if request.deadline < now:
        return SuggestionState(None, "No suggestion came in time. Go on writing, or ask again later.")
    return SuggestionState(None, None)


def used(session: Session, writing: Writing, request_id: UUID | None) -> Suggestion | None:
    """The suggestion that was put into the answer, as it was sampled. Raises SuggestionNotFound."""
    if request_id is None:
        return None
    request = _request(session, writing, request_id)
    if request.output is None:
        raise SuggestionNotFound
    return Suggestion(request.output["completions"][0]["text"], request.input["policy_version_id"])


def _request(session: Session, writing: Writing, request_id: UUID) -> ModelRequest:
    found = session.scalar(
        select(ModelRequest).where(
            # The labeler's own: of this piece, or of the one that was taken back and is written anew.
            ModelRequest.id == request_id,
            ModelRequest.project_id == writing.project_id,
            ModelRequest.input["labeler_id"].as_integer() == writing.labeler_id,
        )
    )
    if found is None:
        raise SuggestionNotFound
    return found

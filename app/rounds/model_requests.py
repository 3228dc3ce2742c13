"""What the web asks of a model and how the sampler answers: rows of one table, so that the web never loads torch.

Inputs and outputs, by kind:
  inspect       {"source"} -> {"source", "num_parameters", "context_tokens", "tokenizer_sha256", "facts"}
  count_tokens  {"policy_version_id", "messages" | "text"} -> {"num_tokens"}
  sample        {"policy_version_id", "messages", "seeds", "temperature", "top_p", "max_completion_tokens"}
                -> {"completions": [{"text", "token_ids", "finish_reason", "logprob", "seed"}], "tokenizer_sha256"}
  score         {"reward_model_version_id", "messages", "completions": [text]} -> {"scores": [number]}
"""

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.orm import Session

from app.db import EVENTS_CHANNEL, SAMPLER_CHANNEL, SessionFactory, clock, notify
from app.errors import PodiumError
from app.rounds.models import ModelRequest, ModelRequestKind

POLL_S = 0.05


@dataclass(frozen=True, kw_only=True)
class RequestClaim:
    """One sampler's right to answer one request."""

    request_id: UUID
    attempt: int
    owner: str
    kind: ModelRequestKind
    input: dict[str, Any]


class ModelDidNotAnswer(PodiumError):
    """No sampler answered in time."""

    code = "model_did_not_answer"

    def __init__(self) -> None:
        super().__init__("no sampler answered in time: see that one is running, then try again")


class ModelRefused(PodiumError):
    """The sampler answered that it cannot; the message is one sentence that names the thing and the next move."""

    code = "model_refused"


def ask(
    session: Session,
    kind: ModelRequestKind,
    input: dict[str, Any],
    *,
    deadline: datetime,
    project_id: int | None = None,
) -> ModelRequest:
    """Put a question to a model. The sampler is woken when the caller commits."""
    request = ModelRequest(kind=kind, input=input, deadline=deadline, project_id=project_id)
    session.add(request)
    session.flush()
    notify(session, SAMPLER_CHANNEL)
    return request


def ask_and_wait(
    kind: ModelRequestKind, input: dict[str, Any], *, timeout_s: float, project_id: int | None = None
) -> dict[str, Any]:
    """Ask and wait for the answer, with no transaction open meanwhile. Raises ModelDidNotAnswer, ModelRefused."""
    with SessionFactory.begin() as session:
        deadline = clock(session) + timedelta(seconds=timeout_s)
        request_id = ask(session, kind, input, deadline=deadline, project_id=project_id).id
    give_up_at = time.monotonic() + timeout_s
    while time.monotonic() < give_up_at:
        with SessionFactory() as session:
            request = session.get_one(ModelRequest, request_id)
        if request.error is not None:
            raise ModelRefused(request.error)
        if request.output is not None:
            return request.output
        time.sleep(POLL_S)
    raise ModelDidNotAnswer


def claim_request(session: Session, *, owner: str, duration: timedelta, now: datetime) -> RequestClaim | None:
    """Claim the oldest open request that somebody still waits for. The caller commits before it answers."""
    request = session.scalar(
        select(ModelRequest)
        .where(
            ModelRequest.answered_at.is_(None),
            ModelRequest.deadline > now,
            or_(ModelRequest.claimed_until.is_(None), ModelRequest.claimed_until < now),
        )
        .order_by(ModelRequest.created_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if request is None:
        return None
    request.attempt, request.owner, request.claimed_until = request.attempt + 1, owner, now + duration
    session.flush()
    return RequestClaim(
        request_id=request.id, attempt=request.attempt, owner=owner, kind=request.kind, input=request.input
    )


def answer(session: Session, claim: RequestClaim, output: dict[str, Any], *, now: datetime) -> bool:
    """Store the answer. False if another attempt holds the request by now."""
    return _close(session, claim, now=now, output=output, error=None)


def refuse(session: Session, claim: RequestClaim, error: str, *, now: datetime) -> bool:
    """Store why there is no answer. False if another attempt holds the request by now."""
    return _close(session, claim, now=now, output=None, error=error)


def release(session: Session, claim: RequestClaim) -> None:
    """Give the request back unanswered: another sampler need not wait for the claim to run out."""
    session.execute(update(ModelRequest).where(*_held(claim)).values(owner=None, claimed_until=None))
    notify(session, SAMPLER_CHANNEL)


def _close(
    session: Session, claim: RequestClaim, *, now: datetime, output: dict[str, Any] | None, error: str | None
) -> bool:
    request = session.scalar(select(ModelRequest).where(*_held(claim)).with_for_update())
    if request is None:
        return False
    request.output, request.error, request.answered_at = output, error, now
    session.flush()
    notify(session, EVENTS_CHANNEL, f"request:{request.id}")
    return True


def _held(claim: RequestClaim) -> tuple[ColumnElement[bool], ...]:
    return (
        ModelRequest.id == claim.request_id,
        ModelRequest.attempt == claim.attempt,
        ModelRequest.owner == claim.owner,
        ModelRequest.answered_at.is_(None),
    )

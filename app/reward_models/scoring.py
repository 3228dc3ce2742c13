"""Scoring texts by hand: a prompt and some completions, which the sampler scores. Nothing of it enters the data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.orm import Session

from app.policies.models import RewardModelVersion
from app.policies.service import removed
from app.projects.models import Project
from app.prompts.errors import BadPrompt
from app.prompts.messages import Messages, checked_prompt, storable
from app.reward_models.errors import BadScoring, ScoringNotFound
from app.rounds import model_requests
from app.rounds.heart import is_alive
from app.rounds.models import ModelRequest, ModelRequestKind

PATIENCE = timedelta(minutes=30)
MOST_COMPLETIONS = 9
KIND = "scoring"  # in a request's input: what it was asked for


@dataclass(frozen=True)
class Placed:
    """A completion with its score. place: 1 is best.  preferred: probability to be preferred over the next one."""

    number: int  # as it was asked, from 1
    text: str
    score: float
    place: int
    preferred: float | None


@dataclass(frozen=True)
class Scoring:
    """What was asked of a reward model, and how far the answer is."""

    request: ModelRequest
    is_too_late: bool
    has_sampler: bool

    @property
    def messages(self) -> Messages:
        found: Messages = self.request.input["messages"]
        return found

    @property
    def completions(self) -> Sequence[str]:
        found: Sequence[str] = self.request.input["completions"]
        return found

    @property
    def problem(self) -> str | None:
        if self.request.error is not None:
            return self.request.error
        return "no sampler answered in time" if self.is_too_late and self.request.output is None else None

    @property
    def is_waiting(self) -> bool:
        return self.request.output is None and self.problem is None

    @property
    def scores(self) -> Sequence[float] | None:
        return None if self.request.output is None else self.request.output["scores"]

    @property
    def placed(self) -> list[Placed]:
        """The best first; none while there is no answer."""
        order = sorted(enumerate(self.scores or ()), key=lambda each: -each[1])
        following = [*(score for _, score in order[1:]), None][: len(order)]
        return [
            Placed(
                number=index + 1,
                text=self.completions[index],
                score=score,
                place=place,
                preferred=None if after is None else 1 / (1 + math.exp(-min(score - after, 700.0))),
            )
            for place, ((index, score), after) in enumerate(zip(order, following, strict=True), start=1)
        ]


def ask(
    session: Session,
    project: Project,
    version: RewardModelVersion,
    messages: Messages,
    completions: Sequence[str],
    *,
    now: datetime,
) -> UUID:
    """Ask the reward model; returns the request's id. Empty completions are left out. Raises BadScoring."""
    try:
        prompt = checked_prompt(messages)
    except BadPrompt as error:
        raise BadScoring(f"The prompt cannot be read: {error}.") from error
    if version.weights_removed_at is not None:
        raise BadScoring(f"Reward model {version.number} cannot be asked: {removed(version.weights_removed_at)}.")
    written = [storable(text) for text in completions if text.strip()]
    if not 1 <= len(written) <= MOST_COMPLETIONS:
        raise BadScoring(f"Write at least one completion, and at most {MOST_COMPLETIONS}.")
    input = {
        "for": KIND,
        "reward_model_version_id": version.id,
        "messages": prompt,
        "completions": written,
    }
    return model_requests.ask(session, ModelRequestKind.SCORE, input, deadline=now + PATIENCE, project_id=project.id).id


def find(
    session: Session, project: Project, version: RewardModelVersion, request_id: UUID, *, now: datetime
) -> Scoring:
    """Raises ScoringNotFound, also for a request that is no scoring by this model."""
    request = session.get(ModelRequest, request_id)
    is_ours = request is not None and request.project_id == project.id and request.input.get("for") == KIND
    if request is None or not is_ours or request.input["reward_model_version_id"] != version.id:
        raise ScoringNotFound
    return Scoring(request, is_too_late=request.deadline < now, has_sampler=is_alive(session, "sampler", now=now))

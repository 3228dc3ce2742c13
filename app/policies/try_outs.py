"""Trying two versions out: the same prompt, the same seeds, sampled by the sampler. Nothing of it enters the data.

A try-out is two rows of `model_request`, one a version, and no others: no prompt, no slate, no completion. It waits for
a sampler as long as anybody may want to wait, and the page can be left meanwhile.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db import CLOCK
from app.policies.errors import BadTryOut, TryOutNotFound
from app.policies.models import PolicyVersion
from app.policies.service import removed
from app.projects.models import Project
from app.prompts.errors import BadPrompt
from app.prompts.messages import Messages, checked_prompt
from app.rounds import model_requests
from app.rounds.models import Heartbeat, ModelRequest, ModelRequestKind

PATIENCE = timedelta(minutes=30)
SILENT_AFTER = timedelta(minutes=2)  # without a heartbeat
MOST_COMPLETIONS = 4  # of each version
LARGEST_SEED = 2**53 - 1  # what a browser's number field keeps to the last digit
HOTTEST = 2.0
KIND = "try_out"  # in a request's input: what it was asked for


@dataclass(frozen=True, kw_only=True)
class Question:
    """What two versions are asked. left, right: version numbers.  seed: of the first completion; the others count on.

    temperature: 0 takes the likeliest token each time.
    """

    left: int
    right: int
    messages: Messages
    temperature: float
    top_p: float
    max_completion_tokens: int
    seed: int
    num_completions: int = 1


@dataclass(frozen=True)
class Side:
    """One version's part: completions when they are there, else a problem, else neither yet."""

    version: PolicyVersion
    request: ModelRequest
    is_too_late: bool

    @property
    def completions(self) -> Sequence[dict[str, object]]:
        return self.request.output["completions"] if self.request.output is not None else ()

    @property
    def problem(self) -> str | None:
        if self.request.error is not None:
            return self.request.error
        return "no sampler answered in time" if self.is_too_late and self.request.output is None else None

    @property
    def is_waiting(self) -> bool:
        return self.request.output is None and self.problem is None


@dataclass(frozen=True)
class TryOut:
    """Both sides, and why they may have to wait. num_before: requests that were asked before and are still open."""

    left: Side
    right: Side
    num_before: int
    has_sampler: bool
    sampler_does: str

    @property
    def is_waiting(self) -> bool:
        return self.left.is_waiting or self.right.is_waiting

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.left, self.right


def check(project: Project, question: Question) -> Question:
    """The question with its messages as a policy can read them. Raises BadTryOut with every problem by field."""
    problems: dict[str, str] = {}
    messages = question.messages
    try:
        messages = checked_prompt(question.messages)
    except BadPrompt as error:
        problems["turns"] = str(error)
    if not 0 <= question.temperature <= HOTTEST:
        problems["temperature"] = f"must be from 0 to {HOTTEST:g}"
    if not 0 < question.top_p <= 1:
        problems["top_p"] = "must be above 0 and at most 1"
    if not 1 <= question.max_completion_tokens <= project.max_completion_tokens:
        problems["max_completion_tokens"] = f"must be from 1 to {project.max_completion_tokens}, the project's most"
    if not 0 <= question.seed <= LARGEST_SEED:
        problems["seed"] = f"must be from 0 to {LARGEST_SEED}"
    if not 1 <= question.num_completions <= MOST_COMPLETIONS:
        problems["num_completions"] = f"must be from 1 to {MOST_COMPLETIONS}"
    if problems:
        raise BadTryOut(problems)
    return Question(**{**vars(question), "messages": messages})


def ask(
    session: Session, project: Project, question: Question, versions: Sequence[PolicyVersion], *, now: datetime
) -> tuple[UUID, UUID]:
    """Put the question to both versions (left, right); returns the requests' ids. Raises BadTryOut."""
    question = check(project, question)
    problems = {
        side: removed(version.weights_removed_at)
        for side, version in zip(("left", "right"), versions, strict=True)
        if version.weights_removed_at is not None
    }
    if problems:
        raise BadTryOut(problems)
    left, right = (
        model_requests.ask(
            session,
            ModelRequestKind.SAMPLE,
            {
                "for": KIND,
                "policy_version_id": version.id,
                "messages": question.messages,
                "seeds": [question.seed + number for number in range(question.num_completions)],
                "temperature": question.temperature,
                "top_p": question.top_p,
                "max_completion_tokens": question.max_completion_tokens,
            },
            deadline=now + PATIENCE,
            project_id=project.id,
        ).id
        for version in versions
    )
    return left, right


def find(session: Session, project: Project, left_id: UUID, right_id: UUID, *, now: datetime) -> TryOut:
    """Raises TryOutNotFound, also for requests that are not a try-out of this project."""
    left, right = side(session, project, left_id, now), side(session, project, right_id, now)
    sampler = session.scalar(
        select(Heartbeat)
        .where(Heartbeat.process == "sampler", Heartbeat.beat_at > now - SILENT_AFTER)
        .order_by(Heartbeat.beat_at.desc())
        .limit(1)
    )
    return TryOut(
        left,
        right,
        num_before=num_open_before(session, left.request),
        has_sampler=sampler is not None,
        sampler_does=sampler.doing if sampler is not None else "",
    )


def side(session: Session, project: Project, request_id: UUID, now: datetime) -> Side:
    request = session.get(ModelRequest, request_id)
    if request is None or request.project_id != project.id or request.input.get("for") != KIND:
        raise TryOutNotFound
    version = session.get_one(PolicyVersion, request.input["policy_version_id"])
    return Side(version, request, is_too_late=request.deadline < now)


def num_open_before(session: Session, request: ModelRequest) -> int:
    return session.scalars(
        select(func.count())
        .select_from(ModelRequest)
        .where(
            ModelRequest.answered_at.is_(None),
            ModelRequest.deadline > CLOCK,
            ModelRequest.created_at < request.created_at,
        )
    ).one()


def question_of(try_out: TryOut) -> Question:
    """What was asked, to ask again."""
    input = try_out.left.request.input
    return Question(
        left=try_out.left.version.number,
        right=try_out.right.version.number,
        messages=input["messages"],
        temperature=input["temperature"],
        top_p=input["top_p"],
        max_completion_tokens=input["max_completion_tokens"],
        seed=input["seeds"][0],
        num_completions=len(input["seeds"]),
    )

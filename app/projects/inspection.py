"""Looking at a policy before a project is made from it: the sampler does, this process opens no model."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic, sleep
from uuid import UUID

from sqlalchemy import exists, select

from app.db import SessionFactory, clock
from app.policies.service import STARTER_SOURCE, InspectedPolicy
from app.projects.errors import NoSampler, PolicyNotUsable, PolicyStillLookedAt
from app.projects.overview import SILENT_AFTER
from app.projects.starter import inspect_starter
from app.rounds.model_requests import POLL_S, ask
from app.rounds.models import Heartbeat, ModelRequest, ModelRequestKind

TIMEOUT_S = 600.0  # a hub's files may have to be fetched
PATIENCE_S = 8.0  # that a page waits; then it says how far the look is, and can be asked again
FRESH = timedelta(hours=12)  # a folder may change: an older answer is asked for anew


def inspect(source: str, *, timeout_s: float = 120.0) -> InspectedPolicy:
    """What is known of the policy: "starter", a folder, or a hub name. Raises PolicyNotUsable with the reason."""
    source = source.strip()
    if source == STARTER_SOURCE:
        return inspect_starter()
    return wait_for(begin(source), source, patience_s=timeout_s)


def begin(source: str) -> UUID:
    """Ask the sampler to look at the policy; returns what to ask for its answer by. Raises PolicyNotUsable."""
    if not source:
        raise PolicyNotUsable("Name a folder or a Hugging Face model, or choose the starter policy.")
    with SessionFactory.begin() as session:
        now = clock(session)
        is_alive = exists().where(Heartbeat.process == "sampler", Heartbeat.beat_at > now - SILENT_AFTER)
        if not session.scalar(select(is_alive)):
            raise NoSampler
        deadline = now + timedelta(seconds=TIMEOUT_S)
        return ask(session, ModelRequestKind.INSPECT, {"source": source}, deadline=deadline).id


def wait_for(request_id: UUID, source: str, *, patience_s: float) -> InspectedPolicy:
    """The sampler's answer. Raises PolicyNotUsable: what is wrong with the policy, or that the look is not over."""
    give_up_at = monotonic() + patience_s
    while (found := answer(request_id, source)) is None:
        if monotonic() > give_up_at:
            raise PolicyStillLookedAt(source)
        sleep(POLL_S)
    return found


def answer(request_id: UUID, source: str) -> InspectedPolicy | None:
    """What the sampler said, None while it has not. Raises PolicyNotUsable."""
    with SessionFactory() as session:
        request = session.get(ModelRequest, request_id)
        now = clock(session)
    if request is None or request.input != {"source": source} or now - request.created_at > FRESH:
        raise PolicyNotUsable("The policy was looked at too long ago: look at it again.")
    if request.error is not None:
        raise PolicyNotUsable(sentence(request.error))
    if request.output is not None:
        return inspected(request)
    if now > request.deadline:
        raise PolicyNotUsable("No sampler answered in time: see that one is running, then look again.")
    return None


def inspected(request: ModelRequest) -> InspectedPolicy:
    found = request.output or {}
    return InspectedPolicy(
        source=found["source"],
        num_parameters=found["num_parameters"],
        context_tokens=found["context_tokens"],
        tokenizer_sha256=found["tokenizer_sha256"],
        facts=found["facts"],
    )


@dataclass
class Inspections:
    """The look at the policy of a form. request_id: of the question that was asked on an earlier page, or now."""

    request_id: UUID | None = None

    def policy(self, given: Mapping[str, str]) -> InspectedPolicy:
        """The policy that the form names, asked for once. Raises PolicyNotUsable."""
        source = chosen_source(given)
        if source == STARTER_SOURCE:
            return inspect_starter()
        if self.request_id is not None:
            try:
                return wait_for(self.request_id, source, patience_s=PATIENCE_S)
            except PolicyStillLookedAt:
                raise
            except PolicyNotUsable:
                self.request_id = None  # it may have been put right meanwhile
        self.request_id = begin(source)
        return wait_for(self.request_id, source, patience_s=PATIENCE_S)


def chosen_source(given: Mapping[str, str]) -> str:
    """What the form names: "starter", a folder or a hub name."""
    return STARTER_SOURCE if given["policy"] == STARTER_SOURCE else given["source"].strip()


def sentence(message: str) -> str:
    """With a capital and a full stop."""
    message = message[:1].upper() + message[1:]
    return message if message.endswith((".", "!", "?")) else f"{message}."

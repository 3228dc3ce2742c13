"""What the web asks of a model, claimed from the database and answered: the sampler's first duty.

One of the modules here that touch the database; the answers themselves are made in `trainer.answers`.
"""

import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from sqlalchemy.orm import Session

from app.db import SessionFactory, clock
from app.errors import PodiumError
from app.monitoring import sampler_metrics
from app.monitoring.logs import about
from app.rounds import model_requests
from app.rounds.heart import Heart
from app.rounds.model_requests import RequestClaim
from app.rounds.models import ModelRequestKind
from trainer import answers
from trainer.errors import StageError
from trainer.inspect_policy import inspect_policy
from trainer.models import RewardModel
from trainer.open_models import OpenPolicy
from trainer.version_models import VersionModels

log = logging.getLogger(__name__)


class RequestAnswerer:
    """Answers requests for a sampler, one at a time."""

    def __init__(
        self, models: VersionModels, owner: str, heart: Heart, stopping: threading.Event, claim_duration: timedelta
    ) -> None:
        self._models, self._owner, self._heart = models, owner, heart
        self._stopping, self._claim_duration = stopping, claim_duration
        self._request: RequestClaim | None = None

    def release(self, session: Session) -> int:
        """Give back what is claimed, from another thread; how many requests that was."""
        request = self._request
        if request is None:
            return 0
        model_requests.release(session, request)
        return 1

    def answer_all(self) -> bool:
        """Answer all that the web asks now; whether there was anything."""
        answered = False
        while not self._stopping.is_set():
            with SessionFactory.begin() as session:
                claim = model_requests.claim_request(
                    session, owner=self._owner, duration=self._claim_duration, now=clock(session)
                )
            if claim is None:
                return answered
            self._heart.doing = f"answering a request: {claim.kind.value}"
            self._request = claim
            try:
                with about(request=claim.request_id):
                    self._answer(claim)
            finally:
                self._request = None
            answered = True
        return answered

    def _answer(self, claim: RequestClaim) -> None:
        answering: dict[ModelRequestKind, Callable[[dict[str, Any]], dict[str, Any]]] = {
            ModelRequestKind.INSPECT: lambda input: inspect_policy(input["source"]),
            ModelRequestKind.COUNT_TOKENS: lambda input: answers.count_tokens(self._policy_of(input), input),
            ModelRequestKind.SAMPLE: lambda input: answers.sample(self._policy_of(input), input),
            ModelRequestKind.SCORE: lambda input: answers.score(self._reward_model_of(input), input),
        }
        output, error = None, None
        try:
            output = answering[claim.kind](claim.input)
        except StageError as failure:
            error = f"{failure.message}: {failure.advice}"
        except PodiumError as failure:  # of a version whose weights are gone, in words
            error = str(failure)
        except torch.OutOfMemoryError:
            error = "the model does not fit into this machine's memory: use a smaller one"
        except (KeyError, ValueError, LookupError) as failure:
            error = f"the request cannot be answered ({failure}): ask again from a page that is up to date"
        with SessionFactory.begin() as session:
            if error is not None:
                log.warning("request=%s refused: %s", claim.request_id, error)
                model_requests.refuse(session, claim, error, now=clock(session))
            elif output is not None:
                model_requests.answer(session, claim, output, now=clock(session))
        sampler_metrics.REQUESTS.labels(claim.kind.value, "answered" if error is None else "refused").inc()

    def _policy_of(self, input: dict[str, Any]) -> OpenPolicy:
        return self._models.policy_of(input["policy_version_id"])

    def _reward_model_of(self, input: dict[str, Any]) -> RewardModel:
        return self._models.reward_model(input["reward_model_version_id"])

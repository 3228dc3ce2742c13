"""Slates that wait for completions: claimed from the database, sampled from their project's mixture, and stored.

One of the modules here that touch the database. A claim is committed before the model runs, no transaction is open
meanwhile, and completions are stored only under a claim that still holds.
"""

import logging
import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from random import Random, SystemRandom

from sqlalchemy.orm import Session

from app.db import SessionFactory, clock
from app.errors import PodiumError
from app.labeling import asking, conversation_replies, queue
from app.labeling.asking import Asked
from app.labeling.models import AskedBy, CompletionSource
from app.labeling.queue import MixtureEntry, NewCompletion, SlateClaim, SlateToSample
from app.monitoring import sampler_metrics
from app.monitoring.logs import about
from app.projects.models import Project
from app.rounds.heart import Heart
from trainer.asking import choose
from trainer.errors import StageError
from trainer.open_models import OpenPolicy
from trainer.prompting import encode_prompt, storable
from trainer.slates import OnFound, SlateCompletion, SlateRequest, Source, fill_slates
from trainer.stage_data import Written
from trainer.version_models import VersionModels

log = logging.getLogger(__name__)

SLATES_PER_BATCH = 8  # a request of the web waits for one batch at most
PAUSE_AFTER_FAILURE = timedelta(seconds=30)
RNG = SystemRandom()  # places of replies on the page must not be foreseeable
LARGEST_ON_CPU = 1_000_000_000  # parameters; a larger policy waits while a stage has the GPU


class SlateFiller:
    """Fills slates for a sampler, a batch at a time: what is claimed, and which projects wait for a better time."""

    def __init__(
        self,
        models: VersionModels,
        owner: str,
        heart: Heart,
        stopping: threading.Event,
        claim_duration: timedelta,
        *,
        has_gpu: bool,
    ) -> None:
        """has_gpu: whether there is one here, whoever has it just now."""
        self._models, self._owner, self._heart = models, owner, heart
        self._stopping, self._claim_duration, self._has_gpu = stopping, claim_duration, has_gpu
        self._claims: list[SlateClaim] = []
        self._failing: dict[int, datetime] = {}  # project id -> when to try again
        self.problem = ""  # why, for the heartbeat

    def renew(self, session: Session, now: datetime) -> None:
        """Part of each heartbeat, in its thread."""
        queue.renew_claims(session, list(self._claims), duration=self._claim_duration, now=now)

    def release(self, session: Session) -> int:
        """Give back what is claimed, from another thread; how many slates that was."""
        claims = list(self._claims)
        queue.release_claims(session, claims)
        return len(claims)

    def fill_batch(self) -> bool:
        """Claim some slates, sample their completions, store them; whether there were any."""
        with SessionFactory.begin() as session:
            now = clock(session)
            self._failing = {project: until for project, until in self._failing.items() if until > now}
            slates = queue.claim_slates(
                session,
                owner=self._owner,
                limit=SLATES_PER_BATCH,
                duration=self._claim_duration,
                now=now,
                except_projects=list(self._failing),
            )
        if not slates:
            self._heart.doing = self.problem if self._failing else "waiting: every queue is full"
            return False
        self._claims = [slate.claim for slate in slates]
        sampler_metrics.CLAIMS.inc(len(slates))
        try:
            with sampler_metrics.BATCH_SECONDS.time():
                for project_id in dict.fromkeys(slate.project_id for slate in slates):
                    with about(project=project_id):
                        self._fill([slate for slate in slates if slate.project_id == project_id])
        finally:
            self._claims = []
        return True

    def _fill(self, slates: list[SlateToSample]) -> None:
        """Fill slates of one project. A policy that cannot be used is reported, and the project tried again later."""
        project_id = slates[0].project_id
        if self._stopping.is_set():
            self._hand_back(slates)
            return
        self._heart.doing = f"sampling {len(slates)} slates of project {project_id}"
        try:
            policies = self._policies_of(slates[0].mixture)
            if self._is_too_large_for_now(slates[0].mixture):
                raise _WaitsForDevice
            requests = {slate.claim: self._request(slate, policies) for slate in slates}
            ready = [slate for slate in slates if isinstance(requests[slate.claim], SlateRequest)]
            engines = {version_id: (policy.engine, policy.decode) for version_id, policy in policies.items()}
            asked = [request for request in requests.values() if isinstance(request, SlateRequest)]
            filled = fill_slates(asked, engines, self._showing(ready))
        except Exception as error:  # one project's policy must not stop the others
            self._put_off(project_id, slates, error)
            return
        chosen = self._choose(ready, filled, policies)
        for slate, completions in zip(ready, filled, strict=True):
            self._store(slate, completions, policies, chosen.get(slate.claim))
        for slate in slates:
            refusal = requests[slate.claim]
            if isinstance(refusal, StageError):
                self._give_up(slate, refusal.message)
                sampler_metrics.SLATES.labels("given_up").inc()

    def _choose(
        self,
        slates: Sequence[SlateToSample],
        filled: Sequence[Sequence[SlateCompletion]],
        policies: dict[int, OpenPolicy],
    ) -> dict[SlateClaim, Asked]:
        """Which of the sampled slates to show, where an ensemble of reward models is asked; empty where none is.

        An ensemble that does not open stops nobody: as many slates are shown, as they come, and it is said.
        """
        candidates = [(slate, own) for slate, own in zip(slates, filled, strict=True) if len(own) >= slate.min_k]
        if not candidates or candidates[0][0].is_awaited:
            return {}
        with SessionFactory() as session:
            project = session.get_one(Project, candidates[0][0].project_id)
            ensemble = asking.ensemble_of(session, project)
        if ensemble is None:
            return {}
        count = max(1, round(len(candidates) / project.asking_candidates))
        try:
            doubts = self._models.ensemble(ensemble.id)
            disagreements = [
                doubts.on(slate.prompt_id, slate.messages, [written(completion, policies) for completion in own])
                for slate, own in candidates
            ]
        except Exception as error:
            is_named = isinstance(error, StageError | PodiumError)
            self.problem = f"project {project.id} asks at random: {error if is_named else repr(error)}"
            log.error("%s", self.problem, exc_info=None if is_named else error)
            return {slate.claim: Asked(None, None) for slate, _ in candidates[count:]}
        rng = Random(f"{project.seed}/{candidates[0][0].seed}")  # noqa: S311 - reproducible, not secret
        chosen = choose(disagreements, count, disagreement_share=project.disagreement_share, rng=rng)
        return {
            slate.claim: Asked(disagreements[number], AskedBy(chosen[number]) if number in chosen else None)
            for number, (slate, _) in enumerate(candidates)
        }

    def _showing(self, slates: list[SlateToSample]) -> OnFound | None:
        """What shows replies of conversations as they are finished. A batch is of conversations or of none.

        Where several sources write, the time at which a reply comes would tell which wrote it: they come together.
        """
        if not slates or not slates[0].is_awaited or len(slates[0].mixture) > 1:
            return None

        def show(number: int, text: str) -> None:
            with SessionFactory.begin() as session:
                conversation_replies.add_reply(session, slates[number].claim, text, RNG)

        return show

    def _policies_of(self, mixture: Sequence[MixtureEntry]) -> dict[int, OpenPolicy]:
        versions = {entry.version.id: entry.version for entry in mixture if entry.version is not None}
        return {id: self._models.policy(version) for id, version in versions.items()}

    def _is_too_large_for_now(self, mixture: Sequence[MixtureEntry]) -> bool:
        """Whether the GPU is a stage's just now and the policy is hopeless without one."""
        if not self._has_gpu or self._models.device == "cuda":
            return False
        sizes = [entry.version.num_parameters or 0 for entry in mixture if entry.version is not None]
        return max(sizes) > LARGEST_ON_CPU

    def _request(self, slate: SlateToSample, policies: dict[int, OpenPolicy]) -> SlateRequest | StageError:
        """The slate in tokens, or why its prompt cannot be sampled from."""
        try:
            prompt_ids = {
                version_id: encode_prompt(policy.tokenizer, slate.messages, max_tokens=room_for_prompt(slate, policy))
                for version_id, policy in policies.items()
            }
        except StageError as error:
            return error
        return SlateRequest(
            prompt_ids=prompt_ids,
            k=slate.k,
            seed=slate.seed,
            max_completion_tokens=slate.max_completion_tokens,
            sources=[
                Source(
                    engine=None if entry.version is None else entry.version.id,
                    weight=entry.weight,
                    temperature=entry.temperature,
                    top_p=entry.top_p,
                )
                for entry in slate.mixture
            ],
            demonstration=None if slate.demonstration is None else slate.demonstration[1],
        )

    def _store(
        self,
        slate: SlateToSample,
        completions: Sequence[SlateCompletion],
        policies: dict[int, OpenPolicy],
        asked: Asked | None,
    ) -> None:
        with about(slate=slate.claim.slate_id, prompt=slate.prompt_id):
            outcome = self._store_or_not(slate, completions, policies, asked)
        sampler_metrics.SLATES.labels(outcome).inc()
        if outcome == "stored":
            sampler_metrics.COMPLETIONS.inc(len(completions))
            sampler_metrics.TOKENS.inc(sum(len(each.sampled.token_ids) for each in completions if each.sampled))

    def _store_or_not(
        self,
        slate: SlateToSample,
        completions: Sequence[SlateCompletion],
        policies: dict[int, OpenPolicy],
        asked: Asked | None,
    ) -> str:
        """What became of the slate."""
        if len(completions) < slate.min_k:
            self._give_up(
                slate, f"the policy gave only {len(completions)} different completions; {slate.min_k} are needed"
            )
            return "given_up"
        with SessionFactory.begin() as session:
            now = clock(session)
            if asked is not None and asked.by is None:
                return "passed_over" if queue.pass_over(session, slate.claim, asked, now=now) else "lost"
            rows = [new_completion(slate, completion, policies) for completion in completions]
            if queue.store_completions(session, slate.claim, rows, now=now, asked=asked):
                conversation_replies.announce(session, slate.claim.slate_id)
                return "stored"
        log.info("slate=%s is not ours any more; its completions are dropped", slate.claim.slate_id)
        return "lost"

    def _give_up(self, slate: SlateToSample, reason: str) -> None:
        log.warning("prompt=%s is set aside: %s", slate.prompt_id, reason)
        with SessionFactory.begin() as session:
            queue.give_up(session, slate.claim, reason, now=clock(session))
            conversation_replies.announce(session, slate.claim.slate_id)

    def _put_off(self, project_id: int, slates: list[SlateToSample], error: Exception) -> None:
        """Hand the slates back and leave the project alone for a while; others go on."""
        is_named = isinstance(error, StageError | PodiumError | _WaitsForDevice)
        if not is_named:
            log.error("sampling for project=%s failed", project_id, exc_info=error)
        reason = getattr(error, "message", None) or (str(error) if is_named else f"{type(error).__name__}: {error}")
        self.problem = f"project {project_id} waits: {reason}"
        log.error("project=%s is put off for %s: %s", project_id, PAUSE_AFTER_FAILURE, reason)
        sampler_metrics.FAILURES.inc()
        self._hand_back(slates)
        with SessionFactory() as session:
            self._failing[project_id] = clock(session) + PAUSE_AFTER_FAILURE

    def _hand_back(self, slates: Sequence[SlateToSample]) -> None:
        with SessionFactory.begin() as session:
            queue.release_claims(session, [slate.claim for slate in slates])
        sampler_metrics.SLATES.labels("given_back").inc(len(slates))


class _WaitsForDevice(Exception):
    """The GPU is a stage's, and the policy is too large to sample from on the CPU."""

    message = "a stage has the GPU, and the policy is too large for the CPU; sampling goes on after it"


def room_for_prompt(slate: SlateToSample, policy: OpenPolicy) -> int:
    """Tokens that a prompt may have: the project's limit, and what the context leaves beside a completion."""
    if policy.context_tokens is None:
        return slate.max_prompt_tokens
    return min(slate.max_prompt_tokens, policy.context_tokens - slate.max_completion_tokens)


def new_completion(slate: SlateToSample, completion: SlateCompletion, policies: dict[int, OpenPolicy]) -> NewCompletion:
    """The completion as it is stored, with where it came from."""
    source, sampled = completion.source, completion.sampled
    if source.engine is None or sampled is None:
        assert slate.demonstration is not None
        return NewCompletion(
            text=storable(completion.text),
            source=CompletionSource.DEMONSTRATION,
            demonstration_id=slate.demonstration[0],
        )
    return NewCompletion(
        text=completion.text,
        source=CompletionSource.POLICY,
        policy_version_id=source.engine,
        seed=sampled.seed,
        temperature=source.temperature,
        top_p=source.top_p,
        finish_reason=sampled.finish_reason,
        logprob=sampled.logprob,
        token_ids=sampled.token_ids or None,
        tokenizer_sha256=policies[source.engine].tokenizer_sha256 if sampled.token_ids else None,
    )


def written(completion: SlateCompletion, policies: dict[int, OpenPolicy]) -> Written:
    """A completion as a reward model reads it: the ids that were sampled, where there are any."""
    if completion.sampled is None or completion.source.engine is None:
        return Written(text=completion.text)
    return Written(
        text=completion.text,
        token_ids=completion.sampled.token_ids,
        tokenizer_sha256=policies[completion.source.engine].tokenizer_sha256,
        finish_reason=completion.sampled.finish_reason,
    )

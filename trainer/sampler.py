"""The sampler: answers what the web asks of a model, and keeps every active project's queue of slates filled.

One of the two modules here that touch the database; what is done with models lies in the modules it calls. A claim is
committed before the model runs, no transaction is open meanwhile, and completions are stored only under a claim that
still holds: a sampler that is killed loses nothing but its time.
"""

import logging
import logging.config
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from random import Random, SystemRandom
from types import FrameType
from typing import Any

import torch
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session
from transformers.utils import logging as transformers_logging

from app import terminal
from app.artifact_errors import ArtifactError
from app.artifacts import open_store
from app.db import SAMPLER_CHANNEL, SessionFactory, clock
from app.errors import PodiumError
from app.labeling import asking, conversation_replies, queue
from app.labeling.asking import Asked
from app.labeling.models import AskedBy, CompletionSource
from app.labeling.queue import MixtureEntry, NewCompletion, SlateClaim, SlateToSample
from app.monitoring import logs, sampler_metrics
from app.monitoring.listener import listening
from app.monitoring.logs import about
from app.policies.models import PolicyVersion, RewardModelVersion
from app.policies.service import ModelFiles, policy_files, reward_model_files
from app.projects.models import Project
from app.rounds import devices, model_requests
from app.rounds.heart import Heart, new_owner
from app.rounds.model_requests import RequestClaim
from app.rounds.models import ModelRequestKind
from app.settings import Settings, get_settings
from app.supervision import end_with_parent, leave_at_latest
from app.terminal import CannotStart
from app.wakeups import Wakeups
from trainer import answers
from trainer.asking import choose
from trainer.completions_server import SLATES, CompletionsServer
from trainer.devices import available_device
from trainer.errors import StageError
from trainer.inspect_policy import inspect_policy
from trainer.models import RewardModel
from trainer.open_models import OpenModels, OpenPolicy
from trainer.prompting import encode_prompt, storable
from trainer.slates import OnFound, SlateCompletion, SlateRequest, Source, fill_slates
from trainer.stage_data import Written

log = logging.getLogger("trainer.sampler")  # also where it is run as __main__

CLAIM_DURATION = timedelta(seconds=60)  # renewed with every heartbeat
SLATES_PER_BATCH = 8  # a request of the web waits for one batch at most
POLL_S = 2.0
RETRY_S = 1.0
STOP_TIMEOUT_S = 20.0  # for the batch at hand; what is not finished by then is given back
PAUSE_AFTER_FAILURE = timedelta(seconds=30)
NICENESS = 5  # a labeler's request comes before the next slate
RNG = SystemRandom()  # places of replies on the page must not be foreseeable
LARGEST_ON_CPU = 1_000_000_000  # parameters; a larger policy waits while a stage has the GPU


class Sampler:
    """The process's state: which models are open, what is claimed, which projects wait for a better time."""

    def __init__(self, settings: Settings, wakeups: Wakeups) -> None:
        self.settings = settings
        self.store = open_store(settings)
        self.wakeups = wakeups
        self.owner = new_owner("sampler")
        self.stopping = threading.Event()
        self.heart = Heart(self.owner, "sampler", renew=self._renew)
        self.server = completions_server(settings)
        on_gpu = self.server is None and available_device(settings.device) == "cuda"
        self.gpu = f"{socket.gethostname()}/cuda:0" if on_gpu else None
        self.models = OpenModels(self._path_of, self.server)
        self.claims: list[SlateClaim] = []
        self.request: RequestClaim | None = None
        self.failing: dict[int, datetime] = {}  # project id -> when to try again
        self.problem = ""  # why, for the heartbeat

    def run(self) -> None:
        """Until told to stop. Survives a database that goes away and comes back."""
        self.heart.start()
        log.info("%s keeps queues filled, engine=%s", self.owner, self.settings.engine)
        while not self.stopping.is_set():
            try:
                is_busy = self.step()
            except DBAPIError as error:
                if not isinstance(error, OperationalError) and not error.connection_invalidated:
                    raise
                log.warning("the database went away, trying again in %s s: %s", RETRY_S, first_line(error))
                self.stopping.wait(RETRY_S)
                continue
            if not is_busy:
                self.wakeups.wait(POLL_S)
        self._let_go()
        self.heart.stop()
        log.info("%s has ended", self.owner)
        if self.server is not None:
            self.server.close()

    def stop(self) -> None:
        """Finish the batch at hand and end."""
        self.stopping.set()
        self.wakeups.wake()

    def give_back(self) -> None:
        """Release all that is claimed, from another thread, in the middle of a batch: nobody waits for deadlines."""
        claims, request = list(self.claims), self.request
        with SessionFactory.begin() as session:
            queue.release_claims(session, claims)
            if request is not None:
                model_requests.release(session, request)
        log.warning("given back: slates=%s requests=%s", len(claims), int(request is not None))
        self._let_go()
        self.heart.stop()

    def step(self) -> bool:
        """Answer what is asked, then fill one batch of slates; whether there was anything to do."""
        self._choose_device()
        answered = self.answer_requests()
        self.plan()
        filled = self.fill_batch()
        return answered or filled

    def plan(self) -> None:
        """Bring the queue of every active project up to its target."""
        with SessionFactory.begin() as session:
            projects = session.scalars(select(Project).where(Project.paused_at.is_(None)).order_by(Project.id)).all()
            now = clock(session)
            for project in projects:
                queue.plan_slates(session, project, now=now)

    def fill_batch(self) -> bool:
        """Claim some slates, sample their completions, store them; whether there were any."""
        with SessionFactory.begin() as session:
            now = clock(session)
            self.failing = {project: until for project, until in self.failing.items() if until > now}
            slates = queue.claim_slates(
                session,
                owner=self.owner,
                limit=SLATES_PER_BATCH,
                duration=CLAIM_DURATION,
                now=now,
                except_projects=list(self.failing),
            )
        if not slates:
            self.heart.doing = self.problem if self.failing else "waiting: every queue is full"
            return False
        self.claims = [slate.claim for slate in slates]
        sampler_metrics.CLAIMS.inc(len(slates))
        try:
            with sampler_metrics.BATCH_SECONDS.time():
                for project_id in dict.fromkeys(slate.project_id for slate in slates):
                    with about(project=project_id):
                        self._fill([slate for slate in slates if slate.project_id == project_id])
        finally:
            self.claims = []
        return True

    def _fill(self, slates: list[SlateToSample]) -> None:
        """Fill slates of one project. A policy that cannot be used is reported, and the project tried again later."""
        project_id = slates[0].project_id
        if self.stopping.is_set():
            self._hand_back(slates)
            return
        self.heart.doing = f"sampling {len(slates)} slates of project {project_id}"
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
            doubts = self.models.ensembles.get(self._reward_model_files(ensemble.id))
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
        return {id: self.models.policies.get(policy_files(self.settings, version)) for id, version in versions.items()}

    def _is_too_large_for_now(self, mixture: Sequence[MixtureEntry]) -> bool:
        """Whether the GPU is a stage's just now and the policy is hopeless without one."""
        if self.gpu is None or self.models.device == "cuda":
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
            self.failing[project_id] = clock(session) + PAUSE_AFTER_FAILURE

    def _hand_back(self, slates: Sequence[SlateToSample]) -> None:
        with SessionFactory.begin() as session:
            queue.release_claims(session, [slate.claim for slate in slates])
        sampler_metrics.SLATES.labels("given_back").inc(len(slates))

    def answer_requests(self) -> bool:
        """Answer all that the web asks now; whether there was anything."""
        answered = False
        while not self.stopping.is_set():
            with SessionFactory.begin() as session:
                claim = model_requests.claim_request(
                    session, owner=self.owner, duration=CLAIM_DURATION, now=clock(session)
                )
            if claim is None:
                return answered
            self.heart.doing = f"answering a request: {claim.kind.value}"
            self.request = claim
            try:
                with about(request=claim.request_id):
                    self._answer(claim)
            finally:
                self.request = None
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

    def _reward_model_of(self, input: dict[str, Any]) -> RewardModel:
        return self.models.reward_models.get(self._reward_model_files(input["reward_model_version_id"]))

    def _reward_model_files(self, version_id: int) -> ModelFiles:
        with SessionFactory() as session:
            return reward_model_files(session, self.settings, session.get_one(RewardModelVersion, version_id))

    def _policy_of(self, input: dict[str, Any]) -> OpenPolicy:
        with SessionFactory() as session:
            version = session.get_one(PolicyVersion, input["policy_version_id"])
        return self.models.policies.get(policy_files(self.settings, version))

    def _path_of(self, files: ModelFiles) -> str:
        """Where the files are on this machine, fetched if they were made on another. Raises ModelNotFetched."""
        if self.store is not None:
            try:
                for folder, manifest_sha256 in files.results.items():
                    self.store.fetch(folder, manifest_sha256=manifest_sha256)
            except ArtifactError as error:
                raise ModelNotFetched(error) from error
        return files.path

    def _choose_device(self) -> None:
        """On the GPU while no stage wants it; a stage that does gets it once the queues are full."""
        if self.gpu is None:
            return
        with SessionFactory.begin() as session:
            now = clock(session)
            has_it = self.models.device == "cuda"
            if has_it and devices.is_wanted(session, self.gpu, now=now) and queue.is_filled(session):
                devices.release(session, self.gpu, self.owner, now=now)
                held = False
            elif has_it:
                held = devices.keep(session, self.gpu, self.owner, duration=CLAIM_DURATION, now=now)
            else:
                held = devices.hold_for_sampling(session, self.gpu, self.owner, duration=CLAIM_DURATION, now=now)
        self.models.move_to("cuda" if held else "cpu")

    def _let_go(self) -> None:
        if self.gpu is not None:
            with SessionFactory.begin() as session:
                devices.release(session, self.gpu, self.owner, now=clock(session))

    def _renew(self, session: Session, now: datetime) -> None:
        """Part of each heartbeat, in its thread: what is being worked on stays claimed."""
        queue.renew_claims(session, list(self.claims), duration=CLAIM_DURATION, now=now)
        if self.gpu is not None and self.models.device == "cuda":
            devices.keep(session, self.gpu, self.owner, duration=CLAIM_DURATION, now=now)


def completions_server(settings: Settings) -> CompletionsServer | None:
    """The server that samples; None where this process does. Raises EngineNotNamed."""
    if settings.engine == "local":
        return None
    if not settings.engine_url:
        raise EngineNotNamed()
    key = None if settings.engine_key is None else settings.engine_key.get_secret_value()
    return CompletionsServer(settings.engine_url, key, SLATES)


class EngineNotNamed(StageError):
    """The completions server has no address."""

    code = "engine_not_named"

    def __init__(self) -> None:
        super().__init__(
            "PODIUM_ENGINE is openai, and PODIUM_ENGINE_URL names no server", advice="set PODIUM_ENGINE_URL"
        )


class ModelNotFetched(StageError):
    """A model that was made elsewhere cannot be had from the artifact store."""

    code = "model_not_fetched"

    def __init__(self, error: ArtifactError) -> None:
        super().__init__(error.message, advice=error.advice)


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


def first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0]


def main() -> None:
    """Run a sampler against DATABASE_URL until SIGTERM or Ctrl-C."""
    settings = get_settings()
    logging.config.dictConfig(logs.configuration(settings, "sampler"))
    transformers_logging.disable_progress_bar()
    os.nice(NICENESS)
    torch.set_num_threads(settings.threads or os.cpu_count() or 1)
    try:
        available_device(settings.device)
        engine = terminal.reach_migrated(settings, application="podium-sampler")
        completions_server(settings)
        if store := open_store(settings):
            store.check(writes=False)
    except (CannotStart, StageError, ArtifactError) as error:
        terminal.refuse(str(error), exit_code=terminal.USAGE)
    sampler = Sampler(settings, Wakeups(engine, (SAMPLER_CHANNEL,)))

    def stop(signum: int, frame: FrameType | None) -> None:
        if not sampler.stopping.is_set():
            leave_at_latest(STOP_TIMEOUT_S, sampler.give_back)
        sampler.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    end_with_parent()
    try:
        with listening(
            settings.sampler_listen, settings.metrics_token, sampler_metrics.REGISTRY, lambda: sampler.heart.is_beating
        ):
            sampler.run()
    except CannotStart as error:
        terminal.refuse(str(error), exit_code=terminal.USAGE)
    sampler.wakeups.close()
    engine.dispose()
    sys.exit(0)


if __name__ == "__main__":
    main()

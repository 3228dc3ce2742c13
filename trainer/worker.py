"""The trainer's worker: claims one stage at a time, writes its folder, runs its recipe, registers the result.

One of the modules here that touch the database. A recipe is a process of its own, and its crash is an event to
report. The claim (attempt, owner, deadline) is committed before work starts and renewed by a heartbeat; a worker that
is killed leaves a recipe that dies by its pipe, and another worker goes on from the last checkpoint.
"""

import logging
import logging.config
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from types import FrameType
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from app import terminal
from app.artifact_errors import ArtifactError, StoreUnreachable
from app.artifacts import Wait, open_store
from app.db import TRAINER_CHANNEL, SessionFactory, clock
from app.errors import PodiumError
from app.monitoring import logs, trainer_metrics
from app.monitoring.failures import last_lines_of
from app.monitoring.listener import listening
from app.monitoring.logs import about, say_about
from app.reward_models.claims import EvaluationClaimLost
from app.rounds import claims, devices, results, rules
from app.rounds.claims import ClaimLost, StageClaim
from app.rounds.heart import BEAT_S, Heart, new_owner
from app.rounds.inputs import MissingParent, StageInputs, record_versions, stage_inputs
from app.rounds.models import Phase
from app.rounds.stage_copies import StageCopies
from app.settings import Settings, get_settings
from app.supervision import end_with_parent, leave_at_latest
from app.terminal import CannotStart
from app.wakeups import Wakeups
from trainer.database_away import Stopping
from trainer.devices import available_device, memory_gb
from trainer.errors import StageError
from trainer.recipe_process import (
    EXIT_LOCKED,
    Positions,
    RecipeProcess,
    Tail,
    explain,
    is_worth_another_try,
)
from trainer.reward_evaluations import EvaluationRunner, Hands
from trainer.round_folder import (
    RoundFolder,
)
from trainer.stage_folder import read_stage_result, stage_file, take_over
from trainer.stage_tables import write_data

log = logging.getLogger("trainer.worker")  # also where it is run as __main__

CLAIM_DURATION = timedelta(seconds=30)  # renewed with every heartbeat
POLL_S = 2.0
FOLLOW_S = 0.3  # between two looks at what a recipe wrote
RETRY_S = 1.0
LOOK_AT_RULES_S = 10.0
STORE_RETRY_S = 5.0
STORE_BACK_S = 60.0  # without trouble for so long, the store had been back
STORE_PATIENCE_S = 600.0  # how long the artifact store may be away before a stage fails; its work is kept
STOP_TIMEOUT_S = 100.0  # a recipe saves at the border of a step
LEAVE_TIMEOUT_S = STOP_TIMEOUT_S + 20.0  # whatever it is in the middle of, what it holds is free by then
MAX_KILLS = 3  # by signals, within one claim; after that the stage fails and says so

STOPPED = "The trainer was stopped; the stage goes on from its last checkpoint."

Answer = TypeVar("Answer")


class Worker:
    """The process's state: what it holds, and what it was told."""

    def __init__(
        self,
        settings: Settings,
        wakeups: Wakeups,
        *,
        claim_duration: timedelta = CLAIM_DURATION,
        beat_s: float = BEAT_S,
    ) -> None:
        self.settings = settings
        self.store = open_store(settings)
        self.wakeups = wakeups
        self.owner = new_owner("trainer")
        self.claim_duration = claim_duration
        self.stopping = threading.Event()
        self.device = available_device(settings.device)
        self.heart = Heart(
            self.owner,
            "trainer",
            renew=self._renew,
            beat_s=beat_s,
            device=self.device,
            memory_gb=memory_gb(self.device),
        )
        self.gpu = f"{socket.gethostname()}/cuda:0" if self.device == "cuda" else None
        self.rules_looked_at = -math.inf
        self.claim: StageClaim | None = None
        self.recipe = self.outcome = ""  # of the claim: for the metrics
        self.is_cancelled = False
        self.is_lost = False
        hands = Hands(
            settings=settings,
            store=self.store,
            wakeups=wakeups,
            owner=self.owner,
            heart=self.heart,
            stopping=self.stopping,
            device=self.device,
            gpu=self.gpu,
            claim_duration=claim_duration,
        )
        self.evaluations = EvaluationRunner(hands, self._transact)

    def run(self) -> None:
        """Until told to stop. Survives a database that goes away and comes back."""
        self.heart.start()
        log.info("%s waits for stages, device=%s", self.owner, self.device)
        try:
            while not self.stopping.is_set():
                self._look_at_rules()
                if not self.step():
                    self.heart.doing = "waiting for a stage"
                    self.wakeups.wait(POLL_S)
        except Stopping:
            log.warning("stopping while the database is away; what was claimed is free after its deadline")
        self.heart.stop()
        log.info("%s has ended", self.owner)

    def stop(self) -> None:
        """Let the recipe save a checkpoint, put its stage back into the queue, and end."""
        self.stopping.set()
        self.wakeups.wake()

    def give_back(self) -> None:
        """Release what is claimed, from another thread, in the middle of it: nobody waits for the deadline.

        What cannot be given back, or is somebody else's by now, keeps nothing else: the device least of all.
        """
        for release in (self._give_back_stage, self.evaluations.give_back, self._release_device, self.heart.stop):
            try:
                release()
            except (ClaimLost, EvaluationClaimLost) as lost:
                log.warning("%s; giving back what else is held", lost)
            except Exception:
                log.exception("not given back; it is free after its deadline")

    def _give_back_stage(self) -> None:
        claim = self.claim
        if claim is not None:
            with SessionFactory.begin() as session:
                claims.release_stage(session, claim, STOPPED)
            log.warning("stage=%s attempt=%s is given back", claim.stage_id, claim.attempt)

    def _look_at_rules(self) -> None:
        """Start what projects' rules have due, every now and then: while nothing runs, and while something does."""
        if time.monotonic() < self.rules_looked_at + LOOK_AT_RULES_S:
            return
        self.rules_looked_at = time.monotonic()
        try:
            self._transact(lambda session: rules.start_due_round(session, now=clock(session)))
        except Stopping:
            raise
        except Exception:
            log.exception("a rule could not be looked at; looking again in %s s", LOOK_AT_RULES_S)

    def step(self) -> bool:
        """Run one stage, or else one evaluation of a reward model, if one waits; whether one did."""
        self.is_cancelled = self.is_lost = False
        claim = self._transact(self._claim)
        if claim is None:
            return self.evaluations.step()
        self.claim, self.recipe, self.outcome = claim, "unknown", "lost"
        begun_at = time.monotonic()
        trainer_metrics.IS_BUSY.set(1)
        with about(stage=claim.stage_id, attempt=claim.attempt):
            log.info("stage=%s attempt=%s claimed", claim.stage_id, claim.attempt)
            try:
                self._run_stage(claim)
            except ClaimLost as lost:
                log.warning("%s; going on with what is next", lost)
            finally:
                self.claim = None
                trainer_metrics.IS_BUSY.set(0)
                trainer_metrics.STAGES.labels(self.recipe, self.outcome).inc()
                trainer_metrics.STAGE_SECONDS.labels(self.recipe).inc(time.monotonic() - begun_at)
                self._release_device()
        return True

    def _claim(self, session: Session) -> StageClaim | None:
        now = clock(session)
        claims.end_cancelled(session, now=now)
        return claims.claim_stage(session, owner=self.owner, duration=self.claim_duration, now=now)

    def _run_stage(self, claim: StageClaim) -> None:
        try:
            inputs = self._transact(lambda session: stage_inputs(session, self.settings, claim))
            self.heart.doing = f"round {inputs.round_number}, stage {inputs.recipe.value}"
            self.recipe = inputs.recipe.value
            say_about(project=inputs.project_id, round=inputs.round_number, recipe=self.recipe)
            folder = RoundFolder(self.settings.artifacts / inputs.folder)
            copies = StageCopies(self.store, inputs.folder, claim.attempt, wait=self._waiting_for_store(claim))
            copies.fetch_models(inputs.results)
            copies.bring(seed=inputs.seed, snapshot_sha256=inputs.snapshot_sha256)
            self._write_folder(claim, inputs, folder)
            copies.send_inputs()
            if not self._wait_for_device(claim):
                return
            self._enter(claim, Phase.COMPUTING, "The recipe starts.")
            with copies:
                if not self._run_recipe(claim, inputs, folder, copies):
                    return
            self._enter(claim, Phase.STORING, "The recipe has ended; its result is checked and stored.")
            stored = read_stage_result(inputs.recipe, folder)
            copies.send_result()
            result = self._transact(lambda session: results.with_report(session, claim, stored))
        except StageError as error:
            self._fail(claim, {"code": error.code, "message": error.message, "advice": error.advice, "last_lines": ""})
            return
        except ArtifactError as error:
            self._end_without_store(claim, error)
            return
        except MissingParent as error:
            self._fail(claim, missing_parent(error))
            return
        except PodiumError as error:  # of a version whose weights are gone, in words
            self._fail(claim, refused(error))
            return
        except (ClaimLost, Stopping):
            raise
        except Exception as error:  # a stage that cannot be run must not take the worker with it, again and again
            log.exception("stage=%s attempt=%s cannot be run; it is failed", claim.stage_id, claim.attempt)
            self._fail(claim, unforeseen(error))
            return
        self._transact(lambda session: results.complete_stage(session, claim, result, now=clock(session)))
        self.outcome = "succeeded"
        log.info("stage=%s attempt=%s succeeded", claim.stage_id, claim.attempt)

    def _fail(self, claim: StageClaim, error: dict[str, Any]) -> None:
        log.error("stage=%s attempt=%s failed: %s", claim.stage_id, claim.attempt, error["message"])
        self._transact(lambda session: claims.fail_stage(session, claim, error, now=clock(session)))
        self.outcome = "failed"

    def _put_back(self, claim: StageClaim) -> None:
        self._transact(lambda session: claims.release_stage(session, claim, STOPPED))
        self.outcome = "put_back"
        log.info("stage=%s attempt=%s put back: it goes on from its last checkpoint", claim.stage_id, claim.attempt)

    def _cancel(self, claim: StageClaim) -> None:
        self._transact(lambda session: claims.cancel_stage(session, claim, now=clock(session)))
        self.outcome = "cancelled"
        log.info("stage=%s attempt=%s cancelled", claim.stage_id, claim.attempt)

    def _enter(self, claim: StageClaim, phase: Phase, story: str) -> None:
        self._transact(lambda session: claims.report(session, claim, story, phase))

    # The store

    def _waiting_for_store(self, claim: StageClaim) -> Wait:
        """What a stage does while the store is away: says so, and tries again until somebody has had enough."""
        away_since = last_told = -math.inf

        def wait(problem: StoreUnreachable) -> None:
            nonlocal away_since, last_told
            now = time.monotonic()
            if now - last_told > STORE_BACK_S:
                away_since = now
                story = f"{problem.message}; trying again."
                self._transact(lambda session: claims.report(session, claim, story))
            last_told = now
            if self.is_lost:
                raise ClaimLost(claim)
            if self.is_cancelled or self.stopping.is_set() or now - away_since > STORE_PATIENCE_S:
                raise problem
            self.stopping.wait(STORE_RETRY_S)

        return wait

    def _end_without_store(self, claim: StageClaim, error: ArtifactError) -> None:
        """The stage cannot go on without what the store has, or cannot leave its result there."""
        if self.is_cancelled:
            self._cancel(claim)
        elif self.stopping.is_set():
            self._put_back(claim)
        else:
            self._fail(claim, {"code": error.code, "message": error.message, "advice": error.advice, "last_lines": ""})

    # The folder

    def _write_folder(self, claim: StageClaim, inputs: StageInputs, folder: RoundFolder) -> None:
        """Write the recipe's inputs, stage.json last. A folder that has it is whole: an earlier attempt wrote it."""
        if (folder.path / "stage.json").exists():
            if story := take_over(folder, inputs, device=self.device):
                self._transact(lambda session: claims.report(session, claim, story))
            return
        folder.path.mkdir(parents=True, exist_ok=True)
        inputs_at, notes = self._transact(
            lambda session: (clock(session), write_data(session, inputs, folder, self.settings))
        )
        stage = stage_file(inputs, device=self.device, num_threads=self.settings.threads or os.cpu_count() or 1)
        folder.write_stage(stage)
        # What the same bits need beside the settings and the seed.
        surroundings = {"device": stage.device, "threads": stage.num_threads, "data_sha256": folder.data_sha256()}
        versions = {"code": stage.code_version, **stage.library_versions, **surroundings}
        versions["inputs_at"] = inputs_at.isoformat()

        def describe(session: Session) -> None:
            record_versions(session, claim, versions)
            for note in notes:
                claims.report(session, claim, note)

        self._transact(describe)

    # The recipe

    def _run_recipe(self, claim: StageClaim, inputs: StageInputs, folder: RoundFolder, copies: StageCopies) -> bool:
        """Run the recipe to its end, through kills; whether there is a result. All other ends are written down."""
        num_kills = 0
        if folder.is_finished:  # under a claim that was lost: not all that it measured need have been relayed
            metrics, samples = tails_of(folder)
            self._relay(claim, metrics.read(), Positions().number(samples.read()))
        while not folder.is_finished:
            ids = f"round={inputs.round_number} stage={claim.stage_id} attempt={claim.attempt}"
            recipe = RecipeProcess(inputs.recipe.value, folder, ids=ids)
            try:
                status = self._follow(claim, recipe, folder, copies)
            finally:
                recipe.kill()  # nothing that goes wrong here leaves a recipe behind
                recipe.close()
            if status == 0:
                continue
            copies.catch_up()  # before the claim is let go: whoever takes it goes on from here
            if self.is_cancelled:
                self._cancel(claim)
                return False
            if self.stopping.is_set():
                self._put_back(claim)
                return False
            if status == EXIT_LOCKED:  # the recipe of an earlier attempt is still on its way out
                self.stopping.wait(RETRY_S)
                continue
            num_kills += 1
            if not is_worth_another_try(status) or num_kills > MAX_KILLS:
                self._fail(claim, explain(status, folder, recipe.last_lines()))
                return False
            trainer_metrics.KILLS.labels(self.recipe).inc()
            story = f"The recipe was killed ({status}); it goes on from its last checkpoint."
            self._transact(lambda session, story=story: claims.report(session, claim, story))  # type: ignore[misc]
        return True

    def _follow(self, claim: StageClaim, recipe: RecipeProcess, folder: RoundFolder, copies: StageCopies) -> int:
        """Relay what the recipe measures until it ends; its exit status. Raises ClaimLost, having killed it."""
        metrics, samples = tails_of(folder)
        positions = Positions()
        asked_at: float | None = None
        waited = 0.0
        while True:
            status = recipe.poll()  # before reading: what it wrote last is read after its end
            new_metrics, new_samples = metrics.read(), positions.number(samples.read())
            if new_metrics or new_samples:
                self._relay(claim, new_metrics, new_samples)
            copies.look()
            if self.is_lost:
                recipe.kill()
                raise ClaimLost(claim)
            if status is not None:
                return status
            if (self.stopping.is_set() or self.is_cancelled) and asked_at is None:
                recipe.ask_to_stop()
                asked_at = waited
            if asked_at is not None and waited - asked_at > STOP_TIMEOUT_S:
                recipe.kill()
            if self.wakeups.wait(FOLLOW_S):
                self._look_at_claim()
            self._look_at_rules()
            waited += FOLLOW_S

    def _relay(self, claim: StageClaim, metrics: list[dict[str, Any]], samples: list[dict[str, Any]]) -> None:
        def store(session: Session) -> None:
            results.record_metrics(session, claim, metrics)
            results.record_samples(session, claim, samples)

        self._transact(store)
        trainer_metrics.STEPS.labels(self.recipe).inc(len(metrics))
        trainer_metrics.SAMPLES.labels(self.recipe).inc(len(samples))

    # The claim

    def _renew(self, session: Session, now: datetime) -> None:
        """Part of each heartbeat, in its thread."""
        self.evaluations.renew(session, now)
        claim = self.claim
        if claim is None:
            return
        try:
            self.is_cancelled = claims.renew_stage(session, claim, duration=self.claim_duration, now=now)
        except ClaimLost:
            self.is_lost = self.claim is claim  # it may have been completed a moment ago
            return
        if self.gpu is not None:
            devices.keep(session, self.gpu, self.owner, duration=self.claim_duration, now=now)

    def _look_at_claim(self) -> None:
        """Somebody called: it may be to cancel."""
        self._transact(lambda session: self._renew(session, clock(session)))

    def _wait_for_device(self, claim: StageClaim) -> bool:
        """Hold the GPU, once whoever has it lets go; False if the wait was ended."""
        is_told = False
        while self.gpu is not None:
            gpu = self.gpu

            def hold(session: Session, gpu: str = gpu) -> bool:
                return devices.hold_for_stage(
                    session, gpu, self.owner, claim.stage_id, duration=self.claim_duration, now=clock(session)
                )

            if self._transact(hold):
                return True
            if self.is_lost:
                raise ClaimLost(claim)
            if self.is_cancelled:
                self._cancel(claim)
                return False
            if self.stopping.is_set():
                self._put_back(claim)
                return False
            if not is_told:
                self._transact(
                    lambda session: claims.report(session, claim, "Waits for the GPU.", Phase.WAITING_FOR_DEVICE)
                )
                is_told = True
            self.wakeups.wait(RETRY_S)
        return True

    def _release_device(self) -> None:
        gpu = self.gpu
        if gpu is not None:
            self._transact(lambda session: devices.release(session, gpu, self.owner, now=clock(session)))

    def _transact(self, action: Callable[[Session], Answer]) -> Answer:
        """Run the action in a transaction; again from its start whenever the database goes away meanwhile.

        Raises Stopping if the worker is to stop before the database is back.
        """
        while True:
            try:
                with SessionFactory.begin() as session:
                    return action(session)
            except DBAPIError as error:
                if not isinstance(error, OperationalError) and not error.connection_invalidated:
                    raise
                first_line = str(error.orig).strip().splitlines()[0]
                log.warning("the database went away, trying again in %s s: %s", RETRY_S, first_line)
            if self.stopping.wait(RETRY_S):
                raise Stopping


def tails_of(folder: RoundFolder) -> tuple[Tail, Tail]:
    """Where a recipe writes what it measures, and what the policy writes meanwhile; both from their start."""
    return Tail(folder.path / "metrics.jsonl"), Tail(folder.path / "samples.jsonl")


def missing_parent(error: MissingParent) -> dict[str, Any]:
    message, _, advice = str(error).partition(": ")
    return {"code": error.code, "message": message, "advice": advice, "last_lines": ""}


def refused(error: PodiumError) -> dict[str, Any]:
    advice = "resume the round once that is mended; what was done is kept"
    return {"code": error.code, "message": str(error), "advice": advice, "last_lines": ""}


def unforeseen(error: Exception) -> dict[str, Any]:
    return {
        "code": "unforeseen",
        "message": f"the trainer could not run the stage ({type(error).__name__})",
        "advice": "look at the last lines and at the trainer's log; resume the round once their cause is gone",
        "last_lines": last_lines_of(error).replace("\x00", ""),
    }


def main() -> None:
    """Run a worker against DATABASE_URL until SIGTERM or Ctrl-C."""
    settings = get_settings()
    logging.config.dictConfig(logs.configuration(settings, "trainer"))
    try:
        available_device(settings.device)
        engine = terminal.reach_migrated(settings, application="podium-trainer")
        if store := open_store(settings):
            store.check(writes=True)
    except (CannotStart, StageError, ArtifactError) as error:
        terminal.refuse(str(error), exit_code=terminal.USAGE)
    worker = Worker(settings, Wakeups(engine, (TRAINER_CHANNEL,)))

    def stop(signum: int, frame: FrameType | None) -> None:
        if not worker.stopping.is_set():
            leave_at_latest(LEAVE_TIMEOUT_S, worker.give_back)
        worker.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    end_with_parent()
    try:
        with listening(
            settings.trainer_listen, settings.metrics_token, trainer_metrics.REGISTRY, lambda: worker.heart.is_beating
        ):
            worker.run()
    except CannotStart as error:
        terminal.refuse(str(error), exit_code=terminal.USAGE)
    worker.wakeups.close()
    engine.dispose()
    sys.exit(0)


if __name__ == "__main__":
    main()

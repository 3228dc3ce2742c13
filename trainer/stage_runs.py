"""Stages of rounds, run by a trainer one at a time: the folder is written, the recipe run, the result registered.

One of the modules here that touch the database. A recipe is a process of its own, and its crash is an event to
report. The claim (attempt, owner, deadline) is committed before work starts; a worker that is killed leaves a recipe
that dies by its pipe, and another worker goes on from the last checkpoint.
"""

import logging
import math
import os
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from app.artifact_errors import ArtifactError, StoreUnreachable
from app.artifacts import Wait
from app.db import SessionFactory, clock
from app.errors import PodiumError
from app.monitoring import trainer_metrics
from app.monitoring.failures import last_lines_of
from app.monitoring.logs import about, say_about
from app.rounds import claims, devices, results
from app.rounds.claims import ClaimLost, StageClaim
from app.rounds.inputs import MissingParent, StageInputs, record_versions, stage_inputs
from app.rounds.models import Phase
from app.rounds.stage_copies import StageCopies
from trainer.database_away import Stopping
from trainer.errors import StageError
from trainer.hands import Hands
from trainer.recipe_process import EXIT_LOCKED, Positions, RecipeProcess, Tail, explain, is_worth_another_try
from trainer.round_folder import RoundFolder
from trainer.stage_folder import read_stage_result, stage_file, take_over
from trainer.stage_tables import write_data

log = logging.getLogger(__name__)

FOLLOW_S = 0.3  # between two looks at what a recipe wrote
RETRY_S = 1.0  # while another has the device, or the folder
STORE_RETRY_S = 5.0
STORE_BACK_S = 60.0  # without trouble for so long, the store had been back
STORE_PATIENCE_S = 600.0  # how long the artifact store may be away before a stage fails; its work is kept
STOP_TIMEOUT_S = 100.0  # a recipe saves at the border of a step
MAX_KILLS = 3  # by signals, within one claim; after that the stage fails and says so

STOPPED = "The trainer was stopped; the stage goes on from its last checkpoint."


class StageRunner:
    """Runs stages for a worker, whose heartbeat renews what it holds."""

    def __init__(self, hands: Hands, meanwhile: Callable[[], None]) -> None:
        """meanwhile: what the worker does every now and then while a recipe runs."""
        self.hands = hands
        self._transact, self._meanwhile = hands.transact, meanwhile
        self.claim: StageClaim | None = None
        self.recipe = self.outcome = ""  # of the claim: for the metrics
        self.is_cancelled = self.is_lost = False

    def renew(self, session: Session, now: datetime) -> None:
        """Part of each heartbeat, in its thread."""
        claim = self.claim
        if claim is None:
            return
        try:
            self.is_cancelled = claims.renew_stage(session, claim, duration=self.hands.claim_duration, now=now)
        except ClaimLost:
            self.is_lost = self.claim is claim  # it may have been completed a moment ago
            return
        self.hands.keep_device(session, now)

    def give_back(self) -> None:
        """Release what is claimed, from another thread, in the middle of it."""
        claim = self.claim
        if claim is not None:
            with SessionFactory.begin() as session:
                claims.release_stage(session, claim, STOPPED)
            log.warning("stage=%s attempt=%s is given back", claim.stage_id, claim.attempt)

    def step(self) -> bool:
        """Run one stage, if one waits; whether one did."""
        self.is_cancelled = self.is_lost = False
        claim = self._transact(self._claim)
        if claim is None:
            return False
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
                self.hands.release_device()
        return True

    def _claim(self, session: Session) -> StageClaim | None:
        now = clock(session)
        claims.end_cancelled(session, now=now)
        return claims.claim_stage(session, owner=self.hands.owner, duration=self.hands.claim_duration, now=now)

    def _run_stage(self, claim: StageClaim) -> None:
        try:
            inputs = self._transact(lambda session: stage_inputs(session, self.hands.settings, claim))
            self.hands.heart.doing = f"round {inputs.round_number}, stage {inputs.recipe.value}"
            self.recipe = inputs.recipe.value
            say_about(project=inputs.project_id, round=inputs.round_number, recipe=self.recipe)
            folder = RoundFolder(self.hands.settings.artifacts / inputs.folder)
            copies = StageCopies(self.hands.store, inputs.folder, claim.attempt, wait=self._waiting_for_store(claim))
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

    def _has_ended_as_asked(self, claim: StageClaim) -> bool:
        """Whether somebody asked for the end: it was cancelled, or is put back as the worker stops."""
        if self.is_cancelled:
            self._transact(lambda session: claims.cancel_stage(session, claim, now=clock(session)))
            self.outcome = "cancelled"
        elif self.hands.stopping.is_set():
            self._transact(lambda session: claims.release_stage(session, claim, STOPPED))
            self.outcome = "put_back"
        else:
            return False
        return True

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
            if self.is_cancelled or self.hands.stopping.is_set() or now - away_since > STORE_PATIENCE_S:
                raise problem
            self.hands.stopping.wait(STORE_RETRY_S)

        return wait

    def _end_without_store(self, claim: StageClaim, error: ArtifactError) -> None:
        """The stage cannot go on without what the store has, or cannot leave its result there."""
        if not self._has_ended_as_asked(claim):
            self._fail(claim, {"code": error.code, "message": error.message, "advice": error.advice, "last_lines": ""})

    # The folder

    def _write_folder(self, claim: StageClaim, inputs: StageInputs, folder: RoundFolder) -> None:
        """Write the recipe's inputs, stage.json last. A folder that has it is whole: an earlier attempt wrote it."""
        if (folder.path / "stage.json").exists():
            if story := take_over(folder, inputs, device=self.hands.device):
                self._transact(lambda session: claims.report(session, claim, story))
            return
        folder.path.mkdir(parents=True, exist_ok=True)
        inputs_at, notes = self._transact(
            lambda session: (clock(session), write_data(session, inputs, folder, self.hands.settings))
        )
        stage = stage_file(
            inputs, device=self.hands.device, num_threads=self.hands.settings.threads or os.cpu_count() or 1
        )
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
            if self._has_ended_as_asked(claim):
                return False
            if status == EXIT_LOCKED:  # the recipe of an earlier attempt is still on its way out
                self.hands.stopping.wait(RETRY_S)
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
            if (self.hands.stopping.is_set() or self.is_cancelled) and asked_at is None:
                recipe.ask_to_stop()
                asked_at = waited
            if asked_at is not None and waited - asked_at > STOP_TIMEOUT_S:
                recipe.kill()
            if self.hands.wakeups.wait(FOLLOW_S):
                self._look_at_claim()
            self._meanwhile()
            waited += FOLLOW_S

    def _relay(self, claim: StageClaim, metrics: list[dict[str, Any]], samples: list[dict[str, Any]]) -> None:
        def store(session: Session) -> None:
            results.record_metrics(session, claim, metrics)
            results.record_samples(session, claim, samples)

        self._transact(store)
        trainer_metrics.STEPS.labels(self.recipe).inc(len(metrics))
        trainer_metrics.SAMPLES.labels(self.recipe).inc(len(samples))

    # The claim

    def _look_at_claim(self) -> None:
        """Somebody called: it may be to cancel."""
        self._transact(lambda session: self.renew(session, clock(session)))

    def _wait_for_device(self, claim: StageClaim) -> bool:
        """Hold the GPU, once whoever has it lets go; False if the wait was ended."""
        is_told = False
        while self.hands.gpu is not None:
            gpu = self.hands.gpu

            def hold(session: Session, gpu: str = gpu) -> bool:
                return devices.hold_for_stage(
                    session,
                    gpu,
                    self.hands.owner,
                    claim.stage_id,
                    duration=self.hands.claim_duration,
                    now=clock(session),
                )

            if self._transact(hold):
                return True
            if self.is_lost:
                raise ClaimLost(claim)
            if self._has_ended_as_asked(claim):
                return False
            if not is_told:
                self._transact(
                    lambda session: claims.report(session, claim, "Waits for the GPU.", Phase.WAITING_FOR_DEVICE)
                )
                is_told = True
            self.hands.wakeups.wait(RETRY_S)
        return True


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

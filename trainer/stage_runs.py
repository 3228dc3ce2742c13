"""Stages of rounds, run by a trainer one at a time: the folder is written, the recipe run, the result registered.

One of the modules here that touch the database. How the claim is held and the recipe followed: trainer.claim_runs.
"""

import logging
import os
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from app.artifact_errors import ArtifactError
from app.db import clock
from app.errors import PodiumError
from app.monitoring import trainer_metrics
from app.monitoring.failures import last_lines_of
from app.monitoring.logs import about, say_about
from app.rounds import claims, devices, results
from app.rounds.claims import ClaimLost, StageClaim
from app.rounds.inputs import MissingParent, StageInputs, record_versions, stage_inputs
from app.rounds.models import Phase
from app.rounds.stage_copies import StageCopies
from trainer.claim_runs import ClaimRunner, Ended, Look, saved_step, where_it_goes_on
from trainer.database_away import Stopping
from trainer.errors import StageError
from trainer.hands import Hands
from trainer.recipe_process import Positions, Tail
from trainer.round_folder import RoundFolder
from trainer.stage_folder import read_stage_result, stage_file, take_over
from trainer.stage_tables import write_data

log = logging.getLogger(__name__)


class StageRunner(ClaimRunner[StageClaim]):
    """Runs stages for a worker, whose heartbeat renews what it holds."""

    lost = ClaimLost

    def __init__(self, hands: Hands, meanwhile: Callable[[], None]) -> None:
        """meanwhile: what the worker does every now and then while a recipe runs."""
        super().__init__(hands)
        self._meanwhile = meanwhile
        self.folder: RoundFolder | None = None  # of the claim, once it is known

    def _renew(self, session: Session, claim: StageClaim, now: datetime) -> bool:
        return claims.renew_stage(session, claim, duration=self.hands.claim_duration, now=now)

    def _put_back(self, session: Session, claim: StageClaim) -> None:
        folder = self.folder
        goes_on = f"; {where_it_goes_on(folder)}" if folder is not None else ""
        claims.release_stage(session, claim, f"The trainer was stopped{goes_on}.")

    def _cancel(self, session: Session, claim: StageClaim, now: datetime) -> None:
        claims.cancel_stage(session, claim, now=now)

    def _write_failure(self, session: Session, claim: StageClaim, error: dict[str, Any], now: datetime) -> None:
        claims.fail_stage(session, claim, error, now=now)

    def _hold(self, session: Session, gpu: str, claim: StageClaim, now: datetime) -> bool:
        hands = self.hands
        return devices.hold_for_stage(session, gpu, hands.owner, claim.stage_id, duration=hands.claim_duration, now=now)

    def _tell(self, claim: StageClaim, story: str, phase: Phase | None = None) -> None:
        self._transact(lambda session: claims.report(session, claim, story, phase))

    def step(self) -> bool:
        """Run one stage, if one waits; whether one did."""
        self.is_cancelled = self.is_lost = False
        claim = self._transact(self._claim)
        if claim is None:
            return False
        self.folder = None
        self.claim, self.recipe, self.outcome = claim, "unknown", "lost"
        begun_at = time.monotonic()
        trainer_metrics.IS_BUSY.set(1)
        with about(stage=claim.stage_id, attempt=claim.attempt):
            log.info("%s claimed", claim)
            try:
                self._run_stage(claim)
            except Ended:
                pass
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
        """To its end, whatever that is: nothing that goes wrong takes the worker with it.

        Raises Ended, ClaimLost, Stopping.
        """
        try:
            inputs = self._transact(lambda session: stage_inputs(session, self.hands.settings, claim))
            self.hands.heart.doing = f"round {inputs.round_number}, stage {inputs.recipe.value}"
            self.recipe = inputs.recipe.value
            say_about(project=inputs.project_id, round=inputs.round_number, recipe=self.recipe)
            folder = self.folder = RoundFolder(self.hands.settings.artifacts / inputs.folder)
            copies = StageCopies(self.hands.store, inputs.folder, claim.attempt, wait=self._waiting_for_store(claim))
            copies.fetch_models(inputs.results)
            copies.bring(seed=inputs.seed, snapshot_sha256=inputs.snapshot_sha256)
            self._write_folder(claim, inputs, folder)
            copies.send_inputs()
            self._wait_for_device(claim)
            step = saved_step(folder)
            begins = "starts" if step is None else f"goes on after step {step}"
            self._tell(claim, f"The recipe {begins}.", Phase.COMPUTING)
            with copies:
                self._run_recipe(claim, inputs, folder, copies)
            self._tell(claim, "The recipe has ended; its result is checked and stored.", Phase.STORING)
            stored = read_stage_result(inputs.recipe, folder)
            copies.send_result()
            result = self._transact(lambda session: results.with_report(session, claim, stored))
        except StageError as error:
            self._fail(claim, {"code": error.code, "message": error.message, "advice": error.advice, "last_lines": ""})
            return
        except ArtifactError as error:  # what the store has is needed, or the result cannot be left there
            self._end_if_asked(claim)
            self._fail(claim, {"code": error.code, "message": error.message, "advice": error.advice, "last_lines": ""})
            return
        except MissingParent as error:
            self._fail(claim, missing_parent(error))
            return
        except PodiumError as error:  # of a version whose weights are gone, in words
            self._fail(claim, refused(error))
            return
        except (Ended, ClaimLost, Stopping):
            raise
        except Exception as error:  # a stage that cannot be run must not take the worker with it, again and again
            log.exception("%s cannot be run; it is failed", claim)
            self._fail(claim, unforeseen(error))
            return
        self._transact(lambda session: results.complete_stage(session, claim, result, now=clock(session)))
        self.outcome = "succeeded"
        log.info("%s succeeded", claim)

    # The folder

    def _write_folder(self, claim: StageClaim, inputs: StageInputs, folder: RoundFolder) -> None:
        """Write the recipe's inputs, stage.json last. A folder that has it is whole: an earlier attempt wrote it."""
        if (folder.path / "stage.json").exists():
            if story := take_over(folder, inputs, device=self.hands.device):
                self._tell(claim, story)
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

    def _run_recipe(self, claim: StageClaim, inputs: StageInputs, folder: RoundFolder, copies: StageCopies) -> None:
        """Run the recipe to its end, relaying what it measures. Raises Ended, ClaimLost."""
        if folder.is_finished:  # under a claim that was lost: not all that it measured need have been relayed
            self._relaying(claim, folder)()
        ids = f"round={inputs.round_number} {claim}"
        self._run_to_result(claim, folder, copies, ids=ids, looks=lambda: self._relaying(claim, folder))

    def _relaying(self, claim: StageClaim, folder: RoundFolder) -> Look:
        """What relays at each look what is new of the measures and of what the policy writes, both from their start."""
        metrics, samples = Tail(folder.path / "metrics.jsonl"), Tail(folder.path / "samples.jsonl")
        positions = Positions()

        def look() -> None:
            new_metrics, new_samples = metrics.read(), positions.number(samples.read())
            if new_metrics or new_samples:
                self._relay(claim, new_metrics, new_samples)
            self._meanwhile()

        return look

    def _relay(self, claim: StageClaim, metrics: list[dict[str, Any]], samples: list[dict[str, Any]]) -> None:
        def store(session: Session) -> None:
            results.record_metrics(session, claim, metrics)
            results.record_samples(session, claim, samples)

        self._transact(store)
        trainer_metrics.STEPS.labels(self.recipe).inc(len(metrics))
        trainer_metrics.SAMPLES.labels(self.recipe).inc(len(samples))


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

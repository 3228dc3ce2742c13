"""Evaluations of reward models, run by a trainer between stages: one at a time, its recipe a process of its own.

The worker's other half for work that belongs to no round. What is scored is written down as it comes, so an evaluation
whose trainer was killed goes on from there; the device is held while its recipe computes and no longer.
"""

import logging
import os
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.artifact_errors import ArtifactError, StoreUnreachable
from app.artifacts import Wait
from app.datasets.models import SnapshotRanking
from app.datasets.reading import ranking_rows
from app.db import SessionFactory, clock
from app.errors import PodiumError
from app.monitoring.failures import last_lines_of
from app.reward_models import claims, reports
from app.reward_models.claims import EvaluationClaim, EvaluationClaimLost, EvaluationInputs
from app.reward_models.tables import scored_rankings
from app.rounds import devices
from app.rounds.stage_copies import StageCopies
from app.settings import Settings
from trainer.database_away import Stopping
from trainer.encoders import PairEncoder, load_pair_tokenizer
from trainer.errors import StageError
from trainer.hands import Hands
from trainer.models import load_tokenizer
from trainer.recipe_process import EXIT_LOCKED, RecipeProcess, Tail, explain, is_worth_another_try
from trainer.reward_checkpoint import RewardModelFacts, describe_reward_model
from trainer.round_folder import MANIFEST, RankingRow, RoundFolder, Stage, file_sha256, read_result, read_table
from trainer.score_table import SCORES_FILE
from trainer.settings import recipe_config
from trainer.stage_data import Encoder, held_out_labelers
from trainer.stage_tables import encoded_rankings
from trainer.versions import code_version, library_versions

log = logging.getLogger(__name__)

FOLLOW_S = 0.3  # between two looks at what the recipe wrote
RETRY_S = 1.0
STORE_RETRY_S = 5.0
STORE_PATIENCE_S = 600.0  # how long the artifact store may be away before an evaluation fails
STOP_TIMEOUT_S = 60.0  # the recipe stops at the border of a batch
MAX_KILLS = 3  # by signals, within one claim

Answer = TypeVar("Answer")


class Ended(Exception):
    """The evaluation was cancelled or put back: there is nothing more to do about it."""


class ModelOfAProject(StageError):
    """A model from elsewhere was named that lies among the artifacts."""

    code = "model_of_a_project"

    def __init__(self, path: str) -> None:
        super().__init__(
            f"the folder {path} belongs to a project of this installation",
            advice="evaluate a reward model of ours in its own project, by its number",
        )


class EvaluationRunner:
    """Runs evaluations for a worker, whose heartbeat renews what it holds."""

    def __init__(self, hands: Hands) -> None:
        self.hands = hands
        self._transact = hands.transact
        self.claim: EvaluationClaim | None = None
        self.is_cancelled = self.is_lost = False

    def step(self) -> bool:
        """Run one evaluation, if one waits; whether one did."""
        self.is_cancelled = self.is_lost = False
        hands = self.hands
        claim: EvaluationClaim | None = self._transact(
            lambda session: claims.claim_evaluation(
                session, owner=hands.owner, duration=hands.claim_duration, now=clock(session)
            )
        )
        if claim is None:
            return False
        log.info("evaluation=%s attempt=%s claimed", claim.evaluation_id, claim.attempt)
        hands.heart.doing = f"evaluation {claim.evaluation_id} of a reward model"
        self.claim = claim
        try:
            self._run(claim)
        except Ended:
            pass
        except EvaluationClaimLost as lost:
            log.warning("%s; going on with what is next", lost)
        finally:
            self.claim = None
            self.hands.release_device()
        return True

    def give_back(self) -> None:
        """Release what is claimed, from another thread, in the middle of it."""
        claim = self.claim
        if claim is not None:
            with SessionFactory.begin() as session:
                claims.release(session, claim)
            log.warning("evaluation=%s attempt=%s is given back", claim.evaluation_id, claim.attempt)

    def renew(self, session: Session, now: datetime) -> None:
        """Part of each heartbeat, in its thread."""
        claim = self.claim
        if claim is None:
            return
        try:
            self.is_cancelled = claims.renew(session, claim, duration=self.hands.claim_duration, now=now)
        except EvaluationClaimLost:
            self.is_lost = self.claim is claim
            return
        self.hands.keep_device(session, now)

    def _run(self, claim: EvaluationClaim) -> None:
        """To its end, whatever that is: nothing that goes wrong takes the worker with it.

        Raises Ended, EvaluationClaimLost, Stopping.
        """
        try:
            inputs: EvaluationInputs = self._transact(
                lambda session: claims.evaluation_inputs(session, self.hands.settings, claim)
            )
            folder = RoundFolder(self.hands.settings.artifacts / inputs.folder)
            copies = StageCopies(self.hands.store, inputs.folder, claim.attempt, wait=self._waiting_for_store(claim))
            copies.fetch_models(inputs.files.results if inputs.files else {})
            copies.bring(seed=0, snapshot_sha256=inputs.snapshot_sha256)
            self._write_folder(inputs, folder)
            copies.send_inputs()
            self._wait_for_device(claim)
            with copies:
                self._run_recipe(claim, folder)
            self.hands.release_device()
            read_result(folder.result)
            copies.send_result()
            self._complete(claim, inputs, folder)
        except (StageError, ArtifactError) as error:
            self._end_if_asked(claim)
            self._fail(claim, {"code": error.code, "message": error.message, "advice": error.advice, "last_lines": ""})
        except PodiumError as error:  # of a version whose weights are gone, in words
            advice = "evaluate again once that is mended"
            self._fail(claim, {"code": error.code, "message": str(error), "advice": advice, "last_lines": ""})
        except (Ended, EvaluationClaimLost, Stopping):
            raise
        except Exception as error:  # what cannot be run must not take the worker with it, again and again
            log.exception("evaluation=%s attempt=%s cannot be run; it is failed", claim.evaluation_id, claim.attempt)
            self._fail(claim, unforeseen(error))

    def _complete(self, claim: EvaluationClaim, inputs: EvaluationInputs, folder: RoundFolder) -> None:
        rankings = scored_rankings(read_table(folder.result / SCORES_FILE))
        manifest_sha256 = file_sha256(folder.result / MANIFEST)

        def register(session: Session) -> None:
            report = reports.make_report(session, inputs.snapshot_id, rankings, judged_by_held_out_apart=False)
            report |= read_result(folder.result)["figures"]
            report |= {"model_sha256": folder.read_stage().parents.get("model_sha256")}
            claims.complete(session, claim, report, manifest_sha256, now=clock(session))

        self._transact(register)
        log.info("evaluation=%s attempt=%s succeeded", claim.evaluation_id, claim.attempt)

    def _fail(self, claim: EvaluationClaim, error: dict[str, Any]) -> None:
        log.error("evaluation=%s attempt=%s failed: %s", claim.evaluation_id, claim.attempt, error["message"])
        self._transact(lambda session: claims.fail(session, claim, error, now=clock(session)))

    # The folder

    def _write_folder(self, inputs: EvaluationInputs, folder: RoundFolder) -> None:
        """What the recipe reads, stage.json last: a folder that has it is whole, whoever wrote it.

        Where the model lies and what computes may differ on each machine, so that much is written every time. What was
        scored by a model that has another's place by now is forgotten: one report is of one model.
        """
        refuse_artifacts(inputs.checkpoint, self.hands.settings)
        if folder.is_finished:
            return
        found = describe_reward_model(inputs.checkpoint or (inputs.files.path if inputs.files else ""))
        is_begun = (folder.path / "stage.json").exists()
        if is_begun and folder.read_stage().parents.get("model_sha256") != found.sha256:
            begin_anew(folder)
        if not (folder.path / "stage.json").exists():
            folder.path.mkdir(parents=True, exist_ok=True)
            folder.write_rankings(self._transact(lambda session: rankings_for(session, inputs, found)))
        folder.write_stage(
            Stage(
                recipe="score",
                config=recipe_config("score", "paper", {}),
                preset="paper",
                seed=0,
                num_threads=self.hands.settings.threads or os.cpu_count() or 1,
                device=self.hands.device,
                models={"reward_model": found.path},
                parents={
                    "reward_model_id": inputs.reward_model_id,
                    "snapshot_id": inputs.snapshot_id,
                    "model_sha256": found.sha256,
                },
                snapshot_sha256=inputs.snapshot_sha256,
                code_version=code_version(),
                library_versions=library_versions(),
            )
        )

    # The recipe

    def _run_recipe(self, claim: EvaluationClaim, folder: RoundFolder) -> None:
        """To its result, through kills. Raises Ended, EvaluationClaimLost, RecipeFailed."""
        num_kills = 0
        while not folder.is_finished:
            ids = f"evaluation={claim.evaluation_id} attempt={claim.attempt}"
            recipe = RecipeProcess("score", folder, ids=ids)
            try:
                status = self._follow(claim, recipe, folder.path / "metrics.jsonl")
            finally:
                recipe.kill()
                recipe.close()
            if status == 0:
                continue
            self._end_if_asked(claim)
            if status == EXIT_LOCKED:  # the recipe of an earlier attempt is still on its way out
                self.hands.stopping.wait(RETRY_S)
                continue
            num_kills += 1
            if not is_worth_another_try(status) or num_kills > MAX_KILLS:
                self._fail(claim, explain(status, folder, recipe.last_lines()))
                raise Ended

    def _follow(self, claim: EvaluationClaim, recipe: RecipeProcess, metrics: Path) -> int:
        """Say how far it is until it ends; its exit status. Raises EvaluationClaimLost, having killed it."""
        tail, waited, asked_at = Tail(metrics), 0.0, None
        while True:
            status = recipe.poll()  # before reading: what it wrote last is read after its end
            if rows := tail.read():
                self._transact(lambda session, last=rows[-1]: claims.report_progress(  # type: ignore[misc]
                    session, claim, num_scored=last["num_scored"], num_slates=last["num_slates"]
                ))  # fmt: skip
            if self.is_lost:
                recipe.kill()
                raise EvaluationClaimLost(claim)
            if status is not None:
                return status
            if self._is_to_end and asked_at is None:
                recipe.ask_to_stop()
                asked_at = waited
            if asked_at is not None and waited - asked_at > STOP_TIMEOUT_S:
                recipe.kill()
            if self.hands.wakeups.wait(FOLLOW_S):
                self._look_at_claim()
            waited += FOLLOW_S

    # The claim, the device and the store

    @property
    def _is_to_end(self) -> bool:
        return self.is_cancelled or self.hands.stopping.is_set()

    def _look_at_claim(self) -> None:
        """Somebody called: it may be to cancel."""
        self._transact(lambda session: self.renew(session, clock(session)))

    def _end_if_asked(self, claim: EvaluationClaim) -> None:
        """Raises Ended where it was cancelled, or is put back as the worker stops."""
        if self.is_cancelled:
            self._transact(lambda session: claims.end_cancelled(session, claim, now=clock(session)))
        elif self.hands.stopping.is_set():
            self._transact(lambda session: claims.release(session, claim))
        else:
            return
        raise Ended

    def _wait_for_device(self, claim: EvaluationClaim) -> None:
        """Hold the GPU, once whoever has it lets go. Raises Ended, EvaluationClaimLost."""
        hands = self.hands
        while hands.gpu is not None:
            gpu = hands.gpu

            def hold(session: Session, gpu: str = gpu) -> bool:
                return devices.hold_for_evaluation(
                    session, gpu, hands.owner, claim.evaluation_id, duration=hands.claim_duration, now=clock(session)
                )

            if self._transact(hold):
                return
            if self.is_lost:
                raise EvaluationClaimLost(claim)
            self._end_if_asked(claim)
            hands.wakeups.wait(RETRY_S)

    def _waiting_for_store(self, claim: EvaluationClaim) -> Wait:
        """What is done while the store is away: it is tried again until somebody has had enough."""
        num_tries = 0

        def wait(problem: StoreUnreachable) -> None:
            nonlocal num_tries
            num_tries += 1
            if self.is_lost:
                raise EvaluationClaimLost(claim)
            if self._is_to_end or num_tries * STORE_RETRY_S > STORE_PATIENCE_S:
                raise problem
            self.hands.stopping.wait(STORE_RETRY_S)

        return wait


def begin_anew(folder: RoundFolder) -> None:
    """Without what an earlier attempt wrote. The lock stays: its recipe may be on its way out."""
    for name in ("stage.json", "scored.jsonl", "metrics.jsonl"):
        (folder.path / name).unlink(missing_ok=True)
    shutil.rmtree(folder.path / "data", ignore_errors=True)


def refuse_artifacts(checkpoint: str | None, settings: Settings) -> None:
    """Raises ModelOfAProject for a folder that Podium made: whose project it is of is known by its number alone."""
    if checkpoint is None or not Path(checkpoint).is_dir():
        return
    if Path(checkpoint).resolve().is_relative_to(settings.artifacts.resolve()):
        raise ModelOfAProject(checkpoint)


def rankings_for(session: Session, inputs: EvaluationInputs, found: RewardModelFacts) -> list[RankingRow]:
    """The rankings that are judged, in the model's own tokens: ids of another tokenizer are read as text again.

    Those that are too long for the model too: the recipe leaves them out, and counts them for the report.
    """
    encoder: Encoder | PairEncoder = (
        PairEncoder(load_pair_tokenizer(found.path))
        if found.reads_pairs
        else Encoder(load_tokenizer(found.path), found.tokenizer_sha256, context_tokens=None)
    )
    chosen = (
        ranking
        for ranking in ranking_rows(session, inputs.snapshot_id)
        if ranking.split.value in inputs.splits and ranking.prompt_id not in inputs.left_out
    )
    return encoded_rankings(chosen, held_out_from(session, inputs.fitted_snapshot_id), encoder)


def held_out_from(session: Session, snapshot_id: int | None) -> set[str]:
    """The labelers of a snapshot that the reward model fitted to it never learned from."""
    if snapshot_id is None:
        return set()
    query = select(SnapshotRanking.pseudonym).where(SnapshotRanking.snapshot_id == snapshot_id).distinct()
    return held_out_labelers(set(session.scalars(query)))


def unforeseen(error: Exception) -> dict[str, Any]:
    return {
        "code": "unforeseen",
        "message": f"the trainer could not run the evaluation ({type(error).__name__})",
        "advice": "look at the last lines and at the trainer's log, and evaluate again once the cause is gone",
        "last_lines": last_lines_of(error).replace("\x00", ""),
    }

"""Evaluations of reward models, run by a trainer between stages: one at a time, its recipe a process of its own.

The worker's other half for work that belongs to no round. What is scored is written down as it comes, so an evaluation
whose trainer was killed goes on from there; the device is held while its recipe computes and no longer.
"""

import logging
import os
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.artifact_errors import ArtifactError
from app.datasets.models import SnapshotRanking
from app.datasets.reading import ranking_rows
from app.db import clock
from app.errors import PodiumError
from app.monitoring.failures import last_lines_of
from app.reward_models import claims, reports
from app.reward_models.claims import EvaluationClaim, EvaluationClaimLost, EvaluationInputs
from app.reward_models.tables import scored_rankings
from app.rounds import devices
from app.rounds.stage_copies import StageCopies
from app.settings import Settings
from trainer.claim_runs import ClaimRunner, Ended, Look
from trainer.database_away import Stopping
from trainer.encoders import PairEncoder, load_pair_tokenizer
from trainer.errors import StageError
from trainer.models import load_tokenizer
from trainer.recipe_process import Tail
from trainer.reward_checkpoint import RewardModelFacts, describe_reward_model
from trainer.round_folder import MANIFEST, RankingRow, RoundFolder, Stage, file_sha256, read_result, read_table
from trainer.score_table import SCORES_FILE
from trainer.settings import recipe_config
from trainer.stage_data import Encoder, held_out_labelers
from trainer.stage_tables import encoded_rankings
from trainer.versions import code_version, library_versions

log = logging.getLogger(__name__)


class ModelOfAProject(StageError):
    """A model from elsewhere was named that lies among the artifacts."""

    code = "model_of_a_project"

    def __init__(self, path: str) -> None:
        super().__init__(
            f"the folder {path} belongs to a project of this installation",
            advice="evaluate a reward model of ours in its own project, by its number",
        )


class EvaluationRunner(ClaimRunner[EvaluationClaim]):
    """Runs evaluations for a worker, whose heartbeat renews what it holds."""

    lost = EvaluationClaimLost

    def _renew(self, session: Session, claim: EvaluationClaim, now: datetime) -> bool:
        return claims.renew(session, claim, duration=self.hands.claim_duration, now=now)

    def _put_back(self, session: Session, claim: EvaluationClaim) -> None:
        claims.release(session, claim)

    def _cancel(self, session: Session, claim: EvaluationClaim, now: datetime) -> None:
        claims.end_cancelled(session, claim, now=now)

    def _write_failure(self, session: Session, claim: EvaluationClaim, error: dict[str, Any], now: datetime) -> None:
        claims.fail(session, claim, error, now=now)

    def _hold(self, session: Session, gpu: str, claim: EvaluationClaim, now: datetime) -> bool:
        hands = self.hands
        return devices.hold_for_evaluation(
            session, gpu, hands.owner, claim.evaluation_id, duration=hands.claim_duration, now=now
        )

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
        log.info("%s claimed", claim)
        hands.heart.doing = f"evaluation {claim.evaluation_id} of a reward model"
        self.claim, self.recipe = claim, "score"
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
                self._run_to_result(claim, folder, copies, ids=str(claim), looks=lambda: self._reporting(claim, folder))
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
            log.exception("%s cannot be run; it is failed", claim)
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
        log.info("%s succeeded", claim)

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

    def _reporting(self, claim: EvaluationClaim, folder: RoundFolder) -> Look:
        """What says at each look how far the recipe is."""
        tail = Tail(folder.path / "metrics.jsonl")

        def look() -> None:
            rows = tail.read()
            if rows:
                num_scored, num_slates = rows[-1]["num_scored"], rows[-1]["num_slates"]
                self._transact(
                    lambda session: claims.report_progress(session, claim, num_scored=num_scored, num_slates=num_slates)
                )

        return look


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

"""A trainer's hold on an evaluation: claim it, renew the claim, say how far it is, and end it one way or another.

How a claim holds is in app.rounds.claiming, as it is for stages.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets.models import Snapshot
from app.db import TRAINER_CHANNEL, notify
from app.policies.models import RewardModelVersion
from app.policies.service import ModelFiles, reward_model_files
from app.projects.models import Project
from app.reward_models.models import RewardEvaluation
from app.reward_models.reports import Report
from app.reward_models.service import announce, fitted_snapshot_id, learned_prompts
from app.rounds import claiming
from app.rounds.models import StageState
from app.settings import Settings


class EvaluationClaimLost(Exception):
    """The evaluation is not this claim's any more. What it reports is refused."""

    code = "evaluation_claim_lost"

    def __init__(self, claim: "EvaluationClaim") -> None:
        super().__init__(f"attempt {claim.attempt} of evaluation {claim.evaluation_id} does not hold it any more")


@dataclass(frozen=True, kw_only=True)
class EvaluationClaim:
    """One worker's right to run one evaluation; a later attempt of anyone ends it."""

    evaluation_id: int
    attempt: int
    owner: str

    def __str__(self) -> str:
        """As logs name it."""
        return f"evaluation={self.evaluation_id} attempt={self.attempt}"


@dataclass(frozen=True, kw_only=True)
class EvaluationInputs:
    """What an evaluation is run with.

    files: of a reward model of ours; None where `checkpoint` names one from elsewhere.  left_out: prompts that are not
    judged.  fitted_snapshot_id: what the model was fitted to: its held-out labelers follow from it.
    """

    folder: str  # below the artifacts
    files: ModelFiles | None
    checkpoint: str | None
    reward_model_id: int | None
    snapshot_id: int
    snapshot_sha256: str
    splits: frozenset[str]
    left_out: frozenset[int]
    fitted_snapshot_id: int | None


def claim_evaluation(session: Session, *, owner: str, duration: timedelta, now: datetime) -> EvaluationClaim | None:
    """Claim the oldest that waits, or whose worker went silent. The caller commits at once.

    One whose worker is gone and that somebody cancelled is ended instead.
    """
    evaluation = session.scalar(
        select(RewardEvaluation)
        .where(claiming.is_free(RewardEvaluation, now))
        .order_by(RewardEvaluation.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if evaluation is None:
        return None
    if evaluation.cancel_requested_at is not None:
        _end(session, evaluation, StageState.CANCELLED, now)
        return None
    claiming.take(evaluation, owner=owner, duration=duration, now=now)
    project = session.get_one(Project, evaluation.project_id)
    evaluation.folder = evaluation.folder or f"projects/{project.slug}/reward-evaluations/{evaluation.id:04d}"
    session.flush()
    announce(session, evaluation)
    return EvaluationClaim(evaluation_id=evaluation.id, attempt=evaluation.attempt, owner=owner)


def evaluation_inputs(session: Session, settings: Settings, claim: EvaluationClaim) -> EvaluationInputs:
    """All that the folder is made from, looked up. Raises EvaluationClaimLost."""
    evaluation = locked(session, claim)
    assert evaluation.folder is not None
    files = None
    if evaluation.reward_model_id is not None:
        version = session.get_one(RewardModelVersion, evaluation.reward_model_id)
        files = reward_model_files(session, settings, version)
    return EvaluationInputs(
        folder=evaluation.folder,
        files=files,
        checkpoint=evaluation.checkpoint,
        reward_model_id=evaluation.reward_model_id,
        snapshot_id=evaluation.snapshot_id,
        snapshot_sha256=session.get_one(Snapshot, evaluation.snapshot_id).sha256,
        splits=frozenset(evaluation.splits),
        left_out=frozenset() if evaluation.includes_learned else frozenset(learned_prompts(session, evaluation)),
        fitted_snapshot_id=fitted_snapshot_id(session, evaluation),
    )


def renew(session: Session, claim: EvaluationClaim, *, duration: timedelta, now: datetime) -> bool:
    """Hold it for longer; returns whether somebody asked to cancel it. Raises EvaluationClaimLost."""
    evaluation = locked(session, claim)
    evaluation.deadline = now + duration
    return evaluation.cancel_requested_at is not None


def report_progress(session: Session, claim: EvaluationClaim, *, num_scored: int, num_slates: int) -> None:
    """Say how far it is. Raises EvaluationClaimLost."""
    evaluation = locked(session, claim)
    evaluation.num_scored, evaluation.num_slates = num_scored, num_slates
    session.flush()
    announce(session, evaluation)


def complete(session: Session, claim: EvaluationClaim, report: Report, manifest_sha256: str, *, now: datetime) -> None:
    """Register what it found. Raises EvaluationClaimLost."""
    evaluation = locked(session, claim)
    evaluation.report, evaluation.manifest_sha256 = report, manifest_sha256
    _end(session, evaluation, StageState.SUCCEEDED, now)


def fail(session: Session, claim: EvaluationClaim, error: dict[str, Any], *, now: datetime) -> None:
    """End it with an error, {"code", "message", "advice", "last_lines"}. Raises EvaluationClaimLost."""
    evaluation = locked(session, claim)
    evaluation.error = error
    _end(session, evaluation, StageState.FAILED, now)


def end_cancelled(session: Session, claim: EvaluationClaim, *, now: datetime) -> None:
    """End it as somebody asked. Raises EvaluationClaimLost."""
    _end(session, locked(session, claim), StageState.CANCELLED, now)


def release(session: Session, claim: EvaluationClaim) -> None:
    """Put it back into the queue, for another worker to go on from what is scored. Raises EvaluationClaimLost."""
    evaluation = locked(session, claim)
    claiming.put_back(evaluation)
    session.flush()
    announce(session, evaluation)
    notify(session, TRAINER_CHANNEL)


def locked(session: Session, claim: EvaluationClaim) -> RewardEvaluation:
    """The claim's evaluation, locked. Raises EvaluationClaimLost."""
    evaluation = session.scalar(claiming.held(RewardEvaluation, claim.evaluation_id, claim.attempt, claim.owner))
    if evaluation is None:
        raise EvaluationClaimLost(claim)
    return evaluation


def _end(session: Session, evaluation: RewardEvaluation, state: StageState, now: datetime) -> None:
    claiming.end(evaluation, state, now)
    session.flush()
    announce(session, evaluation)

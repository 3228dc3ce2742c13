"""Evaluations of reward models and an erasure: none may run meanwhile, and their reports name the person no more."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.people.models import Labeler
from app.policies.models import RewardModelVersion
from app.projects.models import Project
from app.reward_models.models import RewardEvaluation
from app.rounds.models import StageState


def evaluation_under_way(session: Session, project: Project) -> int | None:
    """The first evaluation of the project that runs or waits: its folder gets rankings and texts."""
    return session.scalar(
        select(RewardEvaluation.id)
        .where(
            RewardEvaluation.project_id == project.id,
            RewardEvaluation.state.in_((StageState.QUEUED, StageState.RUNNING)),
        )
        .order_by(RewardEvaluation.id)
        .limit(1)
    )


def folders_of_evaluations(session: Session, snapshot_ids: Sequence[int]) -> list[str]:
    """Those of evaluations on the snapshots, below the artifacts: rankings, texts and scores, and no model."""
    return list(
        session.scalars(
            select(RewardEvaluation.folder).where(
                RewardEvaluation.snapshot_id.in_(snapshot_ids),
                ~RewardEvaluation.by_stage,  # its folder is the stage's, and holds the model
                RewardEvaluation.folder.is_not(None),
            )
        )
    )


def models_judged_on(session: Session, snapshot_ids: Sequence[int]) -> Sequence[RewardModelVersion]:
    """The reward models whose stages judged them by labels of the snapshots: their results hold the scores."""
    return session.scalars(
        select(RewardModelVersion)
        .join(RewardEvaluation, RewardEvaluation.reward_model_id == RewardModelVersion.id)
        .where(RewardEvaluation.by_stage, RewardEvaluation.snapshot_id.in_(snapshot_ids))
        .order_by(RewardModelVersion.id)
    ).all()


def forget_labelers(session: Session, snapshot_ids: Sequence[int], labelers: Sequence[Labeler]) -> None:
    """Take out of each report on the snapshots its line of each of these labelers; figures of all people stay."""
    gone = {labeler.pseudonym for labeler in labelers}
    reports = session.scalars(
        select(RewardEvaluation).where(
            RewardEvaluation.snapshot_id.in_(snapshot_ids), RewardEvaluation.report.is_not(None)
        )
    )
    for evaluation in reports:
        assert evaluation.report is not None
        slices = evaluation.report["slices"]
        stays = [each for each in slices["labeler"] if each["key"] not in gone]
        evaluation.report = evaluation.report | {"slices": slices | {"labeler": stays}}
    session.flush()

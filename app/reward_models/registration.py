"""The report that a reward stage brings with its model: made before, registered with the model in one transaction."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from app.policies.models import RewardModelVersion
from app.prompts.models import Split
from app.reward_models.models import RewardEvaluation
from app.reward_models.reports import Report, make_report
from app.reward_models.tables import scored_rankings
from app.rounds.models import Stage, StageState


def report_of_stage(session: Session, stage: Stage, scores: Sequence[Mapping[str, Any]]) -> Report:
    """What the stage's table of scores says: the validation split, and what its held-out labelers ranked.

    It takes a while and needs no lock: what a snapshot holds does not change.
    """
    snapshot_id = stage.round.snapshot_id
    assert snapshot_id is not None  # rankings were learned from
    rankings = scored_rankings([dict(row) for row in scores])
    return make_report(session, snapshot_id, rankings, judged_by_held_out_apart=True)


def register_report_of_stage(session: Session, version: RewardModelVersion, stage: Stage, report: Report) -> None:
    session.add(
        RewardEvaluation(
            project_id=version.project_id,
            reward_model_id=version.id,
            snapshot_id=stage.round.snapshot_id,
            splits=[Split.VALIDATION.value],
            by_stage=True,
            state=StageState.SUCCEEDED,
            folder=stage.folder,
            manifest_sha256=version.manifest_sha256,
            report=report,
            started_at=stage.started_at,
            finished_at=stage.finished_at,
        )
    )

"""What comes out of a stage: numbers and samples while it runs, a registered version at its end, the next stage."""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.db import EVENTS_CHANNEL, TRAINER_CHANNEL, notify
from app.notifications.watching import watch_metrics
from app.policies.evaluation import make_evaluation_slates
from app.policies.models import PolicyState, PolicyVersion, RewardModelVersion
from app.policies.service import ROUNDS_PREFIX
from app.projects.models import Project
from app.reward_models.registration import register_report_of_stage, report_of_stage
from app.reward_models.reports import Report
from app.rounds.announcing import announce
from app.rounds.claims import StageClaim, locked_stage, tell
from app.rounds.conclusions import conclude_if_compared
from app.rounds.models import POLICY_RECIPES, Metric, Phase, Recipe, RoundState, Stage, StageSample, StageState

ROWS_PER_STATEMENT = 1000  # Postgres takes 65,535 parameters a statement


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """What a stage made. completions: rows of an evaluation's completions.parquet.  scores: of a reward model's
    scores.parquet, and report: what they say, once `with_report` has made it."""

    figures: dict[str, Any]
    manifest_sha256: str
    num_parameters: int | None = None
    context_tokens: int | None = None
    tokenizer_sha256: str | None = None
    completions: Sequence[Mapping[str, Any]] = field(default=())
    scores: Sequence[Mapping[str, Any]] = field(default=())
    report: Report | None = None


def record_metrics(session: Session, claim: StageClaim, rows: Sequence[Mapping[str, Any]]) -> None:
    """Store what the recipe measured. Raises ClaimLost.

    rows: {"step": int, "at": unix time, name: number, ...}, as metrics.jsonl has them, in order.
    A resumed recipe reports steps again: numbers are replaced, and what lay beyond its last step is cut off.
    """
    if not rows:
        return
    stage = locked_stage(session, claim)
    numbers: dict[tuple[str, int], dict[str, Any]] = {}
    for row in rows:
        at = datetime.fromtimestamp(row["at"], UTC)
        for name, value in row.items():
            if name not in ("step", "at") and _is_number(value):
                numbers[name, row["step"]] = {
                    "stage_id": stage.id,
                    "name": name,
                    "step": row["step"],
                    "value": float(value),
                    "at": at,
                }
    session.execute(delete(Metric).where(Metric.stage_id == stage.id, Metric.step > rows[-1]["step"]))
    _upsert(session, Metric, list(numbers.values()))
    watch_metrics(session, stage, (name for name, _ in numbers))
    notify(session, EVENTS_CHANNEL, f"round:{stage.round_id}")


def record_samples(session: Session, claim: StageClaim, rows: Sequence[Mapping[str, Any]]) -> None:
    """Store completions that the policy wrote while it trained. Raises ClaimLost.

    rows: {"step", "position", "prompt", "completion", "score", "kl"}; position counts within the step.
    """
    if not rows:
        return
    stage = locked_stage(session, claim)
    samples = {
        (row["step"], row["position"]): {
            "stage_id": stage.id,
            **{name: row.get(name) for name in ("step", "position", "prompt", "completion", "score", "kl")},
        }
        for row in rows
    }
    session.execute(delete(StageSample).where(StageSample.stage_id == stage.id, StageSample.step > rows[-1]["step"]))
    _upsert(session, StageSample, list(samples.values()))
    notify(session, EVENTS_CHANNEL, f"round:{stage.round_id}")


def with_report(session: Session, claim: StageClaim, result: StageResult) -> StageResult:
    """The result with what its scores say: made before the stage is completed, which keeps others waiting."""
    if not result.scores:
        return result
    stage = session.get_one(Stage, claim.stage_id)
    return replace(result, report=report_of_stage(session, stage, result.scores))


def complete_stage(session: Session, claim: StageClaim, result: StageResult, *, now: datetime) -> None:
    """Register what the stage made, then queue the next stage or end the round. Raises ClaimLost."""
    stage = locked_stage(session, claim)
    round = stage.round
    # One version's number after the other; rows that refer to the project go on, or a submit could wait for us as we do
    # for its slate.
    project = session.get_one(Project, round.project_id, with_for_update={"key_share": True})
    stage.state, stage.finished_at, stage.result = StageState.SUCCEEDED, now, result.figures
    stage.owner = stage.deadline = None
    if stage.recipe == Recipe.REWARD:
        _register_reward_model(session, project, stage, result)
    elif stage.recipe in (Recipe.SFT, *POLICY_RECIPES):
        _register_policy(session, project, stage, result)
    session.flush()
    tell(session, stage, "Succeeded.", Phase.ENDED)
    if any(other.state != StageState.SUCCEEDED for other in round.stages):
        notify(session, TRAINER_CHANNEL)
        return
    _end_round(session, stage, result, now)
    session.flush()
    announce(session, round)


def _register_reward_model(session: Session, project: Project, stage: Stage, result: StageResult) -> None:
    number = session.scalar(
        select(func.coalesce(func.max(RewardModelVersion.number), 0) + 1).where(
            RewardModelVersion.project_id == project.id
        )
    )
    version = RewardModelVersion(
        project_id=project.id,
        number=number,
        stage_id=stage.id,
        source=f"{stage.folder}/result",
        manifest_sha256=result.manifest_sha256,
        figures=result.figures,
    )
    session.add(version)
    if result.report is not None:
        session.flush()
        register_report_of_stage(session, version, stage, result.report)


def _register_policy(session: Session, project: Project, stage: Stage, result: StageResult) -> None:
    """A new candidate. What SFT made is what the next stage starts from, in this round already."""
    round = stage.round
    number = session.scalar(
        select(func.coalesce(func.max(PolicyVersion.number), 0) + 1).where(PolicyVersion.project_id == project.id)
    )
    version = PolicyVersion(
        project_id=project.id,
        number=number,
        state=PolicyState.CANDIDATE,
        recipe=stage.recipe.value,
        source=f"{ROUNDS_PREFIX}{stage.folder}/result",
        parent_id=stage.parents.get("policy_id", round.sft_policy_id),
        stage_id=stage.id,
        is_sft=stage.recipe == Recipe.SFT,
        num_parameters=result.num_parameters,
        context_tokens=result.context_tokens,
        tokenizer_sha256=result.tokenizer_sha256,
        manifest_sha256=result.manifest_sha256,
    )
    session.add(version)
    session.flush()
    round.candidate_id = version.id
    if version.is_sft:
        round.sft_policy_id = version.id


def _end_round(session: Session, last: Stage, result: StageResult, now: datetime) -> None:
    """All stages are done: the round has succeeded, or people are asked which policy they prefer."""
    round = last.round
    if last.recipe != Recipe.EVALUATE or round.evaluation_comparisons == 0:
        round.state, round.finished_at = RoundState.SUCCEEDED, now
        return
    rng = random.Random(f"{round.seed}/blind")  # noqa: S311 - reproducible, not secret
    num_slates = make_evaluation_slates(session, round, result.completions, rng, now=now)
    if num_slates:
        tell(session, last, f"At most {num_slates} blind comparisons wait for labelers; they end when they decide.")
    round.state = RoundState.AWAITING_LABELS
    session.flush()
    # Those of a comparison that was called off may decide already.
    conclude_if_compared(session, round.id, now)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _upsert(session: Session, table: type[Metric] | type[StageSample], rows: Sequence[dict[str, Any]]) -> None:
    keys = [column.name for column in table.__table__.primary_key]
    for chunk in _chunks(rows, ROWS_PER_STATEMENT):
        statement = insert(table).values(chunk)
        replaced = {name: statement.excluded[name] for name in chunk[0] if name not in keys}
        session.execute(statement.on_conflict_do_update(index_elements=keys, set_=replaced))


def _chunks(rows: Sequence[dict[str, Any]], size: int) -> Iterable[list[dict[str, Any]]]:
    return (list(rows[start : start + size]) for start in range(0, len(rows), size))

"""A trainer's side of rounds: claim a stage, hold it, report from it, end it. Knows nothing of models or processes.

A claim is an attempt number, an owner and a deadline, committed before work starts. Whatever a claim reports is taken
only while it is the stage's latest: a worker that was thought dead and comes back changes nothing.
"""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from app.datasets.models import Snapshot
from app.db import EVENTS_CHANNEL, TRAINER_CHANNEL, notify
from app.labeling.models import Demonstration
from app.policies.evaluation import make_evaluation_slates
from app.policies.models import PolicyState, PolicyVersion, RewardModelVersion
from app.policies.service import ROUNDS_PREFIX, policy_path
from app.projects.models import Project
from app.prompts.models import Prompt, Split, Use
from app.rounds.models import (
    Heartbeat,
    Metric,
    Recipe,
    Round,
    RoundState,
    Stage,
    StageEvent,
    StageSample,
    StageState,
)
from app.rounds.service import announce, close_cancelled
from app.settings import Settings

ROWS_PER_STATEMENT = 1000  # Postgres takes 65,535 parameters a statement


class ClaimLost(Exception):
    """The stage is not this claim's any more: another attempt runs, or it was ended. What it reports is refused."""

    code = "claim_lost"

    def __init__(self, claim: "StageClaim") -> None:
        super().__init__(f"attempt {claim.attempt} of stage {claim.stage_id} does not hold it any more")


@dataclass(frozen=True, kw_only=True)
class StageClaim:
    """One worker's right to run one stage; a later attempt of anyone ends it."""

    stage_id: int
    attempt: int
    owner: str


@dataclass(frozen=True, kw_only=True)
class StageInputs:
    """What a stage is run with. models: name -> what it opens with.  parents: name -> id of its version."""

    recipe: Recipe
    folder: str  # below the artifacts
    configuration: dict[str, Any]
    preset: str
    seed: int
    project_id: int
    round_number: int
    snapshot_id: int | None
    snapshot_sha256: str | None
    models: dict[str, str]
    parents: dict[str, int]
    max_prompt_tokens: int


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """What a stage made. completions: rows of an evaluation's completions.parquet."""

    figures: dict[str, Any]
    manifest_sha256: str
    num_parameters: int | None = None
    context_tokens: int | None = None
    tokenizer_sha256: str | None = None
    completions: Sequence[Mapping[str, Any]] = field(default=())


class MissingParent(Exception):
    """The stage needs a model that no stage has made yet."""

    code = "missing_parent"


def claim_stage(session: Session, *, owner: str, duration: timedelta, now: datetime) -> StageClaim | None:
    """Claim the next stage that can run: a waiting one, or one whose worker went silent. The caller commits at once."""
    earlier = aliased(Stage)
    is_next = ~exists().where(
        earlier.round_id == Stage.round_id,
        earlier.position < Stage.position,
        earlier.state != StageState.SUCCEEDED,
    )
    stage = session.scalar(
        select(Stage)
        .join(Round)
        .where(
            _is_waiting(now),
            Round.state.in_((RoundState.QUEUED, RoundState.RUNNING)),
            Round.cancel_requested_at.is_(None),
            is_next,
        )
        .order_by(Round.created_at, Stage.position)
        .limit(1)
        .with_for_update(of=(Stage, Round), skip_locked=True)
    )
    if stage is None:
        return None
    if stage.state == StageState.RUNNING:
        tell(session, stage, f"{stage.owner} went silent; the stage goes on from its last checkpoint.")
    round = stage.round
    stage.attempt, stage.owner, stage.deadline = stage.attempt + 1, owner, now + duration
    stage.state, stage.error, stage.finished_at = StageState.RUNNING, None, None
    stage.started_at = stage.started_at or now
    stage.folder = stage.folder or _folder(session.get_one(Project, round.project_id), round, stage)
    round.state, round.started_at = RoundState.RUNNING, round.started_at or now
    session.flush()
    tell(session, stage, f"Claimed by {owner}.")
    return StageClaim(stage_id=stage.id, attempt=stage.attempt, owner=owner)


def renew_stage(session: Session, claim: StageClaim, *, duration: timedelta, now: datetime) -> bool:
    """Hold the stage for longer; returns whether somebody asked to cancel its round. Raises ClaimLost.

    A deadline that has passed is no harm while nobody else has claimed the stage (the database was away, say).
    """
    stage = locked_stage(session, claim)
    stage.deadline = now + duration
    return stage.round.cancel_requested_at is not None


def locked_stage(session: Session, claim: StageClaim) -> Stage:
    """The claim's stage, locked, and its round before it, in the order of whoever cancels. Raises ClaimLost."""
    session.scalar(
        select(Round)
        .where(Round.id == select(Stage.round_id).where(Stage.id == claim.stage_id).scalar_subquery())
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    stage = session.scalar(
        select(Stage)
        .where(
            Stage.id == claim.stage_id,
            Stage.attempt == claim.attempt,
            Stage.owner == claim.owner,
            Stage.state == StageState.RUNNING,
        )
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if stage is None:
        raise ClaimLost(claim)
    return stage


def tell(session: Session, stage: Stage, what: str) -> None:
    """Add a line to the stage's story, and wake the pages that show it."""
    session.add(StageEvent(stage_id=stage.id, attempt=stage.attempt, text=what))
    notify(session, EVENTS_CHANNEL, f"round:{stage.round_id}")


def report(session: Session, claim: StageClaim, what: str) -> None:
    """Add a line to the story of a claimed stage. Raises ClaimLost."""
    tell(session, locked_stage(session, claim), what)


def stage_inputs(session: Session, settings: Settings, claim: StageClaim) -> StageInputs:
    """All that the stage's folder is made from, looked up. Raises ClaimLost, MissingParent."""
    stage = locked_stage(session, claim)
    round = stage.round
    models, parents = _models(session, settings, round, stage.recipe)
    stage.parents = {**parents, "snapshot_id": round.snapshot_id}
    assert stage.folder is not None
    snapshot_sha256 = None
    if round.snapshot_id is not None:
        snapshot_sha256 = session.get_one(Snapshot, round.snapshot_id).sha256
    return StageInputs(
        recipe=stage.recipe,
        folder=stage.folder,
        configuration=stage.configuration,
        preset=stage.preset,
        seed=stage.seed,
        project_id=round.project_id,
        round_number=round.number,
        snapshot_id=round.snapshot_id,
        snapshot_sha256=snapshot_sha256,
        models=models,
        parents=parents,
        max_prompt_tokens=session.get_one(Project, round.project_id).max_prompt_tokens,
    )


def record_versions(session: Session, claim: StageClaim, versions: dict[str, Any]) -> None:
    """Note with which code and libraries the stage runs. Raises ClaimLost."""
    locked_stage(session, claim).versions = versions


def prompts_for(session: Session, project_id: int, splits: Sequence[Split], *, use: Use | None = None) -> list[Prompt]:
    """The project's prompts of some splits that are not set aside, in a fixed order.

    use: only prompts for this use, in a project whose prompts serve one use each.
    """
    wanted = [Prompt.project_id == project_id, Prompt.split.in_(splits), Prompt.set_aside_at.is_(None)]
    if use is not None and not session.get_one(Project, project_id).uses_overlap:
        # A use is a matter of training; every choice and report reads all of its split.
        wanted.append(or_(Prompt.use == use, Prompt.split != Split.TRAIN))
    return list(session.scalars(select(Prompt).where(*wanted).order_by(Prompt.id)))


def demonstrations_of(session: Session, project_id: int) -> list[tuple[Demonstration, Prompt]]:
    """The project's demonstrations with their prompts, in a fixed order; the test split's are nobody's to fit."""
    found = session.execute(
        select(Demonstration, Prompt)
        .join(Prompt, Prompt.id == Demonstration.prompt_id)
        .where(Prompt.project_id == project_id, Prompt.split != Split.TEST)
        .order_by(Demonstration.created_at, Demonstration.id)
    )
    return [(demonstration, prompt) for demonstration, prompt in found]


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


def complete_stage(session: Session, claim: StageClaim, result: StageResult, *, now: datetime) -> None:
    """Register what the stage made, then queue the next stage or end the round. Raises ClaimLost."""
    stage = locked_stage(session, claim)
    round = stage.round
    project = session.get_one(Project, round.project_id, with_for_update=True)  # version numbers have no gaps
    stage.state, stage.finished_at, stage.result = StageState.SUCCEEDED, now, result.figures
    stage.owner = stage.deadline = None
    if stage.recipe == Recipe.REWARD:
        _register_reward_model(session, project, stage, result)
    elif stage.recipe in (Recipe.SFT, Recipe.PPO):
        _register_policy(session, project, stage, result)
    session.flush()
    tell(session, stage, "Succeeded.")
    if any(other.state != StageState.SUCCEEDED for other in round.stages):
        notify(session, TRAINER_CHANNEL)
        return
    _end_round(session, stage, result, now)
    session.flush()
    announce(session, round)


def fail_stage(session: Session, claim: StageClaim, error: dict[str, Any], *, now: datetime) -> None:
    """End the stage and its round with an error. Raises ClaimLost.

    error: {"code", "message", "advice", "last_lines"}.
    """
    stage = locked_stage(session, claim)
    stage.state, stage.error, stage.finished_at = StageState.FAILED, error, now
    stage.owner = stage.deadline = None
    stage.round.state, stage.round.finished_at = RoundState.FAILED, now
    session.flush()
    tell(session, stage, f"Failed: {error['message']}.")
    announce(session, stage.round)


def cancel_stage(session: Session, claim: StageClaim, *, now: datetime) -> None:
    """End the stage and its round as somebody asked. Raises ClaimLost."""
    stage = locked_stage(session, claim)
    close_cancelled(session, stage.round, now)
    announce(session, stage.round)


def release_stage(session: Session, claim: StageClaim, why: str) -> None:
    """Put the stage back into the queue, for another worker to go on from its last checkpoint. Raises ClaimLost."""
    stage = locked_stage(session, claim)
    stage.state, stage.owner, stage.deadline = StageState.QUEUED, None, None
    session.flush()
    tell(session, stage, why)
    notify(session, TRAINER_CHANNEL)


def end_cancelled(session: Session, *, now: datetime) -> int:
    """Cancel rounds that somebody asked to cancel and that no live worker holds; returns how many."""
    held = exists().where(Stage.round_id == Round.id, Stage.state == StageState.RUNNING, Stage.deadline >= now)
    rounds = session.scalars(
        select(Round)
        .where(
            Round.cancel_requested_at.is_not(None),
            Round.state.in_((RoundState.QUEUED, RoundState.RUNNING)),
            ~held,
        )
        .with_for_update(skip_locked=True)
    ).all()
    for round in rounds:
        close_cancelled(session, round, now)
        announce(session, round)
    return len(rounds)


def beat(session: Session, owner: str, process: str, doing: str, *, now: datetime) -> None:
    """Say that a sampler or trainer is alive and what it does."""
    row = {"owner": owner, "process": process, "doing": doing, "beat_at": now}
    session.execute(insert(Heartbeat).values(row).on_conflict_do_update(index_elements=["owner"], set_=row))


def stop_beating(session: Session, owner: str) -> None:
    """A process that ends in good order is not missing."""
    session.execute(delete(Heartbeat).where(Heartbeat.owner == owner))


def _is_waiting(now: datetime) -> ColumnElement[bool]:
    return or_(
        Stage.state == StageState.QUEUED,
        and_(Stage.state == StageState.RUNNING, Stage.deadline < now),
    )


def _folder(project: Project, round: Round, stage: Stage) -> str:
    return f"projects/{project.slug}/rounds/{round.number:04d}/{stage.recipe.value}"


def _models(
    session: Session, settings: Settings, round: Round, recipe: Recipe
) -> tuple[dict[str, str], dict[str, int]]:
    """The models a recipe reads: what each opens with, and whose they are."""
    sft = session.get_one(PolicyVersion, round.sft_policy_id)
    policies: dict[str, PolicyVersion]
    if recipe in (Recipe.SFT, Recipe.REWARD, Recipe.PPO):
        policies = {"policy": sft}
    else:
        if round.candidate_id is None:
            raise MissingParent("there is no candidate to evaluate: add a stage that makes a policy to the round")
        policies = {
            "candidate": session.get_one(PolicyVersion, round.candidate_id),
            "current": session.get_one(PolicyVersion, round.baseline_id),
            "reference": sft,
        }
    models = {name: policy_path(settings, version) for name, version in policies.items()}
    parents = {f"{name}_id": version.id for name, version in policies.items()}
    if recipe in (Recipe.PPO, Recipe.EVALUATE):
        reward_model = _reward_model(session, round)
        models["reward_model"] = str(settings.artifacts / reward_model.source)
        parents["reward_model_id"] = reward_model.id
    return models, parents


def _reward_model(session: Session, round: Round) -> RewardModelVersion:
    """The one that this round fitted, or else the project's last one."""
    stage_ids = [stage.id for stage in round.stages]
    found = session.scalar(
        select(RewardModelVersion)
        .where(RewardModelVersion.project_id == round.project_id)
        .order_by(RewardModelVersion.stage_id.in_(stage_ids).desc(), RewardModelVersion.number.desc())
        .limit(1)
    )
    if found is None:
        raise MissingParent("there is no reward model yet: add the stage reward to the round")
    return found


def _register_reward_model(session: Session, project: Project, stage: Stage, result: StageResult) -> None:
    number = session.scalar(
        select(func.coalesce(func.max(RewardModelVersion.number), 0) + 1).where(
            RewardModelVersion.project_id == project.id
        )
    )
    session.add(
        RewardModelVersion(
            project_id=project.id,
            number=number,
            stage_id=stage.id,
            source=f"{stage.folder}/result",
            manifest_sha256=result.manifest_sha256,
            figures=result.figures,
        )
    )


def _register_policy(session: Session, project: Project, stage: Stage, result: StageResult) -> None:
    """A new candidate. What SFT made is what PPO starts from, in this round already."""
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
        parent_id=round.sft_policy_id,
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
    num_slates = 0
    if last.recipe == Recipe.EVALUATE and round.evaluation_comparisons > 0:
        rng = random.Random(f"{round.seed}/blind")  # noqa: S311 - reproducible, not secret
        num_slates = make_evaluation_slates(session, round, result.completions, rng, now=now)
    if num_slates > 0:
        round.state = RoundState.AWAITING_LABELS
        tell(session, last, f"{num_slates} blind comparisons wait for labelers.")
    else:
        round.state, round.finished_at = RoundState.SUCCEEDED, now


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

"""How a round that failed or was cancelled goes on: as it was, or its stages with other settings.

A checkpoint is a start only for the settings it was made with. Those that change how a stage computes and not what
(`SAME_RESULT`) may differ; with any other the stage begins anew in a folder of its own, and what it had come to stays.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.datasets.errors import SnapshotRedacted
from app.datasets.models import Snapshot
from app.db import TRAINER_CHANNEL, notify
from app.people.models import Account
from app.privacy.models import DoomedFolder
from app.projects.models import Project
from app.rounds.announcing import announce
from app.rounds.configuration import Overrides, setting_problems
from app.rounds.errors import BadRoundSetting, NotResumable, RoundIsActive
from app.rounds.models import Metric, Phase, Round, RoundState, Stage, StageEvent, StageSample, StageState, StageTry
from app.rounds.needs import check_what_settings_need
from app.rounds.service import active_round, lock, record
from trainer.settings import SAME_RESULT, recipe_config

STOPPED = (RoundState.FAILED, RoundState.CANCELLED)


@dataclass(frozen=True)
class Change:
    """What a stage runs with from now on. changed: setting -> (what it was, what it is)."""

    configuration: dict[str, Any]
    changed: Mapping[str, tuple[Any, Any]]
    begins_anew: bool


def resume_round(
    session: Session,
    round: Round,
    *,
    account: Account | None,
    now: datetime,
    overrides: Overrides | None = None,
    begin_anew: Collection[str] = (),
) -> None:
    """Queue a failed or cancelled round again; its stages go on from their last checkpoints, or begin anew.

    overrides: settings other than a stage ran with, of stages that have not succeeded.  begin_anew: recipes whose
    checkpoints are not to be used though their settings allow it.
    Raises NotResumable, SnapshotRedacted, RoundIsActive, BadRoundSetting, MissingData.
    """
    project = session.get_one(Project, round.project_id, with_for_update={"key_share": True})
    lock(session, round)
    if round.state not in STOPPED:
        raise NotResumable(round.number, round.state)
    check_labels_are_whole(session, round)
    if (active := active_round(session, project)) is not None:
        raise RoundIsActive(active.number)
    begin_anew = {*begin_anew, *recipes_without_data(session, round)}
    changes = changes_of(round, overrides or {}, begin_anew)
    if overrides:
        given = {stage.recipe: changes[stage.id].configuration for stage in open_stages(round)}
        check_what_settings_need(session, project, given)
    # A comparison that was called off: its evaluation is complete, and run again it only asks people again.
    for stage in open_stages(round) or round.stages[-1:]:
        was_stopped = stage.state != StageState.QUEUED
        told = apply(session, stage, changes[stage.id]) if stage.id in changes else GOES_ON
        stage.state, stage.error, stage.finished_at = StageState.QUEUED, None, None
        stage.owner, stage.deadline = None, None
        if was_stopped or (stage.id in changes and changes[stage.id].changed):
            session.add(StageEvent(stage_id=stage.id, attempt=stage.attempt, text=told, phase=Phase.WAITING))
    round.state, round.finished_at, round.cancel_requested_at = RoundState.QUEUED, None, None
    try:
        session.flush()
    except IntegrityError as error:
        raise RoundIsActive(round.number) from error
    notify(session, TRAINER_CHANNEL)
    announce(session, round)
    detail = {"overrides": overrides, "begin_anew": sorted(begin_anew)} if overrides or begin_anew else {}
    record(session, round, account, "round.resume", **detail)


def check_labels_are_whole(session: Session, round: Round) -> None:
    """Raises SnapshotRedacted if labels that the round is to learn from were erased since it was started."""
    snapshot = None if round.snapshot_id is None else session.get_one(Snapshot, round.snapshot_id)
    if snapshot is not None and snapshot.redaction is not None and open_stages(round):
        raise SnapshotRedacted(snapshot.name, snapshot.redaction.successor_id)


def recipes_without_data(session: Session, round: Round) -> set[str]:
    """The recipes of open stages whose data held a text that was erased since: it is written anew, without."""
    data = {f"{stage.folder}/data": stage.recipe.value for stage in open_stages(round) if stage.folder is not None}
    gone = session.scalars(select(DoomedFolder.folder).where(DoomedFolder.folder.in_(data)))
    return {data[folder] for folder in gone}


GOES_ON = "Queued again; goes on from its last checkpoint."


def open_stages(round: Round) -> list[Stage]:
    """The stages that have not succeeded."""
    return [stage for stage in round.stages if stage.state != StageState.SUCCEEDED]


def changes_of(round: Round, overrides: Overrides, begin_anew: Collection[str]) -> dict[int, Change]:
    """stage id -> what it runs with, for each that has not succeeded. Raises BadRoundSetting."""
    known = {stage.recipe.value for stage in open_stages(round)}
    problems = {
        f"{recipe}.{name}": "belongs to a stage that has ended well, or that the round does not have: clone the round"
        for recipe, values in overrides.items()
        if recipe not in known
        for name in values
    }
    changes = {}
    for stage in open_stages(round):
        given = {**stage.configuration, **overrides.get(stage.recipe, {})}
        wrong = setting_problems(stage.recipe, stage.preset, given)
        problems |= wrong
        if not wrong:
            changes[stage.id] = change_of(stage, given, stage.recipe in begin_anew)
    if problems:
        raise BadRoundSetting(problems)
    return changes


def change_of(stage: Stage, given: Mapping[str, Any], begin_anew: bool) -> Change:
    """given: settings that are in order."""
    configuration = asdict(recipe_config(stage.recipe, stage.preset, given))
    before = {**configuration, **stage.configuration}  # a setting that came with an upgrade has been its default
    changed = {name: (before[name], value) for name, value in configuration.items() if value != before[name]}
    was_begun = stage.folder is not None
    return Change(configuration, changed, was_begun and (begin_anew or bool(changed.keys() - SAME_RESULT)))


def apply(session: Session, stage: Stage, change: Change) -> str:
    """Give the stage its settings; what its story says of it."""
    told = ", ".join(f"{stage.recipe}.{name}={new} (was {old})" for name, (old, new) in change.changed.items())
    queued = f"Queued again with {told}" if told else "Queued again"
    if change.begins_anew:
        folder = keep_try(session, stage)
        queued += f"; begins anew. What it had come to stays in {folder}."
    elif stage.folder is not None:
        queued += "; goes on from its last checkpoint."
    else:
        queued += "."
    stage.configuration = change.configuration
    return queued


def keep_try(session: Session, stage: Stage) -> str:
    """Put away what the stage had come to, and give it a new folder; returns the old one."""
    assert stage.folder is not None
    number = 1 + (session.scalar(select(func.max(StageTry.number)).where(StageTry.stage_id == stage.id)) or 0)
    last = select(Metric.name, func.max(Metric.step).label("step")).where(Metric.stage_id == stage.id)
    latest = last.group_by(Metric.name).subquery()
    rows = session.execute(
        select(Metric.name, Metric.step, Metric.value)
        .join(latest, (latest.c.name == Metric.name) & (latest.c.step == Metric.step))
        .where(Metric.stage_id == stage.id)
        .order_by(Metric.name)
    ).all()
    old = stage.folder
    session.add(
        StageTry(
            stage_id=stage.id,
            number=number,
            configuration=stage.configuration,
            folder=old,
            error=stage.error,
            figures={row.name: row.value for row in rows},
            last_step=max((row.step for row in rows), default=None),
            started_at=stage.started_at,
            finished_at=stage.finished_at,
        )
    )
    session.execute(delete(Metric).where(Metric.stage_id == stage.id))
    session.execute(delete(StageSample).where(StageSample.stage_id == stage.id))
    root = old if number == 1 else old.rpartition("-")[0]
    stage.folder, stage.started_at = f"{root}-{number + 1}", None
    return old

"""How long a stage will take and what memory it needs, before it is started.

Time is that of the last run of the same recipe, scaled by the work that the settings ask for. Memory is counted from
the policy's shape and the settings (trainer.memory), and held against the device of a trainer that is alive.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.datasets.models import Snapshot
from app.policies.models import PolicyVersion
from app.projects.models import Project
from app.rounds.heart import SILENT_AFTER
from app.rounds.models import Heartbeat, Recipe, Round, Stage, StageState
from app.rounds.needs import newest_reward_model
from app.rounds.phases import worked_s
from app.rounds.shapes import policy_shape
from app.rounds.views import LabelsSoFar
from app.settings import Settings
from trainer.memory import advice_on, estimate

TIGHT = 0.9  # of the device's memory: the estimate is low by some percent (docs/hardware.md)


@dataclass(frozen=True)
class Device:
    """What a live trainer computes on. name: "cpu" or "cuda"."""

    name: str
    memory_gb: float


@dataclass(frozen=True)
class PastRun:
    """The last time that a recipe ran to its end. work: in the unit of work_of."""

    seconds: float
    work: float
    round_number: int
    is_other_project: bool
    num_examples: int | None  # demonstrations or slates that it learned from, where it says
    num_labels_then: int | None


@dataclass(frozen=True)
class Expectation:
    """What to expect of a stage. seconds: at most, as stop rules may end it earlier; None: nothing like it has run.

    memory_gb: by device, "cpu" or "cuda"; one where the device is known, both where no trainer is alive.
    """

    recipe: Recipe
    seconds: float | None
    past: PastRun | None
    memory_gb: Mapping[str, float]
    device: Device | None
    advice: str  # where the memory will not do

    @property
    def is_tight(self) -> bool:
        return bool(self.advice)


def expectations(
    session: Session,
    settings: Settings,
    project: Project,
    policy: PolicyVersion,
    configurations: Mapping[Recipe, Mapping[str, Any]],
    labels: LabelsSoFar,
    now: datetime,
) -> list[Expectation]:
    """For each stage that is configured. policy: the SFT policy that the round starts from."""
    shape = policy_shape(session, settings, policy)
    device = best_device(session, now)
    by_ensemble = is_ensemble(session, project, configurations)
    found = []
    for recipe, configuration in configurations.items():
        past = past_run(session, project, policy, recipe, now)
        devices = [device.name] if device else ["cuda", "cpu"]
        needed = (
            {name: estimate(recipe, shape, configuration, device=name, by_ensemble=by_ensemble) for name in devices}
            if shape
            else {}
        )
        is_too_much = device is not None and needed and needed[device.name].total > TIGHT * device.memory_gb
        found.append(
            Expectation(
                recipe=recipe,
                seconds=expected_s(past, recipe, configuration, num_labels_grew_by=growth(past, recipe, labels))
                if past
                else None,
                past=past,
                memory_gb={name: each.total for name, each in needed.items()},
                device=device,
                advice=advice_on(recipe, configuration, needed[device.name]) if device and is_too_much else "",
            )
        )
    return found


def best_device(session: Session, now: datetime) -> Device | None:
    """Of the trainers that are alive, that with the most memory; None while none is."""
    found = session.execute(
        select(Heartbeat.device, Heartbeat.memory_gb)
        .where(
            Heartbeat.process == "trainer",
            Heartbeat.beat_at > now - SILENT_AFTER,
            Heartbeat.device.is_not(None),
            Heartbeat.memory_gb.is_not(None),
        )
        .order_by((Heartbeat.device == "cuda").desc(), Heartbeat.memory_gb.desc())
        .limit(1)
    ).first()
    return Device(found.device or "", found.memory_gb or 0.0) if found else None


def is_ensemble(session: Session, project: Project, configurations: Mapping[Recipe, Mapping[str, Any]]) -> bool:
    """Whether the scores come from several reward models: those of this round, or else the project's last."""
    if Recipe.REWARD in configurations:
        return bool(configurations[Recipe.REWARD]["num_members"] > 1)
    newest = newest_reward_model(session, project)
    return newest is not None and newest.figures.get("num_members", 1) > 1


def past_run(
    session: Session, project: Project, policy: PolicyVersion, recipe: Recipe, now: datetime
) -> PastRun | None:
    """The recipe's last run to its end on a policy of this size, of this project rather than of another."""
    is_own = Round.project_id == project.id
    found = session.execute(
        select(Stage, Round, Snapshot)
        .join(Round, Round.id == Stage.round_id)
        .join(PolicyVersion, PolicyVersion.id == Round.sft_policy_id)
        .outerjoin(Snapshot, Snapshot.id == Round.snapshot_id)
        .where(
            Stage.recipe == recipe,
            Stage.state == StageState.SUCCEEDED,
            func.coalesce(PolicyVersion.num_parameters, 0) == (policy.num_parameters or 0),
        )
        .order_by(is_own.desc(), Stage.id.desc())
        .limit(1)
    ).first()
    if found is None:
        return None
    stage, round, snapshot = found
    result = stage.result or {}
    # A reward model reads a slate once, whatever rankings it has. Older results do not say how many there were.
    of_labels = {Recipe.SFT: "num_demonstrations", Recipe.REWARD: "num_train_slates"}
    num_examples = result.get(of_labels.get(recipe, ""))
    num_labels = None
    if snapshot is not None:
        num_labels = snapshot.num_demonstrations if recipe == Recipe.SFT else snapshot.num_rankings
    seconds = worked_s(session, stage, now)
    assert seconds is not None
    work = work_of(recipe, stage.configuration, num_steps=result.get("num_steps"), num_examples=num_examples)
    return PastRun(
        seconds=seconds,
        work=work,
        round_number=round.number,
        is_other_project=round.project_id != project.id,
        num_examples=num_examples,
        num_labels_then=num_labels,
    )


def work_of(
    recipe: Recipe, configuration: Mapping[str, Any], *, num_steps: float | None, num_examples: float | None
) -> float:
    """What the time of a stage goes with: tokens sampled and learned from, or examples read.

    num_steps: those that were done; None: all that the settings allow.  num_examples: demonstrations or slates that are
    learned from; None where they are not known, and a pass over them is the unit.
    """
    get = configuration.get
    if recipe in (Recipe.PPO, Recipe.GRPO):
        steps = get("num_steps", 1) if num_steps is None else num_steps
        return float(max(1, steps) * get("batch_size", 1) * get("max_completion_tokens", 1))
    if recipe == Recipe.REJECTION:
        return float(get("num_prompts", 1) * get("samples_per_prompt", 1) * get("max_completion_tokens", 1))
    if recipe == Recipe.EVALUATE:
        return float(get("num_prompts", 1) * get("max_completion_tokens", 1))
    if num_steps is not None and num_examples is not None:
        steps_per_pass = math.ceil(num_examples / get("batch_size", 1))  # the last batch of a pass may be a small one
        return float(max(1, num_steps) * num_examples / max(1, steps_per_pass))
    return float(get("num_epochs", 1)) * (num_examples or 1)


def growth(past: PastRun | None, recipe: Recipe, labels: LabelsSoFar) -> float:
    """How many times as many labels there are as when the past run was started. labels: what the stage learns from."""
    if past is None or not past.num_labels_then or past.is_other_project:
        return 1.0
    now = labels.num_demonstrations if recipe == Recipe.SFT else labels.num_rankings
    return now / past.num_labels_then


def expected_s(
    past: PastRun, recipe: Recipe, configuration: Mapping[str, Any], *, num_labels_grew_by: float = 1.0
) -> float:
    """Seconds of a stage, from those of a past one. num_labels_grew_by: a factor."""
    examples = (past.num_examples or 1) * num_labels_grew_by
    return past.seconds * work_of(recipe, configuration, num_steps=None, num_examples=examples) / past.work

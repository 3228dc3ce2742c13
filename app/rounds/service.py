"""Rounds: started with everything they need, and called off.

What happens inside a running stage is written by the trainer (claims, inputs, results). Nothing here waits for it.
How a round that stopped goes on: app.rounds.resuming. How one ends when people have compared: app.rounds.conclusions.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.db import TRAINER_CHANNEL, notify
from app.people.models import Account
from app.people.service import audit
from app.policies.errors import CurrentPolicyChanged
from app.policies.evaluation import (
    lock_open_comparisons,
    retire_evaluation_slates,
)
from app.policies.models import PolicyVersion
from app.policies.service import current_version, sft_policy_of
from app.projects.models import Project
from app.projects.settings import SETTINGS
from app.rounds.announcing import announce
from app.rounds.configuration import Overrides, configure, preset_of
from app.rounds.errors import (
    BadRoundSetting,
    BadStages,
    RoundIsActive,
    RoundIsOver,
    RoundNotFound,
)
from app.rounds.frozen_labels import freeze_labels
from app.rounds.models import (
    ACTIVE_ROUND_STATES,
    POLICY_RECIPES,
    Phase,
    Recipe,
    Round,
    RoundState,
    Stage,
    StageEvent,
    StageState,
)
from app.rounds.needs import check_data, check_what_settings_need, mixes_demonstrations

MOST_COMPARISONS = int(SETTINGS["evaluation_comparisons"].maximum or 0)
DEFAULT_STAGES = (Recipe.REWARD, Recipe.PPO, Recipe.EVALUATE)


def start_round(
    session: Session,
    project: Project,
    *,
    stages: Sequence[str],
    overrides: Overrides,
    account: Account | None,
    now: datetime,
    seed: int | None = None,
    evaluation_comparisons: int | None = None,
    by_rule: bool = False,
    like: int | None = None,
    saw_current: int | None = None,
) -> Round:
    """Freeze the labels so far, write down every setting of every stage, and queue the round for a trainer.

    stages: recipes in any order; they run in the order of the loop.  overrides: settings other than the preset's.
    seed: None derives one from the project's seed and the round's number.  evaluation_comparisons: blind A/B slates
    wanted at the end; None takes the project's.  by_rule: whether the project's rule starts it.  like: the round whose
    settings were taken.  saw_current: the number of the version that the person saw as current.
    Raises RoundIsActive, CurrentPolicyChanged, BadStages, BadRoundSetting, and MissingData by the name of what is
    missing.
    """
    session.get_one(Project, project.id, with_for_update={"key_share": True})  # two at once: the second sees the first
    if (active := active_round(session, project)) is not None:
        raise RoundIsActive(active.number)
    recipes = check_stages(stages)
    check_data(session, project, recipes)
    baseline = current_version(session, project)
    if saw_current is not None and saw_current != baseline.number:
        raise CurrentPolicyChanged(baseline.number)
    configurations = configure(project, recipes, preset_of(sft_policy_of(session, baseline)), overrides)
    check_what_settings_need(session, project, configurations)
    num_comparisons = wanted_comparisons(project, recipes, evaluation_comparisons)
    round = written_down(session, project, recipes, configurations, baseline, account=account, now=now, seed=seed)
    round.evaluation_comparisons, round.by_rule = num_comparisons, by_rule
    session.add(round)
    try:
        session.flush()
    except IntegrityError as error:
        raise RoundIsActive(round.number) from error
    notify(session, TRAINER_CHANNEL)
    announce(session, round)
    origin = {"by_rule": True} if by_rule else {"like": like} if like is not None else {}
    record(session, round, account, "round.start", stages=recipes, overrides=overrides, **origin)
    return round


def written_down(
    session: Session,
    project: Project,
    recipes: Sequence[Recipe],
    configurations: Mapping[Recipe, dict[str, Any]],
    baseline: PolicyVersion,
    *,
    account: Account | None,
    now: datetime,
    seed: int | None,
) -> Round:
    """The project's next round with every setting of its stages, and the labels that it learns from frozen."""
    number = 1 + (session.scalar(select(func.max(Round.number)).where(Round.project_id == project.id)) or 0)
    sft_policy = sft_policy_of(session, baseline)
    preset = preset_of(sft_policy)
    round = Round(
        project_id=project.id,
        number=number,
        seed=derived_seed(project, number) if seed is None else seed,
        sft_policy_id=sft_policy.id,
        baseline_id=baseline.id,
        requested_by=account.id if account else None,
        created_at=now,
    )
    if {Recipe.SFT, Recipe.REWARD} & set(recipes) or mixes_demonstrations(session, project, configurations):
        round.snapshot_id = freeze_labels(session, project, recipes, number, account, now).id
    round.stages = [
        Stage(position=position, recipe=recipe, preset=preset, configuration=configurations[recipe], seed=round.seed)
        for position, recipe in enumerate(recipes, start=1)
    ]
    return round


def check_stages(stages: Sequence[str]) -> list[Recipe]:
    """The chosen recipes in the order of the loop. Raises BadStages."""
    known = [recipe.value for recipe in Recipe]
    if unknown := [stage for stage in stages if stage not in known]:
        raise BadStages(f"There is no stage {unknown[0]!r}; choose from {', '.join(known)}.")
    recipes = [recipe for recipe in Recipe if recipe in stages]
    if not recipes:
        raise BadStages("A round needs a stage; choose at least one.")
    if len(recipes) < len(stages):
        raise BadStages("A stage was named twice; name each once.")
    improving = [recipe.value for recipe in recipes if recipe in POLICY_RECIPES]
    if len(improving) > 1:
        raise BadStages(f"A round improves the policy in one way; choose one of {' and '.join(improving)}.")
    if Recipe.EVALUATE in recipes and Recipe.SFT not in recipes and not improving:
        raise BadStages(
            f"evaluate judges the policy that the round makes; choose one of sft, {', '.join(POLICY_RECIPES)} too,"
            " or leave it out."
        )
    return recipes


def wanted_comparisons(project: Project, recipes: Sequence[Recipe], given: int | None) -> int:
    """How many blind comparisons end the round: none without a candidate that was evaluated."""
    if Recipe.EVALUATE not in recipes:
        return 0
    wanted = project.evaluation_comparisons if given is None else given
    if not 0 <= wanted <= MOST_COMPARISONS:
        raise BadRoundSetting({"evaluation_comparisons": f"must be from 0 to {MOST_COMPARISONS}"})
    return wanted


def derived_seed(project: Project, number: int) -> int:
    """31 bits, the same for the same project's seed and round."""
    return int.from_bytes(hashlib.sha256(f"{project.seed}/round/{number}".encode()).digest()[:4]) >> 1


def active_round(session: Session, project: Project) -> Round | None:
    """The round that is under way, if one is."""
    return session.scalar(select(Round).where(Round.project_id == project.id, Round.state.in_(ACTIVE_ROUND_STATES)))


def get_round(session: Session, project: Project, number: int) -> Round:
    """Raises RoundNotFound."""
    round = session.scalar(select(Round).where(Round.project_id == project.id, Round.number == number))
    if round is None:
        raise RoundNotFound(number)
    return round


def rounds_of(session: Session, project: Project) -> list[Round]:
    """Every round of the project, the newest first."""
    return list(session.scalars(select(Round).where(Round.project_id == project.id).order_by(Round.number.desc())))


def cancel_round(session: Session, round: Round, *, account: Account | None, now: datetime) -> None:
    """Call the round off: at once, or by asking the trainer that runs a stage to stop at its next step.

    Raises RoundIsOver.
    """
    lock_open_comparisons(session, round)
    lock(session, round)
    if round.state not in ACTIVE_ROUND_STATES:
        raise RoundIsOver(round.number, round.state)
    round.cancel_requested_at = now
    if not any(is_held(stage, now) for stage in round.stages):
        close_cancelled(session, round, now)
    session.flush()
    notify(session, TRAINER_CHANNEL)
    announce(session, round)
    record(session, round, account, "round.cancel")


def is_held(stage: Stage, now: datetime) -> bool:
    """Whether a trainer runs the stage; one whose claim ran out has died, and there is nobody to ask."""
    return stage.state == StageState.RUNNING and stage.deadline is not None and stage.deadline > now


def close_cancelled(session: Session, round: Round, now: datetime) -> None:
    """The round and whatever of it had not ended are cancelled; what was computed stays for a resume."""
    for stage in round.stages:
        if stage.state in (StageState.QUEUED, StageState.RUNNING):
            stage.state, stage.finished_at, stage.owner, stage.deadline = StageState.CANCELLED, now, None, None
            session.add(StageEvent(stage_id=stage.id, attempt=stage.attempt, text="Cancelled.", phase=Phase.ENDED))
    retire_evaluation_slates(session, round, now)
    round.state, round.finished_at = RoundState.CANCELLED, now


def lock(session: Session, round: Round) -> None:
    """Read the round and its stages as they are now, and keep the round from changing."""
    session.refresh(round, with_for_update=True)
    for stage in round.stages:
        session.refresh(stage)


def record(session: Session, round: Round, account: Account | None, action: str, **detail: Any) -> None:
    account_id = account.id if account else None
    audit(session, account_id, action, f"round:{round.number}", project_id=round.project_id, **detail)

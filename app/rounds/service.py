"""Rounds: started with everything they need, called off, and ended when people have compared.

What happens inside a running stage is written by the trainer (claims, inputs, results). Nothing here waits for it.
How a round that stopped goes on: app.rounds.resuming.
"""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import chain, count
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.datasets.errors import NothingSelected
from app.datasets.filters import Content, SnapshotFilter
from app.datasets.models import Snapshot
from app.datasets.snapshots import create_snapshot
from app.db import EVENTS_CHANNEL, TRAINER_CHANNEL, notify
from app.labeling.models import Ranking, Slate, SlateKind
from app.notifications.watching import round_changed
from app.people.models import Account
from app.people.service import audit
from app.policies.errors import CurrentPolicyChanged, NotPromotable
from app.policies.evaluation import (
    decision_so_far,
    lock_open_comparisons,
    num_open_comparisons,
    retire_evaluation_slates,
    settle_verdict,
    win_rate,
)
from app.policies.models import PolicyState, PolicyVersion
from app.policies.sequential import Decision
from app.policies.service import current_version, promote, sft_policy_of
from app.projects.models import Project
from app.projects.settings import SETTINGS
from app.prompts.models import Split
from app.rounds.configuration import Overrides, configure, preset_of
from app.rounds.errors import (
    BadRoundSetting,
    BadStages,
    NoDemonstrations,
    NotAwaitingLabels,
    RoundIsActive,
    RoundIsOver,
    RoundNotFound,
)
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

OUTCOMES = {
    Decision.BETTER: "people prefer the new policy",
    Decision.NOT_ENOUGH: "the new policy is not better enough",
    Decision.UNDECIDED: "they do not decide it",
}
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
    sft_policy = sft_policy_of(session, baseline)
    preset = preset_of(sft_policy)
    configurations = configure(project, recipes, preset, overrides)
    check_what_settings_need(session, project, configurations)
    number = 1 + (session.scalar(select(func.max(Round.number)).where(Round.project_id == project.id)) or 0)
    round = Round(
        project_id=project.id,
        number=number,
        seed=derived_seed(project, number) if seed is None else seed,
        sft_policy_id=sft_policy.id,
        baseline_id=baseline.id,
        evaluation_comparisons=wanted_comparisons(project, recipes, evaluation_comparisons),
        requested_by=account.id if account else None,
        by_rule=by_rule,
        created_at=now,
    )
    if {Recipe.SFT, Recipe.REWARD} & set(recipes) or mixes_demonstrations(session, project, configurations):
        round.snapshot_id = freeze_labels(session, project, recipes, number, account, now).id
    round.stages = [
        Stage(position=position, recipe=recipe, preset=preset, configuration=configurations[recipe], seed=round.seed)
        for position, recipe in enumerate(recipes, start=1)
    ]
    session.add(round)
    try:
        session.flush()
    except IntegrityError as error:
        raise RoundIsActive(number) from error
    notify(session, TRAINER_CHANNEL)
    announce(session, round)
    origin = {"by_rule": True} if by_rule else {"like": like} if like is not None else {}
    record(session, round, account, "round.start", stages=recipes, overrides=overrides, **origin)
    return round


def freeze_labels(
    session: Session, project: Project, recipes: Sequence[Recipe], number: int, account: Account | None, now: datetime
) -> Snapshot:
    """What the round learns from, for good: from here on none of it can be taken back.

    Raises NoDemonstrations if those there were have just been taken back.
    """
    contents = tuple(Content) if Recipe.REWARD in recipes else (Content.DEMONSTRATIONS,)
    name, chosen = snapshot_name(session, project, number), SnapshotFilter(contents=contents)
    try:
        snapshot = create_snapshot(
            session, project, name=name, filter=chosen, licence=project.licence, account=account, now=now
        )
    except NothingSelected as error:
        raise NoDemonstrations(Split.TRAIN) from error
    if Recipe.SFT in recipes:
        for split in (Split.TRAIN, Split.VALIDATION):
            if not snapshot.counts["demonstration_split"].get(split.value):
                raise NoDemonstrations(split)
    return snapshot


def snapshot_name(session: Session, project: Project, number: int) -> str:
    """What a round's snapshot is called; somebody may have used the plain name for one of their own."""
    plain = f"round-{number:04}"
    taken = set(
        session.scalars(select(Snapshot.name).where(Snapshot.project_id == project.id, Snapshot.name.startswith(plain)))
    )
    return next(name for name in chain([plain], (f"{plain}-{i}" for i in count(2))) if name not in taken)


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


def conclude_if_compared(session: Session, round_id: int, now: datetime) -> None:
    """End a round when its blind comparisons decide or the last one is in, and promote if the project's rule says so.

    Asked after every submit, and may be: the rule allows for every look (policies/sequential.py). Submits that come at
    once wait for each other at the round, and each counts what the ones before it stored.
    """
    round = locked_round(session, round_id)
    if round.state != RoundState.AWAITING_LABELS:
        return
    if decision_so_far(session, round) is not None or num_open_comparisons(session, round) == 0:
        conclude(session, round, now)
    else:
        notify(session, EVENTS_CHANNEL, f"round:{round.id}")  # the page counts what is in


def moment_of_comparison(session: Session, round_id: int, now: datetime) -> datetime:
    """When a comparison that is about to be stored came in: now, after all that came in before and after the end.

    The round is locked from here on, so the times are in the order in which the rule sees the comparisons.
    """
    round = locked_round(session, round_id)
    moment = after_the_last(session, round, now)
    return moment if round.finished_at is None else max(moment, round.finished_at + timedelta(microseconds=1))


def after_the_last(session: Session, round: Round, now: datetime) -> datetime:
    """now, or when the round's last comparison came in, if that is later: its submit waited for the lock less long."""
    last = session.scalar(
        select(func.max(Ranking.submitted_at))
        .join(Slate, Slate.id == Ranking.slate_id)
        .where(Slate.round_id == round.id, Slate.kind == SlateKind.EVALUATION)
    )
    return now if last is None else max(now, last)


def locked_round(session: Session, round_id: int) -> Round:
    return session.get_one(Round, round_id, with_for_update=True, populate_existing=True)


def end_comparison(session: Session, round: Round, *, account: Account, now: datetime) -> None:
    """End the round with the comparisons that are in. Raises NotAwaitingLabels."""
    lock_open_comparisons(session, round)
    lock(session, round)
    if round.state != RoundState.AWAITING_LABELS:
        raise NotAwaitingLabels(round.number)
    conclude(session, round, now)
    record(session, round, account, "round.end_comparison")


def conclude(session: Session, round: Round, now: datetime) -> None:
    retire_evaluation_slates(session, round, now)
    settle_verdict(session, round)
    round.state, round.finished_at = RoundState.SUCCEEDED, after_the_last(session, round, now)
    session.flush()
    if (verdict := win_rate(session, round)) is not None:
        last = round.stages[-1]
        text = f"{verdict.num_comparisons} comparisons are in: {OUTCOMES[verdict.decision or Decision.UNDECIDED]}."
        session.add(StageEvent(stage_id=last.id, attempt=last.attempt, text=text))
    promote_by_rule(session, round, now)
    announce(session, round)


def promote_by_rule(session: Session, round: Round, now: datetime) -> None:
    """Promote the candidate if the project has a rule, people's verdict meets it, and nobody decided otherwise."""
    project = session.get_one(Project, round.project_id)
    candidate = session.get_one(PolicyVersion, round.candidate_id)
    baseline = session.get_one(PolicyVersion, round.baseline_id)
    verdict = win_rate(session, round)
    if (
        project.promotes_at_lower_bound is not None
        and verdict is not None
        and verdict.decision == Decision.BETTER
        and candidate.state == PolicyState.CANDIDATE
        and baseline.state == PolicyState.CURRENT
    ):
        # An admin may decide at this moment: that stands, and the labeler's submit must not fail of it.
        with suppress(NotPromotable, CurrentPolicyChanged):
            promote(session, project, candidate, account=None, now=now, replacing=baseline.number)


def lock(session: Session, round: Round) -> None:
    """Read the round and its stages as they are now, and keep the round from changing."""
    session.refresh(round, with_for_update=True)
    for stage in round.stages:
        session.refresh(stage)


def announce(session: Session, round: Round) -> None:
    """Tell the live pages of the round and of its project, and other systems, when this transaction commits."""
    round_changed(session, round)
    notify(session, EVENTS_CHANNEL, f"round:{round.id}")
    notify(session, EVENTS_CHANNEL, f"project:{round.project_id}")


def record(session: Session, round: Round, account: Account | None, action: str, **detail: Any) -> None:
    account_id = account.id if account else None
    audit(session, account_id, action, f"round:{round.number}", project_id=round.project_id, **detail)

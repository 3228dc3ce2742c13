"""Which files an installation no longer needs, by its rule. Decides, and removes nothing.

Two kinds take nearly all of the room: checkpoints, which only a stage that goes on reads, and the weights of versions.
The weights of a version stay where it is or was current, could still become so, is kept by hand, is a supervised
policy that rounds start from, is used by a round or an evaluation that is not at its end, or is one of the last of its
project; and those of everything that such a version was made from, so that each can be made again to the bit.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.people.models import Account
from app.people.service import audit
from app.policies.errors import PolicyFilesMissing
from app.policies.models import PolicyState, PolicyVersion, RewardModelVersion
from app.policies.service import ROUNDS_PREFIX, removed
from app.projects.models import Project
from app.reward_models.models import RewardEvaluation
from app.rounds.models import ACTIVE_ROUND_STATES, Round, RoundState, Stage, StageState, StageTry
from app.settings import Settings

ENDED = (StageState.SUCCEEDED, StageState.FAILED, StageState.CANCELLED)
RESUMABLE = (RoundState.FAILED, RoundState.CANCELLED)


@dataclass(frozen=True)
class Rule:
    """keep_versions: of each project the weights of so many last versions stay; None: of all.

    checkpoints_after: a stage that ended keeps its checkpoints so long.
    """

    keep_versions: int | None
    checkpoints_after: timedelta


@dataclass(frozen=True)
class Removable:
    """Something that may go. folder: below the artifacts.  costs: what cannot be done any more, in words; or "".

    Of checkpoints `stage_id` says whose they are; of weights `version_id` does, and `number` of a policy version.
    """

    folder: str
    what: str
    costs: str = ""
    stage_id: int | None = None
    version_id: int | None = None
    is_reward_model: bool = False
    project: str | None = None
    number: int | None = None

    @property
    def is_weights(self) -> bool:
        return self.version_id is not None


def rule_of(settings: Settings) -> Rule:
    """The installation's."""
    return Rule(settings.keep_versions, timedelta(days=settings.keep_checkpoints_days))


def rule_words(rule: Rule) -> str:
    """As people read it."""
    versions = "the weights of all versions stay"
    if rule.keep_versions is not None:
        num = rule.keep_versions
        last = "version stay" if num == 1 else f"{num} versions stay"
        versions = f"the weights of a project's last {last}, and of all that are needed"
    return f"{versions}; a stage that ended keeps its checkpoints for {rule.checkpoints_after.days} days"


def keep(session: Session, version: PolicyVersion, *, account: Account | None, now: datetime | None) -> None:
    """Keep the version's weights from now on, or leave them to the rule again (now is None).

    Raises PolicyFilesMissing where they are gone already.
    """
    lock_versions(session, version.project_id)
    session.refresh(version)
    if now is not None and version.weights_removed_at is not None:
        raise PolicyFilesMissing(version.number, removed(version.weights_removed_at))
    version.kept_at = now
    action = "policy.weights_left_to_rule" if now is None else "policy.weights_kept"
    audit(session, account.id if account else None, action, f"policy_version:{version.number}", version.project_id)


def lock_versions(session: Session, project_id: int) -> Project:
    """Until this transaction ends nobody else decides which weights of the project stay, nor promotes."""
    return session.get_one(Project, project_id, with_for_update={"key_share": True})


def removable(session: Session, rule: Rule, *, now: datetime) -> list[Removable]:
    """Everything that may go now, whether or not its files still lie there."""
    projects = session.scalars(select(Project).order_by(Project.slug)).all()
    weights = [each for project in projects for each in removable_weights(session, project, rule, now=now)]
    return [*removable_checkpoints(session, rule, now=now), *weights]


def removable_weights(session: Session, project: Project, rule: Rule, *, now: datetime) -> list[Removable]:
    """Of one project: what its kept versions were not made from."""
    policies = _policies(session, project)
    models = _reward_models(session, project)
    versions: list[PolicyVersion | RewardModelVersion] = [*policies, *models]
    leaving = {each for each in versions if each.weights_removed_at is not None}
    if rule.keep_versions is not None:
        leaving = set(versions) - _kept(session, project, rule, policies, models, now)
    makes = _made_from(session, versions)
    found = []
    for each in versions:
        if each in leaving and (folder := folder_of(each)) is not None:
            needed_by = [name_of_version(other) for other, parents in makes.items() if each in parents]
            costs = f"{', '.join(needed_by)} cannot be made again without it" if needed_by else ""
            is_reward_model = isinstance(each, RewardModelVersion)
            found.append(
                Removable(
                    folder,
                    f"weights of {name_of_version(each)} of {project.slug}",
                    costs,
                    version_id=each.id,
                    is_reward_model=is_reward_model,
                    project=project.slug,
                    number=None if is_reward_model else each.number,
                )
            )
    return found


def removable_checkpoints(
    session: Session, rule: Rule, *, now: datetime, stage_id: int | None = None
) -> Iterator[Removable]:
    """Of stages that ended, and of tries before them. stage_id: of one stage alone."""
    ended = select(Stage).where(Stage.state.in_(ENDED), Stage.folder.is_not(None)).order_by(Stage.id)
    tries = select(StageTry).order_by(StageTry.stage_id, StageTry.number)
    if stage_id is not None:
        ended, tries = ended.where(Stage.id == stage_id), tries.where(StageTry.stage_id == stage_id)
    for stage in session.scalars(ended.where(Stage.finished_at < now - rule.checkpoints_after)):
        costs = "" if stage.state is StageState.SUCCEEDED else "a resume begins the stage anew"
        folder = f"{stage.folder}/checkpoints"
        yield Removable(folder, f"checkpoints of {stage.folder}, {stage.state.value}", costs, stage_id=stage.id)
    for kept in session.scalars(tries.where(StageTry.finished_at < now - rule.checkpoints_after)):
        yield Removable(f"{kept.folder}/checkpoints", f"checkpoints of {kept.folder}, given up", stage_id=kept.stage_id)


def _kept(
    session: Session,
    project: Project,
    rule: Rule,
    policies: list[PolicyVersion],
    models: list[RewardModelVersion],
    now: datetime,
) -> set[PolicyVersion | RewardModelVersion]:
    assert rule.keep_versions is not None
    kept: set[PolicyVersion | RewardModelVersion] = {*policies[-rule.keep_versions :], *models[-rule.keep_versions :]}
    in_use = _used_by_rounds(session, project, now - rule.checkpoints_after)
    for policy in policies:
        was_current = policy.state is PolicyState.CURRENT or policy.promoted_at is not None
        if was_current or policy.kept_at is not None or policy.is_sft or policy.id in in_use:
            kept.add(policy)
    read = _evaluated(session, project) | _reward_models_of_rounds(session, project, now - rule.checkpoints_after)
    kept |= {model for model in models if model.id in read}
    makes = _made_from(session, (*policies, *models))
    waiting = list(kept)
    while waiting:  # what a kept version was made from is kept too
        for parent in makes[waiting.pop()] - kept:
            kept.add(parent)
            waiting.append(parent)
    return kept


def _open_rounds(session: Session, project: Project, since: datetime) -> list[Round]:
    """Those that go on, or would if they were resumed."""
    may_go_on = Round.state.in_(ACTIVE_ROUND_STATES) | (Round.state.in_(RESUMABLE) & (Round.finished_at >= since))
    return list(session.scalars(select(Round).where(Round.project_id == project.id, may_go_on)))


def _used_by_rounds(session: Session, project: Project, since: datetime) -> set[int]:
    """Ids of policies that a round still reads, or would if it were resumed."""
    rounds = _open_rounds(session, project, since)
    used = (id for round in rounds for id in (round.sft_policy_id, round.baseline_id, round.candidate_id))
    return {id for id in used if id is not None}


def _reward_models_of_rounds(session: Session, project: Project, since: datetime) -> set[int]:
    """Ids of reward models that such a round fitted, or that its stages began to read."""
    stages = [stage for round in _open_rounds(session, project, since) for stage in round.stages]
    fitted = RewardModelVersion.stage_id.in_([stage.id for stage in stages])
    read = {id for stage in stages if (id := stage.parents.get("reward_model_id")) is not None}
    return {*session.scalars(select(RewardModelVersion.id).where(fitted)), *read}


def _evaluated(session: Session, project: Project) -> set[int]:
    """Ids of reward models that an evaluation waits for, or reads."""
    open_ones = RewardEvaluation.state.in_((StageState.QUEUED, StageState.RUNNING))
    query = select(RewardEvaluation.reward_model_id).where(RewardEvaluation.project_id == project.id, open_ones)
    return {id for id in session.scalars(query) if id is not None}


def _made_from(
    session: Session, versions: Iterable[PolicyVersion | RewardModelVersion]
) -> dict[PolicyVersion | RewardModelVersion, set[PolicyVersion | RewardModelVersion]]:
    """Each version -> what its stage read, and what it descends from."""
    all_of_them = list(versions)
    policies = {each.id: each for each in all_of_them if isinstance(each, PolicyVersion)}
    models = {each.id: each for each in all_of_them if isinstance(each, RewardModelVersion)}
    ids = [each.stage_id for each in all_of_them if each.stage_id is not None]
    stages = {stage.id: stage for stage in session.scalars(select(Stage).where(Stage.id.in_(ids)))}
    made: dict[PolicyVersion | RewardModelVersion, set[PolicyVersion | RewardModelVersion]] = {}
    for each in all_of_them:
        parents = stages[each.stage_id].parents if each.stage_id in stages else {}
        read: set[PolicyVersion | RewardModelVersion] = {
            policies[id] for name, id in parents.items() if name not in NOT_POLICIES and id in policies
        }
        if (model_id := parents.get("reward_model_id")) in models:
            read.add(models[model_id])
        if isinstance(each, PolicyVersion) and each.parent_id in policies:
            read.add(policies[each.parent_id])
        made[each] = read - {each}
    return made


NOT_POLICIES = ("snapshot_id", "reward_model_id")  # of what a stage's parents are


def _policies(session: Session, project: Project) -> list[PolicyVersion]:
    query = select(PolicyVersion).where(PolicyVersion.project_id == project.id)
    return list(session.scalars(query.order_by(PolicyVersion.number).execution_options(populate_existing=True)))


def _reward_models(session: Session, project: Project) -> list[RewardModelVersion]:
    query = select(RewardModelVersion).where(RewardModelVersion.project_id == project.id)
    return list(session.scalars(query.order_by(RewardModelVersion.number).execution_options(populate_existing=True)))


def folder_of(version: PolicyVersion | RewardModelVersion) -> str | None:
    """Below the artifacts; None: its files are none of ours."""
    if isinstance(version, RewardModelVersion):
        return version.source
    return version.source.removeprefix(ROUNDS_PREFIX) if version.source.startswith(ROUNDS_PREFIX) else None


def name_of_version(version: PolicyVersion | RewardModelVersion) -> str:
    """As people read it."""
    kind = "policy version" if isinstance(version, PolicyVersion) else "reward model"
    return f"{kind} {version.number}"

"""What a round needs before it can start: labels, prompts and models. Reads; what is missing is told by name."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Select, exists, func, select
from sqlalchemy.orm import Session, aliased

from app.datasets.facts import RankingFacts
from app.datasets.models import SnapshotRanking
from app.labeling.models import FITTING_KINDS, Demonstration, Ranking, RankingItem, Slate
from app.policies.models import RewardModelVersion
from app.projects.models import Project
from app.prompts.models import Prompt, Split, Use
from app.prompts.service import serves
from app.rounds.errors import (
    NoDemonstrations,
    NoNewRankings,
    NoPrompts,
    NoRankings,
    NoRewardModel,
    NoValidationRankings,
)
from app.rounds.models import POLICY_RECIPES, Recipe, Round, Stage, StageState


def check_data(session: Session, project: Project, recipes: Sequence[Recipe]) -> None:
    """Raises MissingData for the first stage that would have nothing to work on."""
    if Recipe.SFT in recipes:
        for split in (Split.TRAIN, Split.VALIDATION):
            if not has_demonstrations(session, project, split):
                raise NoDemonstrations(split)
    if Recipe.REWARD in recipes:
        if not has_rankings(session, project, Split.TRAIN):
            raise NoRankings()
        if not has_rankings(session, project, Split.VALIDATION):
            raise NoValidationRankings()
        check_prompts(session, project, Recipe.REWARD, Split.VALIDATION)
    elif (needs_score := {*POLICY_RECIPES, Recipe.EVALUATE} & set(recipes)) and newest_reward_model(
        session, project
    ) is None:
        raise NoRewardModel(min(needs_score, key=list(Recipe).index))
    for recipe in set(POLICY_RECIPES) & set(recipes):
        check_prompts(session, project, recipe, Split.TRAIN, Use.ROLL_OUT)
        check_prompts(session, project, recipe, Split.VALIDATION)
    if Recipe.EVALUATE in recipes:
        check_prompts(session, project, Recipe.EVALUATE, Split.TEST)


def check_what_settings_need(
    session: Session, project: Project, configurations: Mapping[Recipe, Mapping[str, Any]]
) -> None:
    """Raises MissingData for a setting that asks for what is not there."""
    if configurations.get(Recipe.SFT, {}).get("select_by") == "score":
        if newest_reward_model(session, project) is None:
            raise NoRewardModel(
                "sft.select_by=score", "fit one in a round before this one, or choose sft.select_by=loss"
            )
        check_prompts(session, project, Recipe.SFT, Split.VALIDATION)
    if configurations.get(Recipe.REWARD, {}).get("labels") == "latest_round":
        for split in (Split.TRAIN, Split.VALIDATION):
            if not has_rankings(session, project, split, only_new=True):
                raise NoNewRankings(split)


def mixes_demonstrations(
    session: Session, project: Project, configurations: Mapping[Recipe, Mapping[str, Any]]
) -> bool:
    """Whether PPO may learn demonstrations beside: it mixes texts in, and the trainer may know of no others."""
    mixes = configurations.get(Recipe.PPO, {}).get("ptx_coef", 0) > 0
    return mixes and has_demonstrations(session, project, Split.TRAIN)


def has_rankings(session: Session, project: Project, split: Split, *, only_new: bool = False) -> bool:
    """Whether a ranking that counts, on this side of the split, places one completion above another.

    only_new: look at those alone that no round's snapshot holds.
    """
    better, worse = aliased(RankingItem), aliased(RankingItem)
    wanted = (
        exists()
        .where(Ranking.project_id == project.id, Ranking.counted, Ranking.retracted_at.is_(None))
        .where(Slate.id == Ranking.slate_id, Slate.kind.in_(FITTING_KINDS))
        .where(Prompt.id == Slate.prompt_id, Prompt.split == split)
        .where(better.ranking_id == Ranking.id, worse.ranking_id == Ranking.id, better.rank < worse.rank)
    )
    if only_new:
        wanted = wanted.where(Ranking.id.not_in(rankings_of_rounds(project.id)))
    return bool(session.scalar(select(wanted)))


def num_new_rankings(session: Session, project: Project) -> int:
    """Rankings that came in since the last round was started."""
    last = session.scalar(select(func.max(Round.created_at)).where(Round.project_id == project.id))
    counted = fitting_rankings(project)
    return session.scalars(counted if last is None else counted.where(RankingFacts.submitted_at > last)).one()


def fitting_rankings(project: Project) -> Select[int]:
    """The number of rankings that fit models: counted in an index of what they are chosen by."""
    return (
        select(func.count())
        .select_from(RankingFacts)
        .where(RankingFacts.project_id == project.id, RankingFacts.kind.in_(FITTING_KINDS))
    )


def has_demonstrations(session: Session, project: Project, split: Split) -> bool:
    return bool(
        session.scalar(
            select(
                exists().where(
                    Demonstration.project_id == project.id,
                    Demonstration.split == split,
                    Demonstration.retracted_at.is_(None),
                )
            )
        )
    )


def check_prompts(session: Session, project: Project, recipe: Recipe, split: Split, use: Use | None = None) -> None:
    """Raises NoPrompts."""
    condition = exists().where(Prompt.project_id == project.id, Prompt.split == split, Prompt.set_aside_at.is_(None))
    if use is not None:
        condition = condition.where(serves(project, use))
    if not session.scalar(select(condition)):
        raise NoPrompts(recipe, split)


def newest_reward_model(session: Session, project: Project) -> RewardModelVersion | None:
    """The reward model that judges where a round fits none of its own."""
    return session.scalar(
        select(RewardModelVersion)
        .where(RewardModelVersion.project_id == project.id)
        .order_by(RewardModelVersion.number.desc())
        .limit(1)
    )


def rankings_of_rounds(project_id: int, *, before: int | None = None) -> Select[UUID]:
    """The ids of the rankings that rounds of the project have learned from. before: only rounds below this number."""
    query = (
        select(SnapshotRanking.ranking_id)
        .join(Round, Round.snapshot_id == SnapshotRanking.snapshot_id)
        .join(Stage, Stage.round_id == Round.id)
        .where(Round.project_id == project_id, Stage.recipe == Recipe.REWARD, Stage.state == StageState.SUCCEEDED)
    )
    return query if before is None else query.where(Round.number < before)

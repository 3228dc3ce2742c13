"""The loop as one picture: how each of its places does, in a word and a colour, and what flows between them now."""

from dataclasses import dataclass
from typing import Literal

from app.policies.service import STARTER_SOURCE
from app.projects.models import Project
from app.projects.overview import Overview
from app.rounds.models import POLICY_RECIPES, Recipe

Level = Literal["good", "busy", "warn", "bad", "idle"]

HARDLY_BETTER_THAN_CHANCE = 0.55  # validation accuracy; chance is 0.5, and people agree on 0.73 (arXiv:2203.02155)
FEW_TEST_PROMPTS = 50  # a win rate on fewer is ± 14 points at best


@dataclass(frozen=True)
class Health:
    """How a place of the loop does. words: short, and enough without the colour."""

    level: Level
    words: str


@dataclass(frozen=True)
class Picture:
    """The health of each place, and by place whether something goes out from it to the next one now."""

    prompts: Health
    slates: Health
    rankings: Health
    reward_model: Health
    policy: Health
    flows: dict[str, bool]


def picture_of(project: Project, seen: Overview) -> Picture:
    """What the project page draws."""
    return Picture(
        prompts=health_of_prompts(seen),
        slates=health_of_slates(project, seen),
        rankings=health_of_rankings(seen),
        reward_model=health_of_reward_model(seen),
        policy=health_of_policy(seen),
        flows=flows_of(project, seen),
    )


def health_of_prompts(seen: Overview) -> Health:
    prompts = seen.prompts
    if not prompts.total:
        return Health("bad", "none yet")
    missing = [name for name in ("train", "validation", "test") if not getattr(prompts, name)]
    if missing:
        return Health("warn", f"no {' and no '.join(missing)} prompts")
    if prompts.test < FEW_TEST_PROMPTS:
        return Health("warn", "few to test on")
    return Health("good", "enough")


def health_of_slates(project: Project, seen: Overview) -> Health:
    if project.paused_at is not None:
        return Health("warn", "paused")
    if seen.slates.ready >= seen.slates.target:
        return Health("good", "full")
    if seen.has_sampler:
        return Health("busy", "filling")
    return Health("bad", "empty, no sampler") if seen.slates.ready == 0 else Health("warn", "no sampler")


def health_of_rankings(seen: Overview) -> Health:
    if not seen.labels.num_rankings:
        return Health("idle", "none yet")
    if seen.rankings_today:
        return Health("good", "coming in")
    return Health("idle", "none today") if seen.rankings_a_day else Health("warn", "none for a week")


def health_of_reward_model(seen: Overview) -> Health:
    if seen.progress is not None and seen.progress.recipe == Recipe.REWARD:
        return Health("busy", "being fitted")
    if seen.reward_model is None:
        return Health("idle", "none yet")
    accuracy = seen.reward_model.figures.get("validation_accuracy")
    if accuracy is None:
        return Health("idle", "not judged")
    if accuracy < HARDLY_BETTER_THAN_CHANCE:
        return Health("warn", "hardly better than chance")
    return Health("good", "better than chance")


def health_of_policy(seen: Overview) -> Health:
    if seen.progress is not None and seen.progress.recipe in (*POLICY_RECIPES, Recipe.SFT):
        return Health("busy", "a new one is trained")
    if seen.candidates:
        return Health("warn", "a candidate waits")
    if seen.verdict is not None:
        return Health("good", "preferred by people") if seen.verdict.low > 0.5 else Health("idle", "judged by people")
    return Health("idle", "the starter" if seen.current.source == STARTER_SOURCE else "not judged by people")


def flows_of(project: Project, seen: Overview) -> dict[str, bool]:
    """By place: whether something goes out from it now. The policy writes the slates, for the prompts."""
    recipe = seen.progress.recipe if seen.progress is not None else None
    is_sampling = seen.slates.sampling > 0 and seen.has_sampler and project.paused_at is None
    return {
        "prompts": is_sampling,
        "slates": seen.slates.held > 0,
        "rankings": recipe == Recipe.REWARD,
        "reward_model": recipe in (*POLICY_RECIPES, Recipe.EVALUATE),
        "policy": is_sampling,
    }

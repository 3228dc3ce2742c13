"""What only a person can do for a project now, the most pressing first. Reads what was seen, asks nothing more.

A new kind of need is one more function in NEEDS, at the place of its urgency.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from app.projects.models import Project
from app.projects.overview import Overview
from app.rounds.models import RoundState, StageState

ENOUGH_NEW_RANKINGS = 100  # since the last round: a new one is worth its time


@dataclass(frozen=True)
class Need:
    """Something that only a person can do. href: below the project; empty where no page does it."""

    text: str
    href: str
    action: str


def needs_of(project: Project, seen: Overview) -> list[Need]:
    """What a person should do, the most pressing first."""
    return [need for rule in NEEDS for need in rule(project, seen)]


def failed_round(project: Project, seen: Overview) -> Iterator[Need]:
    if seen.round is not None and seen.round.state == RoundState.FAILED:
        failed = next((stage.recipe for stage in seen.round.stages if stage.state == StageState.FAILED), "a stage")
        number = seen.round.number
        yield Need(f"Round {number} failed in {failed}.", f"/rounds/{number}", "See why, and resume")


def no_prompts(project: Project, seen: Overview) -> Iterator[Need]:
    if not seen.prompts.total:
        yield Need("There are no prompts, so nothing can be sampled.", "/prompts", "Import prompts")


def no_sampler(project: Project, seen: Overview) -> Iterator[Need]:
    if is_starving(project, seen):
        yield Need("Labelers have nothing to rank, and no sampler is at work.", "", "Start one: podium sampler")


def no_trainer(project: Project, seen: Overview) -> Iterator[Need]:
    waits = seen.has_active_round and seen.round is not None and seen.round.state != RoundState.AWAITING_LABELS
    if waits and not seen.has_trainer:
        yield Need("A round waits, and no trainer is at work.", "", "Start one: podium trainer")


def open_comparisons(project: Project, seen: Overview) -> Iterator[Need]:
    if seen.round is not None and seen.comparison and seen.round.state == RoundState.AWAITING_LABELS:
        left = seen.comparison.num_asked - seen.comparison.num_in
        yield Need(f"At most {left} blind comparisons wait for labelers.", "/rank", "Compare some")


def undecided_candidates(project: Project, seen: Overview) -> Iterator[Need]:
    if seen.has_active_round:
        return
    for candidate in seen.candidates:
        address = f"/policies/{candidate.number}"
        yield Need(f"Policy version {candidate.number} waits for a decision.", address, "Promote or reject it")


def enough_new_rankings(project: Project, seen: Overview) -> Iterator[Need]:
    if not seen.has_active_round and seen.labels.num_new_rankings >= ENOUGH_NEW_RANKINGS:
        num = seen.labels.num_new_rankings
        yield Need(f"{num} rankings have come in since the last round.", "/rounds/new", "Start a round")


def paused(project: Project, seen: Overview) -> Iterator[Need]:
    if project.paused_at is not None:
        yield Need("The project is paused: nothing is sampled or handed out.", "/settings", "Let it go on")


def nobody_here(project: Project, seen: Overview) -> Iterator[Need]:
    if seen.num_labelers <= 1:
        yield Need("Nobody else is here yet.", "/people", "Invite labelers")


NEEDS: tuple[Callable[[Project, Overview], Iterator[Need]], ...] = (
    failed_round,
    no_prompts,
    no_sampler,
    no_trainer,
    open_comparisons,
    undecided_candidates,
    enough_new_rankings,
    paused,
    nobody_here,
)


def is_starving(project: Project, seen: Overview) -> bool:
    """Whether the queue is empty and nobody is there to fill it."""
    has_prompts = seen.prompts.train + seen.prompts.validation > 0
    return project.paused_at is None and seen.slates.ready == 0 and has_prompts and not seen.has_sampler

"""The mix of tasks: what a project asks of its labelers, and in which shares."""

import hashlib
import math
from collections.abc import Collection, Mapping
from enum import StrEnum
from random import Random

from app.labeling.models import SlateKind
from app.projects.models import Project


class Task(StrEnum):
    """What a labeler may be asked to do."""

    RANK = "rank"
    COMPARE = "compare"
    ANSWER = "answer"
    WRITE = "write"
    CONVERSE = "converse"


# Below the project's address. Slates of two come on the ranking page, in their share.
PATHS = {
    Task.RANK: "/rank",
    Task.COMPARE: "/rank",
    Task.ANSWER: "/answer",
    Task.WRITE: "/write",
    Task.CONVERSE: "/converse",
}
NAMES = {
    Task.RANK: "ranking",
    Task.COMPARE: "comparing two",
    Task.ANSWER: "answering prompts",
    Task.WRITE: "writing prompts",
    Task.CONVERSE: "conversing",
}
SLATES = {Task.RANK, Task.COMPARE}
GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


def on_offer(weights: Mapping[str, float]) -> list[Task]:
    """The tasks that a project with these weights asks for."""
    return [task for task in Task if weights.get(task, 0) > 0]


def at(weights: Mapping[str, float], place: float, *, without: Collection[Task] = ()) -> Task | None:
    """The task at a place of the line from 0 to 1 on which each task on offer is as long as its weight.

    without: tasks with nothing to do just now; the others share their length. None when nothing is left.
    """
    possible = [task for task in on_offer(weights) if task not in without]
    reached = place * sum(weights[task] for task in possible)
    for task in possible[:-1]:
        reached -= weights[task]
        if reached < 0:
            return task
    return next(reversed(possible), None)


def place_of(seed: str, number: int) -> float:
    """Where the task with this number lies on the line, for whoever has this seed.

    Multiples of the golden ratio fill the line more evenly than any draw: after any number of tasks each has had its
    share, to a task or two, and what comes rarely comes at even distances (Weyl's sequence).
    """
    start = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big") / 2**64
    return (start + number * GOLDEN_RATIO) % 1.0


def asks_for_slates(project: Project) -> bool:
    """Whether slates are sampled ahead of the labelers."""
    return any(task in SLATES for task in on_offer(project.task_weights))


def next_slate(project: Project, rng: Random) -> tuple[SlateKind, int]:
    """The kind and K of the next slate to plan, by the weights of ranking and comparing."""
    if at(project.task_weights, rng.random(), without=set(Task) - SLATES) is Task.COMPARE:
        return SlateKind.PAIR, 2
    return SlateKind.TRAINING, rng.randint(project.min_k, project.max_k)

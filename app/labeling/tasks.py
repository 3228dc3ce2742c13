"""The mix of tasks: what a project asks of its labelers, and which task comes next."""

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
SLATES = {Task.RANK, Task.COMPARE}


def on_offer(weights: Mapping[str, float]) -> list[Task]:
    """The tasks that a project with these weights asks for."""
    return [task for task in Task if weights.get(task, 0) > 0]


def draw(weights: Mapping[str, float], rng: Random, *, without: Collection[Task] = ()) -> Task | None:
    """A task by its weight. without: tasks with nothing to do just now. None when nothing is left."""
    possible = [task for task in on_offer(weights) if task not in without]
    if len(possible) < 2:
        return next(iter(possible), None)
    return rng.choices(possible, [weights[task] for task in possible])[0]


def asks_for_slates(project: Project) -> bool:
    """Whether slates are sampled ahead of the labelers."""
    return any(task in SLATES for task in on_offer(project.task_weights))


def next_slate(project: Project, rng: Random) -> tuple[SlateKind, int]:
    """The kind and K of the next slate to plan, by the weights of ranking and comparing."""
    if draw(project.task_weights, rng, without=set(Task) - SLATES) is Task.COMPARE:
        return SlateKind.PAIR, 2
    return SlateKind.TRAINING, rng.randint(project.min_k, project.max_k)

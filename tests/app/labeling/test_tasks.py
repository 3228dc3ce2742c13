"""The mix of tasks: what is on offer, what comes next, and which slates are planned."""

from collections import Counter
from random import Random

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import clock
from app.labeling import queue
from app.labeling.models import Slate, SlateKind
from app.labeling.tasks import Task, draw, on_offer
from app.projects.models import Project
from app.prompts.models import Split
from tests.app.conftest import Person
from tests.app.loop import make_prompts


def test_only_tasks_with_a_weight_are_on_offer() -> None:
    assert on_offer({"rank": 2, "write": 0.5, "converse": 0}) == [Task.RANK, Task.WRITE]


def test_tasks_come_in_the_proportion_of_their_weights() -> None:
    rng = Random(3)
    drawn = Counter(draw({"rank": 3, "answer": 1}, rng) for _ in range(4000))
    assert set(drawn) == {Task.RANK, Task.ANSWER}
    assert 0.72 < drawn[Task.RANK] / 4000 < 0.78  # four standard deviations about three in four


def test_a_task_with_nothing_to_do_leaves_its_share_to_the_others() -> None:
    weights = {"answer": 1000, "converse": 1}
    assert draw(weights, Random(1), without={Task.ANSWER}) is Task.CONVERSE
    assert draw(weights, Random(1), without={Task.ANSWER, Task.CONVERSE}) is None


@pytest.mark.parametrize(
    ("weights", "kinds"),
    [
        ({"rank": 1}, {SlateKind.TRAINING}),
        ({"compare": 1}, {SlateKind.PAIR}),
        ({"rank": 1, "compare": 1, "write": 8}, {SlateKind.TRAINING, SlateKind.PAIR}),
        ({"write": 1}, set()),
    ],
)
def test_slates_of_two_are_planned_in_their_share(
    session: Session, project: Project, weights: dict[str, float], kinds: set[SlateKind]
) -> None:
    make_prompts(session, project, Split.TRAIN, 20)
    project.task_weights = weights
    queue.plan_slates(session, project, now=clock(session))
    slates = session.scalars(select(Slate)).all()
    assert {slate.kind for slate in slates} == kinds
    assert all((slate.k == 2) == (slate.kind is SlateKind.PAIR) for slate in slates)
    assert queue.plan_slates(session, project, now=clock(session)) == 0  # both kinds fill the one queue


@pytest.mark.parametrize(
    ("weights", "page"),
    [
        ({"rank": 1}, "/rank"),
        ({"compare": 1}, "/rank"),
        ({"write": 1}, "/write"),
        ({"converse": 1}, "/converse"),
        ({"answer": 99, "write": 1}, "/write"),  # there is no prompt to answer
        ({"answer": 1}, "/answer"),  # nothing else either: the page says so
    ],
)
def test_work_begins_with_a_task_that_is_on_offer(
    labeler: Person, session: Session, project: Project, weights: dict[str, float], page: str
) -> None:
    project.task_weights = weights
    session.commit()
    answer = labeler.get("/projects/everyday/work")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/projects/everyday{page}")


def test_what_is_not_on_offer_cannot_be_opened(labeler: Person) -> None:
    for page in ("answer", "write/plain", "write/both_sides"):
        assert labeler.get(f"/projects/everyday/{page}").status_code == 404
    refused = labeler.post("/api/v1/projects/everyday/writings", json={"task": "plain"})
    assert (refused.status_code, refused.json()["code"]) == (404, "task_not_offered")

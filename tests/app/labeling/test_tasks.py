"""The mix of tasks: what is on offer, what comes next, and which slates are planned."""

import re
from collections import Counter
from itertools import pairwise
from uuid import uuid4

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import clock
from app.labeling import queue
from app.labeling.models import Slate, SlateKind
from app.labeling.next_task import progress_of
from app.labeling.tasks import Task, at, on_offer, place_of
from app.people.models import Labeler
from app.projects.models import Guidelines, Project
from app.prompts.models import Split
from tests.app.conftest import Person
from tests.app.labeling.conftest import MakeSlate, submit, take
from tests.app.labeling.test_conversations import TEXTS, answered, choose
from tests.app.labeling.test_demonstrations import begin
from tests.app.labeling.test_demonstrations import submit as submit_written
from tests.app.labeling.test_routes import SINCE
from tests.app.loop import make_prompts
from tests.app.quality.known import make_known


def test_only_tasks_with_a_weight_are_on_offer() -> None:
    assert on_offer({"rank": 2, "write": 0.5, "converse": 0}) == [Task.RANK, Task.WRITE]


@pytest.mark.parametrize(
    ("place", "task"), [(0.0, Task.RANK), (0.74, Task.RANK), (0.76, Task.ANSWER), (1.0, Task.ANSWER)]
)
def test_a_task_is_as_long_as_its_weight_on_the_line(place: float, task: Task) -> None:
    assert at({"rank": 3, "answer": 1}, place) is task


def test_a_task_with_nothing_to_do_leaves_its_share_to_the_others() -> None:
    weights = {"answer": 1000, "converse": 1}
    assert at(weights, 0.5, without={Task.ANSWER}) is Task.CONVERSE
    assert at(weights, 0.5, without={Task.ANSWER, Task.CONVERSE}) is None


@pytest.mark.parametrize("seed", ["1 2026-11-21", "2 2026-11-21", "1 2026-11-22"])
def test_whenever_a_day_ends_each_task_had_its_share_and_what_is_rare_was_spread_out(seed: str) -> None:
    weights = {"rank": 6, "answer": 3, "converse": 1}
    done = [at(weights, place_of(seed, number)) for number in range(400)]
    for num in range(1, 401):
        counts = Counter(done[:num])
        assert all(abs(counts[Task(task)] - num * weight / 10) <= 2 for task, weight in weights.items())
    conversations = [number for number, task in enumerate(done) if task is Task.CONVERSE]
    assert {after - before for before, after in pairwise(conversations)} <= {8, 13, 5}  # three distances, no more


def next_page(person: Person) -> str:
    """Where work goes on, below the project's address."""
    answer = person.get("/projects/everyday/work")
    assert answer.status_code == 303
    return str(answer.headers["location"]).removeprefix("/projects/everyday")


def do_next(person: Person, project: Project) -> str:
    """Do whatever comes next; returns the page that it is on."""
    page = next_page(person)
    if page == "/rank":
        (lease,) = take(person, project)
        assert submit(person, lease).status_code == 201
    elif page == "/write":
        assert submit_written(person, begin(person), prompt=f"Why {uuid4()}?", answer="So.").status_code == 201
    else:
        conversation = re.findall('data-writing="([^"]+)"', person.get(f"/projects/everyday{page}").text)[0]
        assert person.post(f"/api/v1/conversations/{conversation}/end").status_code == 204
    return page


def until_another(person: Person) -> int:
    """What the ranking page is told."""
    answer = person.post("/api/v1/projects/everyday/leases/screens", json={"wanted": 1, "since": SINCE})
    return int(re.findall('data-until-another="([0-9]+)"', answer.text)[0])


def test_the_tasks_of_a_labeler_follow_the_weights(
    labeler: Person, session: Session, project: Project, make_slate: MakeSlate
) -> None:
    project.task_weights = {"rank": 3, "write": 2, "converse": 1}
    session.commit()
    for _ in range(18):
        make_slate()
    done = Counter(do_next(labeler, project) for _ in range(24))
    for page, expected in {"/rank": 12, "/write": 8, "/converse": 4}.items():
        assert abs(done[page] - expected) <= 2


def test_the_ranking_page_is_told_after_how_many_rankings_another_task_is_due(
    labeler: Person, session: Session, project: Project, make_slate: MakeSlate
) -> None:
    project.task_weights = {"rank": 3, "write": 1}
    session.commit()
    for _ in range(16):
        make_slate()
    for _ in range(4):
        while next_page(labeler) != "/rank":
            do_next(labeler, project)
        for left in range(until_another(labeler), 0, -1):
            assert (next_page(labeler), until_another(labeler)) == ("/rank", left)
            do_next(labeler, project)
        assert next_page(labeler) == "/write"
        assert until_another(labeler) >= 1  # whoever ranks all the same is left alone until that is done


def test_a_whole_conversation_is_one_task(labeler: Person, session: Session, project: Project) -> None:
    project.task_weights = {"rank": 1, "converse": 1}
    project.max_k = 4
    session.commit()
    conversation = begin(labeler, "converse")["id"]
    for text in ("Hello", "And then?"):
        replies = answered(labeler, session, conversation, text)
        assert choose(labeler, replies[""], replies[TEXTS[0]], strength="better").status_code == 201
    me = session.scalars(select(Labeler)).one()
    assert progress_of(session, me, clock(session)).num_done == 0
    labeler.post(f"/api/v1/conversations/{conversation}/end")
    session.rollback()
    assert progress_of(session, me, clock(session)).num_done == 1


def test_asking_twice_changes_nothing(labeler: Person, session: Session, project: Project) -> None:
    project.task_weights = {"write": 1, "converse": 1}
    session.commit()
    assert len({next_page(labeler) for _ in range(8)}) == 1


def test_a_newcomer_ranks_the_onboarding_slates_before_anything_else(
    labeler: Person, researcher: Person, session: Session, project: Project, make_slate: MakeSlate
) -> None:
    source = make_slate()
    make_known(researcher, session, source, kind="onboarding", reason="Short and right.")
    project.task_weights = {"rank": 1, "write": 1000}
    session.commit()
    assert next_page(labeler) == "/rank"
    screens = labeler.post("/api/v1/projects/everyday/leases/screens", json={"since": SINCE}).text
    assert 'data-until-another=""' in screens  # no other task is open to them yet


def test_where_a_project_asks_for_rankings_alone_no_other_task_is_ever_due(
    labeler: Person, project: Project, make_slate: MakeSlate
) -> None:
    make_slate()
    screens = labeler.post("/api/v1/projects/everyday/leases/screens", json={"since": SINCE}).text
    assert 'data-until-another=""' in screens


def test_the_next_task_waits_for_consent_and_for_a_project_that_is_paused(
    labeler: Person, session: Session, project: Project
) -> None:
    project.task_weights = {"rank": 1, "write": 1}
    session.add(Guidelines(project_id=project.id, version=2, markdown="# New"))
    session.commit()
    led = labeler.get("/projects/everyday/work", follow_redirects=True)
    assert (led.status_code, led.url.path) == (200, "/projects/everyday/guidelines")
    project.paused_at = clock(session)
    session.commit()
    assert labeler.get("/projects/everyday/work").status_code == 409


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
        ({"rank": 99, "write": 1}, "/write"),  # nor a slate
        ({"answer": 1}, "/answer"),  # nothing else either: the page says so
    ],
)
def test_work_begins_with_a_task_that_is_on_offer(
    labeler: Person, session: Session, project: Project, weights: dict[str, float], page: str
) -> None:
    project.task_weights = weights
    session.commit()
    assert next_page(labeler) == page


def test_what_is_not_on_offer_cannot_be_opened(labeler: Person) -> None:
    for page in ("answer", "write", "write/plain", "write/both_sides", "converse"):
        answer = labeler.get(f"/projects/everyday/{page}")
        assert answer.status_code == 404
        assert "It asks for: ranking." in answer.text
        assert 'href="/projects/everyday/work"' in answer.text
    refused = labeler.post("/api/v1/projects/everyday/writings", json={"task": "plain"})
    assert (refused.status_code, refused.json()["code"]) == (404, "task_not_offered")

"""What public tasks say of a version: stored, on its card, on its page, over the API."""

import json
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import db, terminal
from app.people.models import AuditEvent
from app.policies import benchmark_commands
from app.policies.benchmarks import record_benchmarks
from app.policies.models import PolicyVersion
from app.policies.service import get_version
from app.projects.models import Project
from tests.app.conftest import Person


def outcome(value: float, **settings: Any) -> dict[str, Any]:
    """What the harness wrote of one task."""
    return {
        "harness": "0.4.13",
        "settings": {"as_chat": False, "limit": None, "device": "cpu", **settings},
        "results": [
            {
                "task": "arc_easy",
                "metric": "acc",
                "filter": "none",
                "value": value,
                "stderr": 0.0123,
                "num_examples": 2376,
                "num_fewshot": 5,
                "task_version": "1.0",
                "higher_is_better": True,
                "is_part": False,
            }
        ],
    }


def record(session: Session, project: Project, found: dict[str, Any]) -> PolicyVersion:
    version = get_version(session, project, 1)
    record_benchmarks(session, project, version, found, now=db.clock(session))
    session.commit()
    return version


def test_the_card_the_page_and_the_api_say_what_a_task_said(
    researcher: Person, session: Session, project: Project
) -> None:
    record(session, project, outcome(0.2567))
    line = "| arc_easy | acc | 0.2567 ± 0.012 | 5-shot | 2,376 | 0.4.13 |"
    assert line in researcher.get("/projects/everyday/policies/1/card").text
    page = " ".join(researcher.get("/projects/everyday/policies/1").text.split())
    assert "0.2567 ± 0.012" in page
    [told] = researcher.get("/api/v1/projects/everyday/policies/1/benchmarks").json()
    assert (told["task"], told["value"], told["num_fewshot"]) == ("arc_easy", 0.2567, 5)
    event = session.scalars(select(AuditEvent).filter_by(action="policy.benchmark")).one()
    assert event.detail == {"tasks": ["arc_easy"]}


def test_of_two_runs_of_one_way_the_last_is_told_and_another_way_stands_beside_it(
    researcher: Person, session: Session, project: Project
) -> None:
    record(session, project, outcome(0.25))
    record(session, project, outcome(0.75, limit=100))
    record(session, project, outcome(0.5))
    told = researcher.get("/api/v1/projects/everyday/policies/1/benchmarks").json()
    assert [(row["value"], row["settings"]["limit"]) for row in told] == [(0.5, None), (0.75, 100)]
    assert "5-shot, first 100 examples of a task" in researcher.get("/projects/everyday/policies/1/card").text


def test_a_version_that_was_asked_nothing_has_no_such_table(researcher: Person, project: Project) -> None:
    assert "Public tasks" not in researcher.get("/projects/everyday/policies/1/card").text
    assert researcher.get("/api/v1/projects/everyday/policies/1/benchmarks").json() == []


def test_labelers_do_not_read_them(labeler: Person, project: Project) -> None:
    assert labeler.get("/api/v1/projects/everyday/policies/1/benchmarks").status_code == 403


@pytest.mark.parametrize(("exit_code", "said"), [(3, "for the reason above"), (-9, "was killed (signal 9)"), (1, "1")])
def test_a_run_that_ends_badly_stores_nothing_and_says_why(
    exit_code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = f"import os, sys; os.kill(os.getpid(), {-exit_code}) if {exit_code} < 0 else sys.exit({exit_code})"
    monkeypatch.setattr(benchmark_commands, "PROGRAM", ("-c", program))
    with pytest.raises(terminal.CannotStart, match=r"nothing was stored") as refused:
        benchmark_commands.run_harness("anywhere", [])
    assert said in str(refused.value)


def test_what_the_harness_writes_is_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    program = f"import sys; open(sys.argv[2], 'w').write({json.dumps(outcome(0.5))!r})"
    monkeypatch.setattr(benchmark_commands, "PROGRAM", ("-c", program))
    assert benchmark_commands.run_harness("anywhere", ["--task=arc_easy"]) == outcome(0.5)

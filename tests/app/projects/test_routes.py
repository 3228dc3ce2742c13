"""The project's pages: the loop as it stands, making a project, its settings."""

from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import clock
from app.people.models import AuditEvent
from app.projects.models import Guidelines, Project
from app.prompts.models import Split
from app.rounds import heart
from tests.app.conftest import Person
from tests.app.loop import HOUR, make_prompts, make_rankings, make_slate


def text_of(page: Any) -> str:
    return " ".join(page.text.split())


def test_the_project_page_counts_what_is_there(researcher: Person, session: Session, project: Project) -> None:
    make_slate(session, make_prompts(session, project, Split.TRAIN)[0])
    make_rankings(session, project, Split.VALIDATION, 2)
    make_prompts(session, project, Split.TEST, 3)
    heart.beat(session, "box/7", "sampler", "fills everyday", now=clock(session))
    heart.beat(session, "box/8", "trainer", "waits", now=clock(session) - HOUR)
    session.commit()
    page = text_of(researcher.get("/projects/everyday"))
    assert "1 train, 2 validation, 3 test" in page
    assert '1 <span class="loop-of">of 20 ready' in page
    assert "2 today" in page
    assert "fills everyday" in page
    assert page.count("at work") == 1
    assert page.count(">silent<") == 1


def test_what_needs_a_person_stands_first(admin: Person, session: Session, project: Project) -> None:
    page = text_of(admin.get("/projects/everyday"))
    assert "There are no prompts, so nothing can be sampled." in page
    make_prompts(session, project, Split.TRAIN)
    session.commit()
    page = text_of(admin.get("/projects/everyday"))
    assert "There are no prompts" not in page
    assert "Labelers have nothing to rank, and no sampler is at work." in page


def test_a_labeler_does_not_see_the_project_page(labeler: Person) -> None:
    assert labeler.get("/projects/everyday").status_code == 403
    assert labeler.get("/projects/everyday/live").status_code == 403


SETTINGS = {
    "min_k": "4",
    "max_k": "6",
    "queue_target": "50",
    "overlap": "2",
    "lease_duration_s": "900",
    "max_prompt_tokens": "300",
    "max_completion_tokens": "64",
    "full_form_share": "0.1",
    "onboarding_threshold": "0.8",
    "onboarding_tries": "3",
    "shared_share": "0.2",
    "shared_overlap": "2",
    "gold_share": "0.1",
    "repeat_share": "0.05",
    "repeat_after_days": "30",
    "disagreement_share": "0.7",
    "asking_candidates": "4",
    "evaluation_comparisons": "384",
    "worthwhile_win_rate": "0.65",
    "promotes_at_lower_bound": "0.5",
    "flags": "Rude\n\nWrong",
    "mixture.current.weight": "3",
    "task.rank": "3",
    "task.answer": "1",
    "use_cases": "Write a letter\n\nPlan a day\n",
    "mixture.current.temperature": "0.9",
    "mixture.sft.weight": "1",
}


def test_settings_are_saved_and_put_on_record(admin: Person, session: Session, project: Project) -> None:
    assert admin.post("/projects/everyday/settings", data=SETTINGS).status_code == 303
    session.refresh(project)
    assert (project.max_k, project.overlap, project.full_form_share) == (6, 2, 0.1)
    assert (project.asks_quality, project.promotes_at_lower_bound) == (False, 0.5)
    assert project.flags == ["Rude", "Wrong"]
    assert (project.task_weights, project.use_cases) == ({"rank": 3, "answer": 1}, ["Write a letter", "Plan a day"])
    assert project.mixture == [
        {"source": "current", "weight": 3.0, "temperature": 0.9, "top_p": 1.0},
        {"source": "sft", "weight": 1.0, "temperature": 1.0, "top_p": 1.0},
    ]
    event = session.scalars(select(AuditEvent).where(AuditEvent.action == "project.settings")).one()
    assert event.detail["changed"]["max_k"] == [9, 6]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_k": "12"}, "must be a whole number from 4 to 9"),
        ({"min_k": "7", "max_k": "5"}, "must not be below the fewest"),
        ({"overlap": "two"}, "must be a whole number"),
        ({"gold_share": "0.7", "repeat_share": "0.4"}, "together no more than 1"),
        ({"full_form_share": "nan"}, "must be a number from 0 to 1"),
        ({"mixture.current.weight": "", "mixture.sft.weight": "0"}, "needs a policy with a weight above 0"),
        ({"task.rank": "0", "task.answer": ""}, "needs a task with a weight above 0"),
        ({"task.rank": "often"}, "must be a number"),
        ({"mixture.current.temperature": "0"}, "needs a temperature and a top-p above 0"),
    ],
)
def test_a_setting_that_breaks_its_rule_changes_nothing_and_loses_nothing(
    admin: Person, session: Session, project: Project, changes: dict[str, str], message: str
) -> None:
    response = admin.post("/projects/everyday/settings", data=SETTINGS | changes)
    assert response.status_code == 422
    assert message in response.text
    assert 'name="queue_target" value="50"' in response.text
    session.refresh(project)
    assert (project.max_k, project.queue_target) == (9, 20)


def test_a_changed_text_is_a_new_version_of_the_guidelines(admin: Person, session: Session) -> None:
    page = "/projects/everyday/guidelines/edit"
    assert admin.post(page, data={"markdown": "Be brief.\r\nBe kind."}).status_code == 303
    assert admin.post(page, data={"markdown": "Be brief.\nBe kind."}).status_code == 303
    versions = session.scalars(select(Guidelines.markdown).order_by(Guidelines.version)).all()
    assert versions[1:] == ["Be brief.\nBe kind."]
    assert admin.post(page, data={"markdown": " "}).status_code == 422


def test_a_project_can_be_paused_and_goes_on(admin: Person, session: Session, project: Project) -> None:
    admin.post("/projects/everyday/settings/pause")
    session.refresh(project)
    assert project.paused_at is not None
    assert "Paused since" in admin.get("/projects/everyday/settings").text
    admin.post("/projects/everyday/settings/go-on")
    session.refresh(project)
    assert project.paused_at is None


def test_a_researcher_changes_no_settings(researcher: Person) -> None:
    assert researcher.get("/projects/everyday/settings").status_code == 403
    assert researcher.post("/projects/everyday/settings", data=SETTINGS).status_code == 403


def test_the_api_tells_a_labeler_no_version(labeler: Person, researcher: Person) -> None:
    (mine,) = labeler.get("/api/v1/projects").json()
    assert (mine["slug"], mine["role"], mine["current_version"]) == ("everyday", "labeler", None)
    assert researcher.get("/api/v1/projects/everyday").json()["current_version"] == 1

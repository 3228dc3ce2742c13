"""Alarms by the front door: who sees them where, who may acknowledge them, and what is left of it."""

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import clock
from app.notifications.alarms import raise_alarm
from app.notifications.models import Alarm, AlarmKind
from app.people.models import AuditEvent
from app.projects.models import Project
from app.rounds.models import Round
from app.rounds.service import start_round
from tests.app.conftest import Person
from tests.app.loop import make_project, make_what_a_round_needs

ALARMS = "/projects/everyday/alarms"


@pytest.fixture
def round(session: Session, project: Project) -> Round:
    make_what_a_round_needs(session, project)
    return start_round(
        session, project, stages=["reward", "ppo"], overrides={}, account=None, now=clock(session), seed=1
    )


@pytest.fixture
def alarm(session: Session, project: Project, round: Round) -> Alarm:
    """PPO of round 1 writes ever longer completions."""
    alarm = raise_alarm(
        session,
        project.id,
        AlarmKind.LENGTH_DRIFTS,
        "While <the score> rose, completions became longer.",
        now=clock(session),
        round=round,
        stage=round.stages[1],
        numbers={"completion_tokens_now": 41.5},
        series={"completion_tokens": [(1, 27.0), (2, 41.5)], "score": [(2, 0.25)]},
    )
    session.commit()
    assert alarm is not None
    return alarm


@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize("page", ["/projects/everyday/rounds/1", "/projects/everyday", ALARMS, f"{ALARMS}/1"])
def test_an_open_alarm_is_told_on_the_rounds_page_the_projects_and_the_list(researcher: Person, page: str) -> None:
    text = researcher.get(page).text
    assert "Length pays" in text
    assert "While &lt;the score&gt; rose, completions became longer." in text


@pytest.mark.usefixtures("alarm")
def test_the_evidence_has_its_table_and_its_file(researcher: Person) -> None:
    page = researcher.get(f"{ALARMS}/1").text
    assert "What to do:" in page
    assert 'href="/projects/everyday/rounds/1/ppo/charts/length"' in page
    file = researcher.get(f"{ALARMS}/1/series.csv")
    assert file.text.splitlines() == ["step,score,completion_tokens", "1,,27.0", "2,0.25,41.5"]


def test_an_admin_acknowledges_it_once_and_it_is_kept_with_the_note(
    admin: Person, session: Session, alarm: Alarm
) -> None:
    assert admin.account is not None
    response = admin.post(f"{ALARMS}/1/acknowledge", data={"note": " The longer ones are better. "})
    assert (response.status_code, response.headers["location"]) == (303, f"{ALARMS}/1")
    session.refresh(alarm)
    assert (alarm.acknowledged_by, alarm.note) == (admin.account.id, "The longer ones are better.")
    (event,) = session.scalars(select(AuditEvent).where(AuditEvent.action == "alarm.acknowledge"))
    assert (event.subject, event.detail["note"]) == ("alarm:1", "The longer ones are better.")
    assert "Length pays" not in admin.get("/projects/everyday").text
    assert "The longer ones are better." in admin.get("/projects/everyday/rounds/1").text
    again = admin.post(f"{ALARMS}/1/acknowledge", data={"note": "me too"})
    assert again.status_code == 409
    session.refresh(alarm)
    assert alarm.note == "The longer ones are better."


def test_a_researcher_may_look_and_not_acknowledge(researcher: Person, session: Session, alarm: Alarm) -> None:
    assert "Acknowledge" not in researcher.get(f"{ALARMS}/1").text
    assert researcher.post(f"{ALARMS}/1/acknowledge").status_code == 403
    session.refresh(alarm)
    assert alarm.is_open


@pytest.mark.usefixtures("alarm")
def test_a_labeler_sees_none(labeler: Person) -> None:
    assert [labeler.get(page).status_code for page in (ALARMS, f"{ALARMS}/1")] == [403, 403]


@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize(
    ("asked", "is_there"),
    [
        ("state=open", True),
        ("state=acknowledged", False),
        ("kind=length_drifts&round=1", True),
        ("kind=eos_falls", False),
        ("round=2", False),
        ("state=nonsense&kind=&round=many", True),
        ("before=1", False),
    ],
)
def test_the_list_is_narrowed_in_the_address(researcher: Person, asked: str, is_there: bool) -> None:
    assert ("completions became longer" in researcher.get(f"{ALARMS}?{asked}").text) == is_there
    assert (len(researcher.get(f"/api/v1{ALARMS}?{asked}").json()["alarms"]) == 1) == is_there


def test_an_alarm_of_another_project_is_not_found(admin: Person, session: Session) -> None:
    other = make_project(session)
    raise_alarm(session, other.id, AlarmKind.QUEUE_EMPTY, "Nothing is ready.", now=clock(session))
    session.commit()
    assert admin.get(f"{ALARMS}/1").status_code == 404
    assert admin.post(f"/api/v1{ALARMS}/1/acknowledge", json={}).status_code == 404


@pytest.mark.usefixtures("alarm")
def test_programs_acknowledge_too(admin: Person) -> None:
    answer = admin.post(f"/api/v1{ALARMS}/1/acknowledge", json={"note": "seen"}).json()
    assert (answer["acknowledged_by"], answer["note"], answer["title"]) == ("Ada Admin", "seen", "Length pays")

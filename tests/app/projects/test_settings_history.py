"""The settings' history: every change is kept, there is a way back, and nobody saves over somebody else unawares."""

import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import db
from app.people.models import Account, AuditEvent, Role
from app.projects import settings_history
from app.projects.errors import SettingsChangedMeanwhile
from app.projects.models import Project
from tests.app.conftest import Person

PAGE = "/projects/everyday/settings"


@pytest.fixture
def other_admin(person: Callable[..., Person], project: Project) -> Person:
    return person("Abel Admin", project, Role.ADMIN)


def form_of(page: Any) -> dict[str, str]:
    """What a browser would send if the form was saved as it stands."""
    form = page.text.split("novalidate>")[1].split("</form>")[0]
    fields = {}
    for tag in re.findall(r"<input[^>]*>", form):
        attributes = dict(re.findall(r'(\w+)="([^"]*)"', tag))
        if attributes.get("type") != "checkbox" or " checked" in tag:
            fields[attributes["name"]] = attributes["value"]
    fields |= dict(re.findall(r'<textarea[^>]*name="(\w+)"[^>]*>([^<]*)</textarea>', form))
    return fields


def save(admin: Person, form: dict[str, str], **changes: str) -> Any:
    return admin.post(PAGE, data=form | changes)


def text_of(page: Any) -> str:
    return " ".join(re.sub("<[^>]+>", " ", page.text).split())


def test_a_form_that_is_saved_as_it_stands_changes_nothing(admin: Person, session: Session) -> None:
    assert save(admin, form_of(admin.get(PAGE))).status_code == 303
    assert session.scalars(select(AuditEvent).where(AuditEvent.action == "project.settings")).all() == []
    assert "Nothing was changed yet" in admin.get(PAGE).text


def test_each_change_stands_on_the_page_with_who_and_from_what_to_what(admin: Person, project: Project) -> None:
    form = form_of(admin.get(PAGE))
    changes = {"overlap": "3", "flags": form["flags"].replace("Hallucination", "Made up"), "task.compare": "2"}
    save(admin, form, **changes, promotes_at_lower_bound="0.5")
    page = text_of(admin.get(PAGE))
    assert "Ada Admin" in page.split("History")[1]
    assert "Rankings per slate 1 → 3" in page
    assert "Promote by itself above none → 0.5" in page
    assert "Flags − Hallucination; + Made up" in page
    assert "Tasks + Compare two completions: 2" in page


def test_going_back_shows_the_form_as_it_was_and_saves_nothing_by_itself(
    admin: Person, session: Session, project: Project
) -> None:
    for overlap, mixture in (("2", ""), ("3", "1"), ("4", "2")):
        changes = {"overlap": overlap, "mixture.sft.weight": mixture, "mixture.sft.temperature": "0.5"}
        assert save(admin, form_of(admin.get(PAGE)), **changes).status_code == 303
    second = session.scalars(
        select(AuditEvent.id).where(AuditEvent.action == "project.settings").order_by(AuditEvent.id).offset(1).limit(1)
    ).one()
    back = admin.get(PAGE, params={"before_change": second})
    form = form_of(back)
    assert (form["overlap"], form["mixture.sft.weight"]) == ("2", "")
    assert "now 4" in back.text
    assert "as they were before Ada Admin changed them" in back.text
    session.refresh(project)
    assert project.overlap == 4
    assert save(admin, form).status_code == 303
    session.refresh(project)
    assert (project.overlap, [entry["source"] for entry in project.mixture]) == (2, ["current"])
    assert "went back" in admin.get(PAGE).text


def test_a_change_of_another_project_is_no_way_back(admin: Person, session: Session, project: Project) -> None:
    session.add(AuditEvent(action="project.settings", subject="project:other", detail={"changed": {}}))
    session.commit()
    assert admin.get(PAGE, params={"before_change": 1}).status_code == 404


def test_who_saves_second_is_told_what_changed_and_loses_nothing(
    admin: Person, other_admin: Person, session: Session, project: Project
) -> None:
    mine, theirs = form_of(admin.get(PAGE)), form_of(other_admin.get(PAGE))
    save(other_admin, theirs, overlap="3", queue_target="50", asks_quality="false")
    told = save(admin, mine, overlap="5", max_k="6")
    assert told.status_code == 409
    page = text_of(told)
    assert "Not saved yet" in page
    assert "Abel Admin" in page
    assert "Slates kept ready 20 → 50" in page
    assert "changed meanwhile to 3; yours stands here" in page
    session.refresh(project)
    assert (project.overlap, project.max_k) == (3, 9)  # nothing of mine yet, all of theirs
    both = form_of(told)
    assert (both["overlap"], both["max_k"], both["queue_target"]) == ("5", "6", "50")
    assert "asks_quality" not in both  # they unticked it, and I had left it alone
    assert save(admin, both).status_code == 303
    session.refresh(project)
    assert (project.overlap, project.max_k, project.queue_target, project.asks_quality) == (5, 6, 50, False)


def test_the_same_change_by_two_is_no_conflict(
    admin: Person, other_admin: Person, session: Session, project: Project
) -> None:
    mine = form_of(admin.get(PAGE))
    save(other_admin, mine, overlap="3")
    assert save(admin, mine, overlap="3", max_k="6").status_code == 303
    session.refresh(project)
    assert (project.overlap, project.max_k) == (3, 6)


def test_what_is_wrong_in_a_form_is_corrected_before_others_changes_are_shown(
    admin: Person, other_admin: Person, project: Project
) -> None:
    mine = form_of(admin.get(PAGE))
    save(other_admin, mine, overlap="3")
    wrong = save(admin, mine, max_k="12")
    assert wrong.status_code == 422
    assert save(admin, form_of(wrong), max_k="6").status_code == 409  # still of the version that I saw


def test_of_two_who_save_at_once_the_second_waits_and_is_told(
    admin: Person, other_admin: Person, session: Session, project: Project
) -> None:
    seen = settings_history.version_of(session, project)
    stored = settings_history.current(project)
    outcome: list[object] = []

    def save_second() -> None:
        with db.SessionFactory.begin() as another:
            account = another.get_one(Account, other_admin.account.id)
            mine = another.get_one(Project, project.id)
            try:
                settings_history.save(another, mine, stored | {"overlap": 4}, seen=seen, account=account)
            except SettingsChangedMeanwhile as error:
                outcome.append(error.merged["max_k"])

    account = session.merge(admin.account)
    settings_history.save(session, project, stored | {"max_k": 6}, seen=seen, account=account)
    second = threading.Thread(target=save_second)
    second.start()
    second.join(timeout=0.5)
    assert second.is_alive()  # waits for the first to be decided
    session.commit()
    second.join(timeout=30)
    assert outcome == [6]


def test_all_changes_are_read_page_by_page(
    admin: Person, session: Session, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.projects.settings_routes.CHANGES_A_PAGE", 4)
    account = session.merge(admin.account)
    for overlap in range(2, 9):
        values = settings_history.current(project) | {"overlap": overlap}
        seen = settings_history.version_of(session, project)
        settings_history.save(session, project, values, seen=seen, account=account)
    session.commit()
    assert f'{PAGE}/history"' in admin.get(PAGE).text
    first = admin.get(f"{PAGE}/history").text
    older = admin.get(f"{PAGE}/history" + re.search(r'href="(\?before=\d+)"', first)[1]).text
    said = [re.findall(r"(\d) → (\d)", page) for page in (first, older)]
    assert said == [[("7", "8"), ("6", "7"), ("5", "6"), ("4", "5")], [("3", "4"), ("2", "3"), ("1", "2")]]


def test_a_researcher_reads_no_history(researcher: Person) -> None:
    assert researcher.get(f"{PAGE}/history").status_code == 403

"""The audit log: who may read it, how it is filtered and paged, and what an export holds."""

import csv
import json
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from sqlalchemy import func, insert, select, text

from app import spreadsheets
from app.people import audit_log
from app.people.audit_log import AuditFilter
from app.people.models import AuditEvent
from app.projects.models import Project

PAGE = "/projects/everyday/audit"
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def events(session, project, admin, labeler):
    """Ten days of one event each, the odd ones by the admin, every third of another action; one of another project."""
    other = Project(slug="other", name="Other")
    session.add(other)
    session.flush()
    for day in range(10):
        session.add(
            AuditEvent(
                at=START + timedelta(days=day),
                account_id=admin.account.id if day % 2 else None,
                project_id=project.id,
                action="round.start" if day % 3 == 0 else "member.pause",
                subject=f"round:{day}",
                detail={"note": f"=1+{day}"},
            )
        )
    session.add(
        AuditEvent(at=START, account_id=labeler.account.id, project_id=other.id, action="elsewhere", subject="x")
    )
    session.commit()


def subjects(session, project, **wanted) -> list[int]:
    found = audit_log.page_of(session, AuditFilter(**wanted), project=project, before=None, limit=100)
    return sorted(int(each.event.subject.removeprefix("round:")) for each in found if each.event.subject[0] == "r")


@pytest.mark.parametrize(
    ("wanted", "days"),
    [
        ({}, range(10)),
        ({"who": "ada"}, [1, 3, 5, 7, 9]),
        ({"who": "ADA.admin@"}, [1, 3, 5, 7, 9]),
        ({"who": "The system"}, [0, 2, 4, 6, 8]),
        ({"who": "nobody of that name"}, []),
        ({"who": "%"}, []),
        ({"action": "round.start"}, [0, 3, 6, 9]),
        ({"what": "ROUND:7"}, [7]),
        ({"what": "=1+4"}, [4]),
        ({"since": "2026-03-04"}, range(3, 10)),
        ({"until": "2026-03-04"}, range(4)),
        ({"since": "2026-03-04", "until": "2026-03-04"}, [3]),
        ({"who": "ada", "action": "round.start", "since": "2026-03-05"}, [9]),
    ],
)
def test_each_filter_finds_what_fits_it(session, project, events, wanted, days):
    assert subjects(session, project, **wanted) == list(days)


def test_the_filter_stands_in_the_address_of_every_page_and_of_the_files(admin, events, monkeypatch):
    monkeypatch.setattr("app.people.audit_routes.EVENTS_A_PAGE", 3)
    first = admin.get(PAGE, params={"who": "Ada", "until": "2026-03-31"}).text
    assert first.count("<code>round:") == 3
    assert 'value="Ada"' in first
    assert "export?file=csv&amp;who=Ada&amp;until=2026-03-31" in first
    older = first.split(f'href="{PAGE}?before=')[1].split('"')[0].replace("&amp;", "&")
    second = admin.get(f"{PAGE}?before={older}").text
    assert second.count("<code>round:") == 2
    assert "Older" not in second


def test_what_was_written_at_one_moment_is_shown_once_and_whole(session, project, admin):
    """The events of one transaction share their time: a page may end between them."""
    at = START
    rows = [{"at": at, "project_id": project.id, "action": "a", "subject": f"round:{n}"} for n in range(250)]
    session.execute(insert(AuditEvent), rows)
    session.commit()
    seen, before = [], None
    while events := audit_log.page_of(session, AuditFilter(), project=project, before=before, limit=100):
        seen += [each.event.id for each in events]
        before = seen[-1]
    assert (len(seen), len(set(seen))) == (250, 250)


@pytest.mark.parametrize(
    ("who", "status"), [("admin", 200), ("site_admin", 200), ("researcher", 403), ("labeler", 403), ("outsider", 404)]
)
@pytest.mark.parametrize("path", [PAGE, f"{PAGE}/export", f"/api/v1{PAGE}"])
def test_a_projects_log_is_its_admins(request, project, who, status, path):
    assert request.getfixturevalue(who).get(path).status_code == status


@pytest.mark.parametrize("path", ["/audit", "/audit/export", "/api/v1/audit"])
def test_the_installations_log_is_the_site_admins(admin, site_admin, path):
    assert (site_admin.get(path).status_code, admin.get(path).status_code) == (200, 403)


def test_a_projects_log_and_its_choices_hold_nothing_of_another_project(admin, site_admin, events):
    assert "elsewhere" not in admin.get(PAGE).text
    assert "elsewhere" not in admin.get(f"{PAGE}/export?file=jsonl").text
    assert "<option >elsewhere" in site_admin.get("/audit").text


def test_a_day_that_is_none_is_said_and_the_form_stays(admin, events):
    page = admin.get(PAGE, params={"since": "yesterday", "who": "Ada"})
    assert (page.status_code, "&#39;yesterday&#39; is no day" in page.text, 'value="Ada"' in page.text) == (
        422,
        True,
        True,
    )
    assert admin.get(f"{PAGE}/export", params={"since": "yesterday"}).status_code == 422


def test_an_export_as_csv_has_every_event_and_no_formula(admin, session, events, monkeypatch):
    monkeypatch.setattr(audit_log, "EVENTS_A_PIECE", 4)
    response = admin.get(f"{PAGE}/export?file=csv")
    assert response.headers["content-disposition"] == 'attachment; filename="everyday-audit.csv"'
    rows = list(csv.DictReader(StringIO(response.text)))
    assert [row["subject"] for row in rows][::-1] == [f"round:{day}" for day in range(10)] + ["audit"]
    assert rows[-1]["at"] == "2026-03-01T12:00:00+00:00"
    assert json.loads(rows[-1]["detail"]) == {"note": "=1+0"}
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row.values())


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_name_that_is_a_formula_is_a_text_in_a_spreadsheet(name):
    assert spreadsheets.harmless(name) == f"'{name}"


def test_numbers_and_plain_texts_stay_what_they_are():
    assert [spreadsheets.harmless(cell) for cell in (12, None, "Ada", "a=b")] == [12, None, "Ada", "a=b"]


def test_an_export_as_jsonl_is_the_filtered_log_with_times_in_iso(admin, events):
    lines = admin.get(f"{PAGE}/export?file=jsonl&action=round.start").text.splitlines()
    found = [json.loads(line) for line in lines]
    assert [each["subject"] for each in found] == ["round:9", "round:6", "round:3", "round:0"]
    assert (found[0]["who"], found[1]["who"], found[0]["at"]) == ("Ada Admin", None, "2026-03-10T12:00:00+00:00")


def test_whoever_takes_the_log_away_stands_in_it(admin, session, events):
    admin.get(f"{PAGE}/export?file=jsonl&who=ada")
    taken = session.scalars(select(AuditEvent).where(AuditEvent.action == "audit.export")).one()
    assert (taken.account_id, taken.detail) == (admin.account.id, {"file": "jsonl", "filter": {"who": "ada"}})


def test_programs_read_the_log_page_by_page(admin, events, monkeypatch):
    monkeypatch.setattr("app.people.audit_routes.EVENTS_A_PAGE", 4)
    seen, before = [], {}
    while True:
        page = admin.get(f"/api/v1{PAGE}", params={"what": "round:"} | before).json()
        seen += [event["subject"] for event in page["events"]]
        if page["next"] is None:
            break
        before = {"before": page["next"]}
    assert seen == [f"round:{day}" for day in reversed(range(10))]


def test_a_change_reads_as_what_it_was_and_what_it_became():
    changed = {"overlap": [1, 3], "flags": [["Rude", "Wrong"], ["Wrong", "Silly"]]}
    assert audit_log.said({"changed": changed, "email": None, "role": "labeler"}) == [
        ("overlap", "1 → 3"),
        ("flags", "− Rude; + Silly"),
        ("role", "labeler"),
    ]


@pytest.mark.parametrize(
    ("wanted", "in_project"),
    [
        ({}, True),
        ({}, False),
        ({"action": "common"}, True),
        ({"until": "2026-03-02"}, True),
        ({"until": "2026-03-02"}, False),
    ],
)
def test_a_page_of_a_long_log_is_found_by_an_index(session, project, wanted, in_project):
    session.execute(
        text(
            "INSERT INTO audit_event (at, project_id, action, subject) SELECT timestamptz '2026-03-01' + n * interval"
            " '1 minute', 1, CASE n % 10 WHEN 0 THEN 'rare' ELSE 'common' END, 'x' FROM generate_series(1, 20000) n"
        )
    )
    session.execute(text("ANALYZE audit_event"))
    asked = []
    execute = session.execute
    session.execute = lambda statement, *given: asked.append(statement) or execute(statement, *given)
    audit_log.page_of(session, AuditFilter(**wanted), project=project if in_project else None, before=9000, limit=101)
    compiled = asked[0].compile(session.get_bind(), compile_kwargs={"literal_binds": True})
    plan = "\n".join(
        execute(text("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) " + str(compiled).replace(":", "\\:"))).scalars()
    )
    assert "Seq Scan on audit_event" not in plan
    assert "Sort" not in plan
    assert session.scalar(select(func.count()).select_from(AuditEvent)) == 20000

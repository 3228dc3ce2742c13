"""Reports of large projects: made beside the requests, kept, shown with their time, and made anew when they are old."""

from datetime import timedelta
from threading import Thread

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from app.db import clock
from app.quality import kept_reports
from app.quality.judgements import Filter, make_digests
from app.quality.kept_reports import RENEW_AFTER, claim, name_of
from app.quality.models import KeptReport
from app.quality.reports import Between, quality_report, report_of_digests
from tests.app.quality.crowd import judge, labeler_of, new_slate

ORDER, REVERSED = [1, 2, 3, 4], [4, 3, 2, 1]
PAGE = "/projects/everyday/quality"
API = "/api/v1/projects/everyday/quality"


@pytest.fixture
def large(monkeypatch):
    """Any project is too large, and whoever asks waits until a report is made."""
    monkeypatch.setattr(kept_reports, "FEW", 0)
    monkeypatch.setattr(kept_reports, "WAIT_S", 60)


@pytest.fixture
def judged(session, project, labeler, other_labeler):
    """Lena and Otto rank one more slate: `judged(ORDER, REVERSED)`."""

    def both(*rankings):
        slate = new_slate(session, project)
        for person, ranks in zip((labeler, other_labeler), rankings, strict=True):
            judge(session, slate, labeler_of(session, project, person), ranks)
        session.commit()

    return both


def num_rankings(person) -> int:
    return person.get(API).json()["num_rankings"]


def grow_old(session):
    session.execute(update(KeptReport).values(made_at=KeptReport.made_at - RENEW_AFTER - timedelta(seconds=1)))
    session.commit()


def wait_for_makers():
    for thread in list(kept_reports._making.values()):
        thread.join(60)


def test_a_small_project_is_reported_as_it_is_now_and_nothing_is_kept(researcher, session, judged):
    judged(ORDER, REVERSED)
    assert num_rankings(researcher) == 2
    judged(ORDER, ORDER)
    assert num_rankings(researcher) == 4
    assert session.scalars(select(KeptReport)).all() == []
    assert "As of" not in researcher.get(PAGE).text


def test_a_report_is_kept_and_shown_with_its_time_until_it_is_old(large, researcher, session, judged):
    judged(ORDER, REVERSED)
    page = researcher.get(PAGE)
    assert page.status_code == 200
    assert "2 rankings" in page.text
    assert "As of <time" in page.text
    judged(ORDER, ORDER)
    assert num_rankings(researcher) == 2  # what was kept
    grow_old(session)
    assert num_rankings(researcher) == 2  # nobody waits for the new one
    wait_for_makers()
    assert num_rankings(researcher) == 4


def test_what_is_kept_says_the_same_as_a_report_that_is_made_now(large, researcher, session, project, judged):
    judged(ORDER, REVERSED)
    judged(ORDER, ORDER)
    kept = kept_reports.report_to_show(session, project.id, Filter(), Between.ALL, now=clock(session))
    made = quality_report(session, project.id, Filter(), Between.ALL)
    assert kept.made_at is not None
    assert kept_reports._REPORT.dump_python(kept, mode="json", exclude={"made_at"}) == kept_reports._REPORT.dump_python(
        made, mode="json", exclude={"made_at"}
    )


def test_each_filter_has_a_report_of_its_own(large, researcher, judged):
    judged(ORDER, REVERSED)
    assert num_rankings(researcher) == 2
    assert researcher.get(f"{API}?until=2001-01-01").json()["num_rankings"] == 0


def test_who_asks_before_the_first_report_is_made_is_told_to_come_again(large, researcher, judged, monkeypatch):
    judged(ORDER, REVERSED)
    elsewhere = Thread(target=lambda: None)  # another process makes it
    elsewhere.start()
    monkeypatch.setattr(kept_reports, "make_beside", lambda *_: elsewhere)
    answer = researcher.get(API)
    assert (answer.status_code, answer.json()["code"]) == (503, "report_being_made")
    assert int(answer.headers["retry-after"]) > 0
    page = researcher.get(PAGE)
    assert page.status_code == 503
    assert "Load this page again" in page.text


def test_of_two_processes_one_makes_a_report_and_a_killed_one_is_not_waited_for_for_ever(session, project):
    name, now = name_of(project.id, Filter(), Between.ALL), clock(session)
    assert claim(session, name, project.id, now=now)
    assert not claim(session, name, project.id, now=now + timedelta(minutes=1))
    assert claim(session, name, project.id, now=now + kept_reports.LONGEST_MAKING + timedelta(seconds=1))


def test_a_report_that_cannot_be_made_is_tried_again_by_the_next_who_asks(
    large, researcher, session, judged, monkeypatch
):
    judged(ORDER, REVERSED)

    def fail(*_):
        raise ZeroDivisionError

    with monkeypatch.context() as broken:
        broken.setattr(kept_reports, "report_of_digests", fail)
        assert researcher.get(API).status_code == 503
        wait_for_makers()
    assert num_rankings(researcher) == 2


def test_who_looks_at_their_own_work_does_not_wait_for_a_report(
    large, engine, session, project, judged, labeler, researcher, monkeypatch
):
    judged(ORDER, REVERSED)
    me, met = labeler_of(session, project, labeler).id, []
    session.commit()

    def slowly(reading, *choice):
        report = report_of_digests(reading, *choice)
        with Session(engine) as mine, mine.begin():
            mine.execute(text("SET LOCAL lock_timeout = '1s'"))
            met.append(make_digests(mine, project.id, labeler_id=me))
        return report

    monkeypatch.setattr(kept_reports, "report_of_digests", slowly)
    assert num_rankings(researcher) == 2
    assert met == [0]  # nothing was left to do, and nobody to wait for


def test_reports_that_nobody_asks_for_are_not_kept_for_ever(session, project):
    now = clock(session)
    session.add(KeptReport(name="old", project_id=project.id, report={}, made_at=now - kept_reports.UNUSED_FOR * 2))
    session.flush()
    assert claim(session, "new", project.id, now=now)
    assert session.scalars(select(KeptReport.name)).all() == ["new"]

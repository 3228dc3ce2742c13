"""Why the current policy is the current one: every decision with who, when and on what evidence."""

import pytest
from sqlalchemy.orm import Session

from app.db import clock
from app.policies.history import history
from app.policies.promotion import promote, roll_back
from app.policies.service import get_version
from app.projects.models import Project
from app.rounds.models import Round
from app.rounds.service import start_round
from tests.app.conftest import Person
from tests.app.loop import compare, evaluation_slates, make_what_a_round_needs, run_stage

POLICIES = "/projects/everyday/policies"


def run_round(session: Session, project: Project, outcomes: str) -> Round:
    """A round whose candidate people compared like this: w, t or l for each comparison."""
    round = start_round(
        session,
        project,
        stages=["reward", "ppo", "evaluate"],
        overrides={},
        account=None,
        now=clock(session),
        evaluation_comparisons=len(outcomes),
    )
    run_stage(session)
    run_stage(session)
    run_stage(session, num_pairs=6)
    names = {"w": "win", "t": "tie", "l": "loss"}
    for slate, outcome in zip(evaluation_slates(session, round), outcomes, strict=True):
        compare(session, round, slate, names[outcome])
    session.commit()
    return round


@pytest.fixture
def judged(session: Session, project: Project) -> Project:
    """Version 2 is a candidate that won two of four comparisons and tied one."""
    make_what_a_round_needs(session, project)
    run_round(session, project, "wwtl")
    return project


def test_each_decision_says_who_took_it_when_and_why(admin: Person, session: Session, judged: Project) -> None:
    admin.post(f"{POLICIES}/2/promote", data={"replacing": "1", "reason": "People prefer it."})
    admin.post(f"{POLICIES}/roll-back", data={"replacing": "2", "reason": "It became too long."})
    back, promoted, began = history(session, judged)
    assert (back.version, back.how, back.by, back.replaced, back.until) == (1, "rolled back to", "Ada Admin", 2, None)
    assert (promoted.version, promoted.how, promoted.by, promoted.replaced) == (2, "promoted", "Ada Admin", 1)
    assert (promoted.until, began.until) == (back.at, promoted.at)
    assert (began.version, began.how, began.by) == (1, "began with", None)
    page = " ".join(admin.get(POLICIES).text.split())
    assert "It was rolled back to, replacing version 2," in page
    assert "“It became too long.”" in page
    assert "“People prefer it.”" in page


def test_the_evidence_is_what_was_known_at_that_moment(session: Session, judged: Project) -> None:
    promote(session, judged, get_version(session, judged, 2), account=None, now=clock(session))
    session.commit()
    said = history(session, judged)[0].evidence
    # two wins and half a tie of four
    assert said is not None
    assert said.startswith("62\u00a0% (")
    assert "of 4 blind comparisons preferred it over version 1; score 0.80, was 0.10" in said
    round = session.get_one(Round, 1)
    stage = next(stage for stage in round.stages if stage.recipe == "evaluate")
    stage.result = {"candidate_score": 9.0}
    session.commit()
    assert history(session, judged)[0].evidence == said


def test_a_rule_and_the_command_line_are_told_apart(session: Session, judged: Project) -> None:
    judged.promotes_at_lower_bound = 0.55
    version = get_version(session, judged, 2)
    promote(session, judged, version, account=None, now=clock(session))
    roll_back(session, judged, account=None, now=clock(session))
    promote(session, judged, version, account=None, now=clock(session), on_command_line=True)
    session.commit()
    by_hand, _, by_rule, _ = history(session, judged)
    assert by_rule.by == "the project's rule: the interval's lower end above 55\u00a0%"
    assert by_hand.by == "somebody on the command line"


def test_what_was_promoted_before_either_was_written_down_may_have_been_both(session: Session, judged: Project) -> None:
    promote(session, judged, get_version(session, judged, 2), account=None, now=clock(session))
    roll_back(session, judged, account=None, now=clock(session))
    session.commit()
    back, promoted, _ = history(session, judged)
    assert promoted.by == "the project's rule, or somebody on the command line"
    assert back.by == "somebody on the command line"


def test_a_rejected_version_was_never_current(admin: Person, session: Session, judged: Project) -> None:
    admin.post(f"{POLICIES}/2/reject", data={"reason": "Too terse."})
    rejected, began = history(session, judged)
    assert (rejected.version, rejected.how, rejected.reason, rejected.until) == (2, "rejected", "Too terse.", None)
    assert began.until is None
    assert "never current" in admin.get(POLICIES).text
    assert "It was rejected, " in admin.get(f"{POLICIES}/2").text


def test_a_version_that_nothing_has_judged_is_promoted_on_no_evidence(session: Session, project: Project) -> None:
    make_what_a_round_needs(session, project)
    start_round(session, project, stages=["reward", "ppo"], overrides={}, account=None, now=clock(session))
    run_stage(session)
    run_stage(session)
    promote(session, project, get_version(session, project, 2), account=None, now=clock(session))
    assert history(session, project)[0].evidence is None


def test_a_reason_has_an_end(admin: Person, session: Session, judged: Project) -> None:
    response = admin.post(f"{POLICIES}/2/promote", data={"replacing": "1", "reason": "x" * 501})
    assert response.status_code == 422
    assert len(history(session, judged)) == 1

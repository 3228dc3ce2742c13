"""Starting a round by its form: like an earlier one, and when somebody else was quicker."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db import SessionFactory, clock
from app.people.models import AuditEvent
from app.policies.models import PolicyVersion
from app.policies.promotion import promote, roll_back
from app.policies.service import get_version
from app.projects.models import Project
from app.prompts.models import Split
from app.rounds.errors import NotResumable, RoundIsActive, RoundIsOver
from app.rounds.models import Round, RoundState
from app.rounds.resuming import resume_round
from app.rounds.service import cancel_round
from tests.app.conftest import Person
from tests.app.loop import make_rankings, make_what_a_round_needs, run_stage
from tests.app.rounds.stages import start

ROUNDS = "/projects/everyday/rounds"


@pytest.fixture
def project(project: Project, session: Session) -> Project:
    """The project with all that a round needs."""
    make_what_a_round_needs(session, project)
    session.commit()
    return project


def finish(session: Session, num_stages: int) -> None:
    for _ in range(num_stages):
        run_stage(session)
    session.commit()


def test_a_clone_has_the_stages_and_settings_of_its_model_and_marks_what_is_no_default(
    admin: Person, session: Session, project: Project
) -> None:
    changed = {"reward": {"num_epochs": 3}, "rejection": {"temperature": 1.25}}
    start(session, project, "reward", "rejection", overrides=changed)
    finish(session, 2)
    page = admin.get(f"{ROUNDS}/new?from=1").text
    assert "Start a round like round 1" in page
    assert re.findall(r'name="stages" value="(\w+)" checked', page) == ["reward", "rejection"]
    assert 'name="reward.num_epochs" value="3"' in page
    assert 'name="rejection.temperature" value="1.25"' in page
    assert page.count('<span class="badge accent">changed</span>') == 2
    form = dict(re.findall(r'name="((?:reward|rejection|evaluation|saw|from)[\w.]*)" value="([^"]*)"', page))
    assert admin.post(f"{ROUNDS}/new", data={**form, "stages": ["reward", "rejection"]}).status_code == 303
    session.expire_all()
    first, second = session.scalars(select(Round).order_by(Round.number))
    assert [stage.configuration for stage in second.stages] == [stage.configuration for stage in first.stages]
    detail = session.scalars(select(AuditEvent.detail).where(AuditEvent.subject == "round:2")).one()
    assert detail["like"] == 1


def test_a_clone_of_no_round_is_not_found(admin: Person, project: Project) -> None:
    assert admin.get(f"{ROUNDS}/new?from=7").status_code == 404


def test_a_round_is_not_started_from_a_policy_that_was_retired_while_the_form_was_open(
    admin: Person, session: Session, project: Project
) -> None:
    start(session, project, "reward", "rejection")
    finish(session, 2)
    promote(session, project, get_version(session, project, 2), account=None, now=clock(session))
    session.commit()
    assert 'name="saw" value="2"' in admin.get(f"{ROUNDS}/new").text
    roll_back(session, project, account=None, now=clock(session))
    session.commit()
    refused = admin.post(f"{ROUNDS}/new", data={"stages": ["reward"], "saw": "2", "reward.num_epochs": "7"})
    assert refused.status_code == 409
    assert "version 1" in refused.text
    assert 'name="reward.num_epochs" value="7"' in refused.text
    assert 'name="saw" value="1"' in refused.text  # the next press starts it
    assert session.scalar(select(func.count(Round.id))) == 1


def test_a_rejected_candidate_does_not_stop_the_next_round(admin: Person, session: Session, project: Project) -> None:
    start(session, project, "reward", "rejection")
    finish(session, 2)
    version = session.scalars(select(PolicyVersion).where(PolicyVersion.number == 2)).one()
    assert admin.post(f"/projects/everyday/policies/{version.number}/reject").status_code == 303
    make_rankings(session, project, Split.TRAIN)
    session.commit()
    assert admin.post(f"{ROUNDS}/new", data={"stages": ["reward"], "saw": "1"}).status_code == 303


@pytest.mark.parametrize(("act", "refusal"), [("cancel", RoundIsOver), ("resume", NotResumable)])
def test_of_two_admins_who_cancel_or_resume_at_once_one_is_told_of_the_other(
    session: Session, project: Project, act: str, refusal: type[Exception]
) -> None:
    round = start(session, project, "reward")
    if act == "resume":
        cancel_round(session, round, account=None, now=clock(session))
        session.commit()

    def press(_: int) -> str:
        with SessionFactory.begin() as own:
            do = cancel_round if act == "cancel" else resume_round
            try:
                do(own, own.get_one(Round, round.id), account=None, now=clock(own))
            except (refusal, RoundIsActive) as error:
                return type(error).__name__
        return "done"

    with ThreadPoolExecutor(2) as pool:
        answers = sorted(pool.map(press, range(2)), key=lambda answer: answer != "done")
    assert answers == ["done", refusal.__name__]
    session.expire_all()
    assert round.state == (RoundState.CANCELLED if act == "cancel" else RoundState.QUEUED)

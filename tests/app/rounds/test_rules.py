"""Rounds by rule: one starts when enough new rankings are in, once, and what keeps it from starting is told once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db import SessionFactory, clock
from app.people.models import AuditEvent
from app.projects.models import Project
from app.prompts.models import Prompt, Split
from app.rounds import claims, rules
from app.rounds.errors import BadRoundSetting, BadRule, BadStages
from app.rounds.models import Round, RoundState
from app.rounds.rule_models import RoundRule
from app.rounds.service import cancel_round
from tests.app.conftest import Person
from tests.app.loop import HOUR, make_account, make_rankings, make_what_a_round_needs, run_stage
from tests.app.rounds.stages import start

RULE = "/projects/everyday/rounds/rule"


@pytest.fixture
def project(project: Project, session: Session) -> Project:
    """The project with all that a round needs: four rankings among it."""
    make_what_a_round_needs(session, project)
    session.commit()
    return project


def write(session: Session, project: Project, **changes: Any) -> RoundRule:
    wanted: dict[str, Any] = {"num_rankings": 4, "least_hours": 0, "stages": ["reward"], "overrides": {}}
    rule = rules.write_rule(
        session,
        project,
        **{
            **wanted,
            "evaluation_comparisons": None,
            "account": make_account(session),
            "now": clock(session),
            **changes,
        },
    )
    session.commit()
    return rule


def look(session: Session, *, later: timedelta = timedelta(0)) -> bool:
    did = rules.start_due_round(session, now=clock(session) + later)
    session.commit()
    return did


def rounds(session: Session) -> list[Round]:
    return list(session.scalars(select(Round).order_by(Round.number)))


def told(session: Session) -> list[str]:
    query = select(AuditEvent.action).where(AuditEvent.subject == rules.SUBJECT).order_by(AuditEvent.id)
    return list(session.scalars(query))


def fail(session: Session) -> None:
    held = claims.claim_stage(session, owner="trainer", duration=HOUR, now=clock(session))
    assert held is not None
    claims.fail_stage(session, held, {"code": "x", "message": "no", "advice": ""}, now=clock(session))
    session.commit()


def test_a_round_starts_by_itself_when_enough_new_rankings_are_in(session: Session, project: Project) -> None:
    write(session, project, num_rankings=5, overrides={"reward": {"num_epochs": "3"}})
    assert not look(session)
    make_rankings(session, project, Split.TRAIN)
    assert look(session)
    (round,) = rounds(session)
    assert (round.by_rule, round.requested_by, round.state) == (True, None, RoundState.QUEUED)
    assert round.stages[0].configuration["num_epochs"] == 3
    run_stage(session)
    assert not look(session)  # those five are not new any more
    make_rankings(session, project, Split.TRAIN, 5)
    assert look(session)


def test_a_round_waits_for_its_hours_and_for_the_end_of_the_one_before(session: Session, project: Project) -> None:
    start(session, project, "reward")
    make_rankings(session, project, Split.TRAIN, 4)
    write(session, project, least_hours=6)
    assert not look(session, later=7 * HOUR)
    run_stage(session)
    assert not look(session, later=5 * HOUR)
    assert look(session, later=7 * HOUR)


def test_however_many_trainers_look_there_is_one_round(session: Session, project: Project) -> None:
    write(session, project)

    def trainer(_: int) -> bool:
        with SessionFactory.begin() as own:
            return rules.start_due_round(own, now=clock(own))

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(trainer, range(4))) == 1
    assert len(rounds(session)) == 1


def test_a_round_that_cannot_start_is_told_once_and_tried_again_after_a_while(
    session: Session, project: Project, admin: Person
) -> None:
    for prompt in session.scalars(select(Prompt).where(Prompt.split == Split.VALIDATION)):
        prompt.set_aside_at, prompt.set_aside_reason = clock(session), "too long"
    write(session, project)
    assert look(session)
    assert not look(session)
    assert look(session, later=1.5 * HOUR)
    assert told(session) == ["round_rule.write", "round_rule.problem"]
    assert rounds(session) == []
    said = "reward needs prompts of the validation split and there are none"
    assert said in admin.get(RULE).text
    assert said in admin.get("/projects/everyday").text
    for prompt in session.scalars(select(Prompt)):
        prompt.set_aside_at = prompt.set_aside_reason = None
    session.commit()
    assert admin.post(f"{RULE}/go-on").status_code == 303  # try again now
    assert look(session)
    assert session.scalars(select(RoundRule.problem)).one() is None
    assert said not in admin.get("/projects/everyday").text


def test_a_failed_round_pauses_the_rule_until_an_admin_has_looked(
    session: Session, project: Project, admin: Person
) -> None:
    write(session, project)
    look(session)
    fail(session)
    make_rankings(session, project, Split.TRAIN, 9)
    session.commit()
    assert look(session)
    assert not look(session, later=24 * HOUR)
    assert len(rounds(session)) == 1
    assert "round 1 failed" in admin.get(RULE).text
    assert "The rule for rounds is paused: round 1 failed." in admin.get("/projects/everyday").text
    admin.post(f"{RULE}/go-on")
    session.expire_all()
    assert look(session)  # the failure has been seen
    assert len(rounds(session)) == 2
    assert told(session) == ["round_rule.write", "round_rule.pause", "round_rule.go_on"]


def test_a_failure_pauses_the_rule_though_the_round_ran_already_when_the_rule_was_written(
    session: Session, project: Project
) -> None:
    """Seen to fail while the rule took every last round for one that somebody had looked at."""
    write(session, project)
    look(session)
    write(session, project)
    fail(session)
    assert look(session)
    assert "round_rule.pause" in told(session)


def test_a_round_that_was_seen_to_fail_and_fails_again_pauses_the_rule_again(
    session: Session, project: Project, admin: Person
) -> None:
    write(session, project)
    look(session)
    fail(session)
    look(session)
    admin.post(f"{RULE}/go-on")
    admin.post("/projects/everyday/rounds/1/resume")
    session.expire_all()
    fail(session)
    assert look(session)
    assert told(session).count("round_rule.pause") == 2


def test_a_problem_is_no_news_once_somebody_started_a_round(session: Session, project: Project, admin: Person) -> None:
    write(session, project, stages=["ppo"])
    assert look(session)
    assert "could start no round" in admin.get("/projects/everyday").text
    assert admin.post("/api/v1/projects/everyday/rounds", json={"stages": ["reward"]}).status_code == 201
    assert "could start no round" not in admin.get("/projects/everyday").text
    assert "A round is due and could not start" not in admin.get(RULE).text


def test_a_cancelled_round_does_not_start_again_by_itself(session: Session, project: Project) -> None:
    write(session, project)
    look(session)
    cancel_round(session, rounds(session)[0], account=None, now=clock(session))
    assert not look(session, later=48 * HOUR)


def test_a_paused_rule_and_a_paused_project_start_nothing(session: Session, project: Project, admin: Person) -> None:
    write(session, project)
    admin.post(f"{RULE}/pause")
    assert not look(session)
    admin.post(f"{RULE}/go-on")
    project.paused_at = clock(session)
    session.commit()
    assert not look(session)


def test_a_rule_that_could_never_start_a_round_is_refused(session: Session, project: Project) -> None:
    for wrong, error in (
        ({"num_rankings": 0}, BadRule),
        ({"least_hours": -1}, BadRule),
        ({"stages": []}, BadStages),
        ({"overrides": {"reward": {"num_epochs": "0"}}}, BadRoundSetting),
        ({"overrides": {"ppo": {"clip": "0.1"}}}, BadRoundSetting),
    ):
        with pytest.raises(error):
            write(session, project, **wrong)
    assert session.scalar(select(func.count()).select_from(RoundRule)) == 0


def test_the_rule_is_written_seen_and_changed_on_its_page(
    admin: Person, researcher: Person, session: Session, project: Project
) -> None:
    assert "There is no rule" in researcher.get(RULE).text
    form = {"num_rankings": "50", "least_hours": "12", "stages": ["reward", "ppo"], "ppo.kl_coef": "0.5"}
    assert researcher.post(RULE, data=form).status_code == 403
    assert admin.post(RULE, data=form).status_code == 303
    page = " ".join(researcher.get(RULE).text.split())
    assert "When <strong>50</strong> rankings have come in" in page
    assert "waits for 46 more rankings" in page
    assert "ppo.kl_coef=0.5" in page
    refused = admin.post(RULE, data={**form, "num_rankings": "many"})
    assert (refused.status_code, "must be a whole number" in refused.text) == (422, True)
    assert 'value="many"' in refused.text
    assert session.scalars(select(RoundRule.num_rankings)).one() == 50


def test_a_project_without_a_rule_has_none_to_pause(admin: Person, project: Project) -> None:
    assert admin.post(f"{RULE}/pause").status_code == 404


API = "/api/v1/projects/everyday/round-rule"


def test_programs_write_the_rule_and_read_how_far_it_is(
    session: Session, project: Project, admin: Person, researcher: Person
) -> None:
    missing = researcher.get(API)
    assert (missing.status_code, missing.json()["code"]) == (404, "no_rule")
    sent = {"num_rankings": 6, "least_hours": 0, "stages": ["reward"], "overrides": {"reward": {"num_epochs": 3}}}
    written = admin.put(API, json=sent)
    assert written.status_code == 200, written.text
    assert {**written.json(), **sent} == written.json() == researcher.get(API).json()
    assert written.json()["waits_for"] == ["2 more rankings"]
    assert (written.json()["num_new_rankings"], written.json()["is_paused"]) == (4, False)
    assert told(session) == ["round_rule.write"]
    assert session.scalars(select(AuditEvent.account_id).where(AuditEvent.subject == rules.SUBJECT)).all() == [
        admin.account.id
    ]


def test_a_program_pauses_the_rule_by_writing_that_it_is(session: Session, project: Project, admin: Person) -> None:
    assert admin.put(API, json={"num_rankings": 1, "least_hours": 0, "is_paused": True}).json()["is_paused"] is True
    assert not look(session)
    assert admin.put(API, json={"num_rankings": 1, "least_hours": 0}).json()["is_paused"] is False
    assert look(session)


def test_only_admins_write_the_rule_and_what_could_never_start_is_refused(
    session: Session, project: Project, admin: Person, researcher: Person, labeler: Person
) -> None:
    assert researcher.put(API, json={}).status_code == 403
    assert labeler.get(API).status_code == 403
    for wrong in ({"num_rankings": 0}, {"stages": ["soup"]}, {"overrides": {"ppo": {"kl_coef": -1}}}, {"what": 1}):
        assert admin.put(API, json=wrong).status_code == 422
    assert told(session) == []

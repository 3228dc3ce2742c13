"""The pages and the API of rounds, by the front door."""

import re
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import clock
from app.people.models import AuditEvent
from app.projects.models import Project
from app.rounds import claims, heart, results
from app.rounds.models import Round, RoundState
from tests.app.conftest import Person
from tests.app.loop import HOUR, compare, evaluation_slates, make_project, make_what_a_round_needs, run_stage

ROUNDS = "/projects/everyday/rounds"
START = {"stages": ["reward", "ppo", "evaluate"], "evaluation_comparisons": "4"}


@pytest.fixture
def project(project: Project, session: Session) -> Project:
    """The project with all that a round needs."""
    make_what_a_round_needs(session, project)
    session.commit()
    return project


def start(admin: Person, **changes: Any) -> Any:
    return admin.post(f"{ROUNDS}/new", data=START | changes)


def the_round(session: Session) -> Round:
    session.expire_all()
    return session.scalars(select(Round)).one()


def test_the_form_explains_every_setting_with_its_default_and_its_paper(admin: Person) -> None:
    page = admin.get(f"{ROUNDS}/new").text
    assert 'name="ppo.kl_coef"' in page
    assert "KL penalty per nat" in page
    assert "InstructGPT, arXiv:2203.02155, C.4" in page
    assert "At least 0." in page


def test_the_form_starts_a_round(admin: Person, session: Session) -> None:
    response = start(admin, **{"ppo.kl_coef": "0.07"})
    assert (response.status_code, response.headers["location"]) == (303, f"{ROUNDS}/1")
    round = the_round(session)
    assert [stage.recipe for stage in round.stages] == ["reward", "ppo", "evaluate"]
    assert round.stages[1].configuration["kl_coef"] == 0.07
    assert round.evaluation_comparisons == 4
    assert round.requested_by == admin.account.id
    assert session.scalars(select(AuditEvent.action).where(AuditEvent.subject == "round:1")).all() == ["round.start"]


def test_a_setting_out_of_range_comes_back_with_its_rule_and_nothing_is_lost(admin: Person, session: Session) -> None:
    response = start(admin, **{"ppo.kl_coef": "-3", "ppo.num_steps": "77", "reward.num_epochs": "2.5"})
    assert response.status_code == 422
    assert "ppo.kl_coef must be at least 0" in response.text
    assert "reward.num_epochs must be a whole number" in response.text
    assert re.search(r'name="ppo.num_steps" value="77"', response.text)
    assert re.search(r'name="ppo.kl_coef" value="-3"', response.text)
    assert session.scalars(select(Round)).all() == []


def test_a_number_of_comparisons_that_is_none_is_refused_beside_its_field(admin: Person) -> None:
    response = start(admin, evaluation_comparisons="many")
    assert response.status_code == 422
    assert "must be a whole number" in response.text


def test_two_ways_to_improve_the_policy_come_back_with_a_sentence_and_nothing_is_lost(admin: Person) -> None:
    response = start(admin, stages=["reward", "ppo", "rejection"], **{"rejection.samples_per_prompt": "12"})
    assert response.status_code == 422
    assert "A round improves the policy in one way; choose one of ppo and rejection." in response.text
    assert re.search(r'name="rejection.samples_per_prompt" value="12"', response.text)


@pytest.mark.parametrize("recipe", ["grpo", "rejection"])
def test_every_way_to_improve_a_policy_has_its_pages(admin: Person, session: Session, recipe: str) -> None:
    assert start(admin, stages=["reward", recipe, "evaluate"]).status_code == 303
    run_stage(session)
    held = claims.claim_stage(session, owner="trainer", duration=HOUR, now=clock(session))
    assert held is not None
    sampled = {"sampled_score": 0.1, "chosen_score": 1.4, "num_completions": 512}
    rows = [{"step": 0, "at": 0, **sampled}, {"step": 1, "at": 1, "held_out_score": 0.5, "held_out_kl": 1.5}]
    results.record_metrics(session, held, rows)
    claims.release_stage(session, held, "Handed back.")
    session.commit()
    page = admin.get(f"{ROUNDS}/1").text
    assert f"{recipe}/charts/best_of_n.svg" in page
    assert f"{recipe}/charts/score.svg" in page
    assert "charts/num_completions" not in page  # a number, and no line
    run_stage(session)
    run_stage(session, num_pairs=4)
    session.commit()
    assert "held-out score" in admin.get(f"{ROUNDS}/1").text
    for path in ("/projects/everyday", "/projects/everyday/policies", "/projects/everyday/policies/2", ROUNDS):
        shown = admin.get(path)
        assert shown.status_code == 200
        assert path == "/projects/everyday" or recipe in shown.text


def test_no_stage_is_refused_with_the_form(admin: Person) -> None:
    response = start(admin, stages=[])
    assert (response.status_code, "choose at least one" in response.text) == (422, True)


def test_a_second_round_is_refused_with_the_name_of_the_first(admin: Person, session: Session) -> None:
    start(admin)
    response = start(admin)
    assert response.status_code == 409
    assert "Round 1 is under way" in response.text
    assert the_round(session).number == 1


@pytest.mark.parametrize("path", ["", "/new", "/1", "/1/live", "/1/ppo/charts/kl"])
def test_a_labeler_sees_no_page_of_rounds(labeler: Person, path: str) -> None:
    assert labeler.get(ROUNDS + path).status_code == 403


def test_a_researcher_reads_rounds_and_starts_none(researcher: Person, admin: Person) -> None:
    start(admin)
    assert researcher.get(f"{ROUNDS}/1").status_code == 200
    assert researcher.get(f"{ROUNDS}/new").status_code == 403
    assert researcher.post(f"{ROUNDS}/1/cancel").status_code == 403


def test_an_unknown_round_and_chart_are_named(admin: Person) -> None:
    start(admin)
    assert "no round 9" in admin.get(f"{ROUNDS}/9").text
    assert admin.get(f"{ROUNDS}/1/ppo/charts/nonsense.svg").status_code == 404
    assert admin.get(f"{ROUNDS}/1/sft/charts/kl.svg").status_code == 404


def report(session: Session, recipe_metrics: list[dict[str, float]]) -> None:
    """A trainer runs the next stage and reports."""
    claim = claims.claim_stage(session, owner="trainer", duration=HOUR, now=clock(session))
    assert claim is not None
    results.record_metrics(session, claim, recipe_metrics)
    samples = [{"step": 2, "position": 0, "prompt": "Hi", "completion": "<b>Hello</b>", "score": 0.4, "kl": 1.25}]
    results.record_samples(session, claim, samples)
    session.commit()


def test_a_running_stage_shows_its_charts_and_what_the_policy_writes(admin: Person, session: Session) -> None:
    start(admin)
    run_stage(session)
    report(session, [{"step": 1, "at": 0, "kl": 0.5, "score": 0.1}, {"step": 2, "at": 1, "kl": 0.75, "score": 0.2}])
    page = admin.get(f"{ROUNDS}/1/live").text
    assert f"{ROUNDS}/1/ppo/charts/kl.svg?step=2" in page
    assert "&lt;b&gt;Hello&lt;/b&gt;" in page
    assert '<td class="numeric">0.4</td><td class="numeric">1.25</td>' in page


def test_a_chart_is_a_picture_a_table_and_a_file(admin: Person, session: Session) -> None:
    start(admin)
    report(session, [{"step": 1, "at": 0, "loss": 0.5}, {"step": 2, "at": 1, "loss": 0.25, "validation_loss": 0.375}])
    chart = f"{ROUNDS}/1/reward/charts/loss"
    picture = admin.get(f"{chart}.svg")
    assert picture.headers["content-type"] == "image/svg+xml"
    assert b"<svg" in picture.content
    assert b"<script" not in picture.content
    assert admin.get(f"{chart}.csv").text == "step,loss,validation_loss\r\n1,0.5,\r\n2,0.25,0.375\r\n"
    assert '<td class="numeric">0.375</td>' in admin.get(chart).text


def test_a_failed_stage_says_which_why_and_what_to_do(admin: Person, session: Session) -> None:
    start(admin)
    claim = claims.claim_stage(session, owner="trainer", duration=HOUR, now=clock(session))
    assert claim is not None
    error = {
        "code": "out_of_memory",
        "message": "The recipe ran out of memory.",
        "advice": "Lower reward.micro_batch_tokens.",
        "last_lines": ["step 3", "Killed"],
    }
    claims.fail_stage(session, claim, error, now=clock(session))
    session.commit()
    page = admin.get(f"{ROUNDS}/1").text
    assert "The stage reward failed:</strong> The recipe ran out of memory." in page
    assert "Lower reward.micro_batch_tokens." in page
    assert "step 3\nKilled" in page
    assert admin.post(f"{ROUNDS}/1/resume").status_code == 303
    assert the_round(session).state == RoundState.QUEUED


def test_a_round_whose_trainer_went_silent_says_what_happens_and_what_to_do(admin: Person, session: Session) -> None:
    start(admin)
    now = clock(session)
    heart.beat(session, "trainer", "trainer", "round 1, stage reward", now=now)
    claim = claims.claim_stage(session, owner="trainer", duration=HOUR, now=now)
    assert claim is not None
    session.commit()
    page = admin.get(f"{ROUNDS}/1").text
    assert "No trainer is at work" not in page
    assert "has not been heard of" not in page
    heart.beat(session, "trainer", "trainer", "round 1, stage reward", now=now - HOUR)
    claims.renew_stage(session, claim, duration=-HOUR, now=now)
    session.commit()
    page = admin.get(f"{ROUNDS}/1/live").text
    assert "Start one: <code>podium trainer</code>" in page
    assert "The trainer of the stage reward has not been heard of since" in page
    second = claims.claim_stage(session, owner="second", duration=HOUR, now=now)
    heart.beat(session, "second", "trainer", "round 1, stage reward", now=now)
    session.commit()
    assert second is not None
    with pytest.raises(claims.ClaimLost):  # the first comes back: what it reports is refused
        results.record_metrics(session, claim, [{"step": 9, "at": 0, "loss": 0.1}])
    session.rollback()
    page = admin.get(f"{ROUNDS}/1/live").text
    assert "trainer went silent; another trainer takes the stage over." in page
    assert "has not been heard of" not in page


def test_cancelling_twice_is_refused(admin: Person, session: Session) -> None:
    start(admin)
    assert admin.post(f"{ROUNDS}/1/cancel").status_code == 303
    assert the_round(session).state == RoundState.CANCELLED
    assert admin.post(f"{ROUNDS}/1/cancel").status_code == 409


def test_a_round_that_waits_tells_how_many_comparisons_are_in(admin: Person, session: Session) -> None:
    start(admin)
    run_stage(session)
    run_stage(session)
    run_stage(session, num_pairs=6)
    round = the_round(session)
    compare(session, round, evaluation_slates(session, round)[0], "win")
    session.commit()
    page = " ".join(admin.get(f"{ROUNDS}/1").text.split())
    assert "1 of 4 comparisons are in" in page
    assert "Win rate so far" in page
    assert admin.post(f"{ROUNDS}/1/end-comparison").status_code == 303
    page = " ".join(admin.get(f"{ROUNDS}/1").text.split())
    assert "of 1 comparisons prefer version 2" in page
    assert "Undecided:" in page
    assert "Policy version 2 is ready" in page


def test_the_api_starts_a_round_and_answers_it(admin: Person) -> None:
    api = "/api/v1/projects/everyday/rounds"
    response = admin.post(api, json={"stages": ["reward"], "overrides": {"reward": {"num_epochs": 2}}, "seed": 5})
    assert response.status_code == 201
    found = admin.get(f"{api}/1").json()
    assert found == response.json() == admin.get(api).json()[0]
    assert (found["number"], found["state"], found["seed"], found["baseline"]) == (1, "queued", 5, 1)
    assert found["stages"][0]["configuration"]["num_epochs"] == 2
    assert admin.post(f"{api}/1/cancel").json()["state"] == "cancelled"
    assert admin.post(f"{api}/1/resume").json()["state"] == "queued"


def test_the_api_names_every_wrong_setting(admin: Person) -> None:
    body = {"stages": ["reward"], "overrides": {"reward": {"num_epochs": 0}, "ppo": {"clip": 1}}}
    response = admin.post("/api/v1/projects/everyday/rounds", json=body)
    assert (response.status_code, response.json()["code"]) == (422, "bad_setting")
    assert response.json()["problems"] == {
        "reward.num_epochs": "must be at least 1",
        "ppo.clip": "belongs to a stage that was not chosen",
    }


def test_a_project_without_rankings_says_what_to_do_first(session: Session, person: Any) -> None:
    empty = make_project(session, slug="empty")
    session.commit()
    admin = person("Emil Empty", is_site_admin=True)
    response = admin.post(f"/projects/{empty.slug}/rounds/new", data=START)
    assert response.status_code == 409
    assert "rank some slates" in response.text

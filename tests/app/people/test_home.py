"""The home page: what waits for whom."""

import pytest

from app import db
from app.labeling.models import SlateKind, SlateState
from app.people.models import Labeler
from app.policies.models import PolicyVersion
from app.prompts.models import Split
from app.quality.entry_models import Onboarding
from app.rounds.models import Heartbeat, Round, RoundState
from tests.app.loop import make_prompts, make_slate


@pytest.fixture
def round_in(session, project):
    """A round of the project in a state."""

    def round_in(state: RoundState) -> Round:
        policy = session.query(PolicyVersion).one()
        made = Round(
            project_id=project.id, number=3, state=state, seed=0, sft_policy_id=policy.id, baseline_id=policy.id
        )
        session.add(made)
        session.commit()
        return made

    return round_in


def test_a_labeler_reads_how_many_slates_wait(labeler, session, project):
    assert ">0</dd>" in labeler.get("/").text
    [prompt] = make_prompts(session, project, Split.TRAIN)
    slate = make_slate(session, prompt)
    session.commit()
    assert ">1</dd>" in labeler.get("/").text
    slate.state = SlateState.RETIRED
    session.commit()
    assert ">0</dd>" in labeler.get("/").text


def test_a_labeler_is_told_nothing_about_rounds_and_policies(labeler, round_in):
    round_in(RoundState.FAILED)
    home = labeler.get("/").text
    assert "Round 3" not in home
    assert "olicy" not in home


@pytest.mark.parametrize(
    ("state", "words"),
    [(RoundState.FAILED, "Round 3 failed"), (RoundState.AWAITING_LABELS, "Round 3 waits for blind comparisons")],
)
def test_an_admin_reads_first_what_needs_a_person(admin, round_in, state, words):
    assert words not in admin.get("/").text
    round_in(state)
    assert words in admin.get("/").text


def test_an_admin_is_told_when_nobody_fills_the_queue(admin, session):
    assert "no sampler has been heard of" in admin.get("/").text
    session.add(Heartbeat(owner="one", process="sampler", beat_at=db.clock(session), doing="waits"))
    session.commit()
    assert "no sampler has been heard of" not in admin.get("/").text


def test_who_is_in_no_project_reads_what_to_do(outsider, site_admin):
    assert "Ask the admin of a project for an invitation link" in outsider.get("/").text
    assert 'href="/projects/new"' in site_admin.get("/").text


def test_a_site_admin_finds_every_project(site_admin, project):
    assert "Everyday requests" in site_admin.get("/").text


def test_a_labeler_is_not_told_of_slates_that_they_have_ranked(labeler, other_labeler, session, project):
    [prompt] = make_prompts(session, project, Split.TRAIN)
    slate = make_slate(session, prompt)
    slate.overlap = 2
    session.commit()
    (lease,) = labeler.post("/api/v1/projects/everyday/leases", json={"wanted": 1}).json()["leases"]
    ranks = {completion["id"]: 1 for completion in lease["completions"]}
    form = {"ranking_id": "33333333-3333-4333-8333-333333333333", "ranks": ranks, "active_s": 42.0}
    assert labeler.post(f"/api/v1/leases/{lease['id']}/ranking", json=form).status_code == 201
    mine, theirs = labeler.get("/").text, other_labeler.get("/").text
    assert "slates wait for me</dt><dd>0</dd>" in mine
    assert "slate waits for me</dt><dd>1</dd>" in theirs
    assert "by me in 24 h</dt><dd>1</dd>" in mine
    assert "my time on one</dt><dd>42" in mine
    assert "my time on one" not in theirs


def test_the_version_of_the_guidelines_that_was_accepted_is_shown(labeler, admin, site_admin, project):
    assert "version 1 accepted" in labeler.get("/").text
    assert "not accepted yet" in site_admin.get("/").text
    admin.post("/projects/everyday/guidelines/edit", data={"markdown": "New.", "needs_acceptance": "true"})
    home = labeler.get("/").text
    assert "version 1 accepted" in home
    assert "The guidelines have changed" in home


def test_gold_slates_are_not_announced(labeler, session, project):
    [prompt] = make_prompts(session, project, Split.TRAIN)
    make_slate(session, prompt, kind=SlateKind.GOLD)
    session.commit()
    assert "slates wait for me</dt><dd>0</dd>" in labeler.get("/").text


def test_an_admin_is_told_of_newcomers_who_wait(labeler, admin, session, project):
    assert "newcomer" not in admin.get("/").text
    account_id = labeler.account.id
    newcomer = Labeler(project_id=project.id, account_id=account_id, pseudonym="new")
    session.add(newcomer)
    session.flush()
    session.add(Onboarding(labeler_id=newcomer.id, waits_since=db.clock(session)))
    session.commit()
    assert "1 newcomer waits for you" in admin.get("/").text
    assert "waits for you" not in labeler.get("/").text

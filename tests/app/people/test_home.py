"""The home page: what waits for whom."""

from datetime import timedelta

import pytest

from app import db
from app.labeling.models import SlateKind, SlateState
from app.people.models import Labeler, Membership, Role
from app.policies.models import PolicyState, PolicyVersion
from app.projects.models import Project
from app.prompts.models import Split
from app.quality.entry_models import Onboarding
from app.rounds.models import Heartbeat, Round, RoundState
from tests.app.labeling.conftest import skip, submit, take
from tests.app.loop import make_prompts, make_slate, make_version
from tests.app.quality.crowd import judge, labeler_of


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


@pytest.fixture
def add_slate(session, project):
    """Makes a slate that several may rank."""

    def add_slate():
        [prompt] = make_prompts(session, project, Split.TRAIN)
        slate = make_slate(session, prompt)
        slate.overlap = 3
        session.commit()
        return slate

    return add_slate


def waiting(person) -> str:
    return person.get("/").text.split(" for me</dt><dd>")[1].split("<")[0]


def test_a_slate_that_one_skipped_waits_for_others_alone(labeler, other_labeler, project, add_slate):
    add_slate()
    (lease,) = take(labeler, project)
    assert waiting(labeler) == "1"  # in hand, and not yet ranked
    assert skip(labeler, lease).status_code == 204
    assert (waiting(labeler), waiting(other_labeler)) == ("0", "1")


def test_what_was_taken_back_waits_again_and_is_not_among_todays_work(labeler, project, add_slate):
    add_slate()
    (lease,) = take(labeler, project)
    receipt = submit(labeler, lease, active_s=30.0).json()
    assert waiting(labeler) == "0"
    labeler.post(f"/api/v1/rankings/{receipt['id']}/retraction", json={"correct": False})
    assert waiting(labeler) == "1"
    home = labeler.get("/").text
    assert "by me in 24 h</dt><dd>0</dd>" in home
    assert "my time on one" not in home


def test_todays_work_is_that_of_24_hours_mine_beside_everybodys(labeler, admin, project, session, add_slate):
    add_slate()
    for person in (labeler, admin):
        (lease,) = take(person, project)
        assert submit(person, lease).status_code == 201
    home = admin.get("/").text
    assert "by me in 24 h</dt><dd>1</dd>" in home
    assert "by all in 24 h</dt><dd>2</dd>" in home
    yesterday = db.clock(session) - timedelta(hours=25)
    judge(session, add_slate(), labeler_of(session, project, admin), [1, 2, 3, 4], at=yesterday)
    session.commit()
    assert "by all in 24 h</dt><dd>2</dd>" in admin.get("/").text


def test_the_newest_accepted_version_is_the_one_shown(labeler, admin):
    admin.post("/projects/everyday/guidelines/edit", data={"markdown": "New.", "needs_acceptance": "true"})
    labeler.post("/api/v1/projects/everyday/guidelines/2/acceptance")
    home = labeler.get("/").text
    assert "version 2 accepted" in home
    assert "The guidelines have changed" not in home


def test_who_never_accepted_is_not_told_of_a_change(site_admin, admin):
    admin.post("/projects/everyday/guidelines/edit", data={"markdown": "New.", "needs_acceptance": "true"})
    assert "The guidelines have changed" not in site_admin.get("/").text


def test_a_newcomer_is_told_to_wait_only_while_they_wait(labeler, session, project):
    [prompt] = make_prompts(session, project, Split.TRAIN)
    make_slate(session, prompt, kind=SlateKind.ONBOARDING)
    me = Labeler(project_id=project.id, account_id=labeler.account.id, pseudonym="me")
    session.add(me)
    session.flush()
    state = Onboarding(labeler_id=me.id)
    session.add(state)
    session.commit()
    assert "Your onboarding rankings wait" not in labeler.get("/").text
    state.waits_since = db.clock(session)
    session.commit()
    assert "Your onboarding rankings wait" in labeler.get("/").text


def test_whoever_runs_the_installation_is_never_paused(site_admin, labeler, session, project):
    now = db.clock(session)
    session.add(Membership(account_id=site_admin.account.id, project_id=project.id, role=Role.LABELER, paused_at=now))
    paused = session.query(Membership).filter_by(account_id=labeler.account.id).one()
    paused.paused_at = now
    session.commit()
    assert "you are paused" not in site_admin.get("/").text
    assert "you are paused" in labeler.get("/").text


def test_projects_that_need_a_person_come_first(admin, session, project, round_in):
    session.add(Heartbeat(owner="one", process="sampler", beat_at=db.clock(session), doing="waits"))
    other = Project(slug="another", name="Another, first by its name", flags=[])
    session.add(other)
    session.flush()
    session.add(Membership(account_id=admin.account.id, project_id=other.id, role=Role.ADMIN))
    session.commit()

    def order() -> bool:
        home = admin.get("/").text
        return home.index("Another, first by its name") < home.index("Everyday requests")

    assert order()
    round_in(RoundState.FAILED)
    assert not order()


def test_an_admin_is_told_of_a_sampler_that_fell_silent_unless_the_project_is_paused(admin, session, project):
    old = db.clock(session) - timedelta(minutes=3)
    session.add(Heartbeat(owner="one", process="sampler", beat_at=old, doing="waits"))
    session.commit()
    assert "no sampler has been heard of" in admin.get("/").text
    project.paused_at = old
    session.commit()
    assert "no sampler has been heard of" not in admin.get("/").text


def test_a_candidate_waits_for_an_admin_until_it_was_decided_on(admin, session, project, round_in):
    made = round_in(RoundState.SUCCEEDED)
    candidate = make_version(session, project, 2, PolicyState.CANDIDATE)
    made.candidate_id = candidate.id
    session.commit()
    assert "made a candidate" in admin.get("/").text
    candidate.state = PolicyState.REJECTED
    session.commit()
    assert "made a candidate" not in admin.get("/").text


def test_only_the_last_round_is_talked_about(admin, session, project, round_in):
    policy = session.query(PolicyVersion).one()
    last = {"number": 4, "state": RoundState.SUCCEEDED, "seed": 0}
    session.add(Round(project_id=project.id, **last, sft_policy_id=policy.id, baseline_id=policy.id))
    session.commit()
    round_in(RoundState.FAILED)  # the third, though it was stored later
    home = admin.get("/").text
    assert "failed: see why" not in home
    assert "round 4</a>" in home

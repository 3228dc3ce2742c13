# ruff: noqa: F811 - fixtures are found by name
"""Onboarding: newcomers rank slates whose answer is known, see it after each, and enter at the threshold."""

from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.labeling.models import Ranking, Slate, SlateState
from app.people.models import AuditEvent, Labeler, Membership, Role
from app.projects.models import Project
from app.quality.entry_models import Onboarding, OnboardingAnswer
from tests.app.conftest import Person, accept_guidelines
from tests.app.labeling.conftest import (  # noqa: F401
    MakeSlate,
    ids,
    make_slate,
    save,
    skip,
    submit,
    take,
)
from tests.app.quality.known import GOLD, expire_leases, make_known

LEASES = "/api/v1/projects/everyday/leases"
NEWCOMERS = "/projects/everyday/quality/newcomers"
RIGHT, WRONG = (1, 2, 3, 4), (4, 3, 2, 1)  # in the order of the completions' positions
TEXTS = ("Four.", "It is four.", "Five?", "I do not know.")


@pytest.fixture
def lessons(researcher: Person, session: Session, make_slate: MakeSlate) -> list[Slate]:
    """Two onboarding slates; those that they were copied from are ranked already."""
    made = []
    for number in range(2):
        source = make_slate(TEXTS, prompt=f"What is two and two? ({number})")
        source.state = SlateState.DONE
        session.commit()
        made.append(make_known(researcher, session, source, kind="onboarding", reason=f"Short and right ({number})."))
    return made


def rank(person: Person, lease: dict[str, Any], ranks: tuple[int, ...]) -> Any:
    """Rank a leased slate by its texts; ranks in the order of TEXTS."""
    by_text = dict(zip(TEXTS, ranks, strict=True))
    return submit(person, lease, {c["id"]: by_text[c["text"]] for c in lease["completions"]})


def do_one(person: Person, project: Project, ranks: tuple[int, ...]) -> dict[str, Any]:
    """Take the next slate and rank it; returns the receipt."""
    (lease,) = take(person, project)
    response = rank(person, lease, ranks)
    assert response.status_code == 201, response.text
    receipt: dict[str, Any] = response.json()
    return receipt


def do_a_try(person: Person, project: Project, ranks: tuple[int, ...]) -> dict[str, Any]:
    return [do_one(person, project, ranks) for _ in range(2)][-1]


def test_a_newcomer_is_given_the_onboarding_slates_before_any_other(
    labeler: Person, project: Project, lessons: list[Slate], make_slate: MakeSlate
) -> None:
    make_slate()
    held = take(labeler, project, wanted=2)
    assert {c for lease in held for c in ids(lease)} == {str(c.id) for slate in lessons for c in slate.completions}


def test_after_each_submit_the_researchers_answer_and_reason_are_shown(
    labeler: Person, project: Project, lessons: list[Slate]
) -> None:
    (lease,) = take(labeler, project)
    (slate,) = [each for each in lessons if str(each.completions[0].id) in ids(lease)]
    lesson = rank(labeler, lease, (2, 1, 3, 4)).json()["lesson"]
    assert lesson["ranks"] == {str(c.id): place for place, c in enumerate(slate.completions, start=1)}
    assert lesson["reason"].startswith("Short and right")
    assert lesson["agreement"] == pytest.approx(5 / 6)  # one of the six pairs is the other way round
    assert "1 of 2" in lesson["outcome"]


def test_a_training_slate_comes_with_no_lesson(labeler: Person, project: Project, make_slate: MakeSlate) -> None:
    make_slate(TEXTS)
    assert do_one(labeler, project, RIGHT)["lesson"] is None


def test_a_retry_gets_the_lesson_again(
    labeler: Person, project: Project, lessons: list[Slate], session: Session
) -> None:
    (lease,) = take(labeler, project)
    first = submit(labeler, lease, ranking_id="11111111-1111-4111-8111-111111111111")
    again = submit(labeler, lease, ranking_id="11111111-1111-4111-8111-111111111111")
    assert (again.status_code, again.json()) == (200, first.json())
    assert session.scalar(select(func.count()).select_from(OnboardingAnswer)) == 1


def test_at_the_threshold_the_newcomer_is_in_and_their_rankings_count(
    labeler: Person, project: Project, lessons: list[Slate], make_slate: MakeSlate, session: Session
) -> None:
    training = make_slate(TEXTS)
    project.onboarding_threshold = 9 / 12  # three of twelve pairs may be the other way round
    session.commit()
    do_one(labeler, project, RIGHT)
    (lease,) = take(labeler, project)
    receipt = rank(labeler, lease, (2, 3, 4, 1)).json()  # the last one first: three pairs of six
    assert "your rankings count" in receipt["lesson"]["outcome"]
    (lease,) = take(labeler, project)
    assert set(ids(lease)) == {str(c.id) for c in training.completions}
    assert rank(labeler, lease, RIGHT).json()["counted"] is True


def test_just_below_the_threshold_the_newcomer_tries_again(
    labeler: Person, project: Project, lessons: list[Slate], make_slate: MakeSlate, session: Session
) -> None:
    make_slate(TEXTS)
    project.onboarding_threshold = 9 / 12
    session.commit()
    do_one(labeler, project, RIGHT)
    (lease,) = take(labeler, project)
    receipt = rank(labeler, lease, (3, 2, 4, 1)).json()  # four pairs of six are the other way round
    assert "another try" in receipt["lesson"]["outcome"]
    held = take(labeler, project, wanted=2)
    assert {c for lease in held for c in ids(lease)} == {str(c.id) for slate in lessons for c in slate.completions}


def test_after_the_last_try_the_newcomer_waits_for_an_admin(
    labeler: Person, admin: Person, project: Project, lessons: list[Slate]
) -> None:
    do_a_try(labeler, project, WRONG)
    receipt = do_a_try(labeler, project, WRONG)
    assert "an admin of the project decides" in receipt["lesson"]["outcome"]
    refused = labeler.post(LEASES, json={"wanted": 1})
    assert (refused.status_code, refused.json()["code"]) == (403, "onboarding_waits")
    led = labeler.get("/projects/everyday/rank")
    assert (led.status_code, led.headers["location"]) == (303, "/projects/everyday/onboarding")
    assert "An admin of the project decides" in labeler.get("/projects/everyday/onboarding").text
    page = admin.get(NEWCOMERS).text
    assert "Lena Labeler" in page
    assert "waits for you" in page


def labeler_id(session: Session, person: Person) -> int:
    assert person.account is not None
    return session.scalars(select(Labeler.id).where(Labeler.account_id == person.account.id)).one()


def actions(session: Session) -> list[str]:
    like = AuditEvent.action.startswith("onboarding.")
    return list(session.scalars(select(AuditEvent.action).where(like).order_by(AuditEvent.id)))


def test_an_admin_lets_a_newcomer_in_and_it_is_on_record(
    labeler: Person,
    admin: Person,
    project: Project,
    lessons: list[Slate],
    make_slate: MakeSlate,
    session: Session,
) -> None:
    make_slate(TEXTS)
    for _ in range(2):
        do_a_try(labeler, project, WRONG)
    post = f"{NEWCOMERS}/{labeler_id(session, labeler)}/admission"
    assert admin.post(post).status_code == 303
    assert do_one(labeler, project, RIGHT)["counted"] is True
    assert actions(session) == ["onboarding.admit"]
    assert admin.post(post).status_code == 409  # they wait no more
    assert "Lena Labeler" not in admin.get(NEWCOMERS).text.partition("<h1>")[2]


def test_an_admin_allows_another_try_after_which_it_is_the_admins_turn_again(
    labeler: Person, admin: Person, project: Project, lessons: list[Slate], session: Session
) -> None:
    for _ in range(2):
        do_a_try(labeler, project, WRONG)
    post = f"{NEWCOMERS}/{labeler_id(session, labeler)}/another-try"
    assert admin.post(post).status_code == 303
    do_a_try(labeler, project, WRONG)
    assert labeler.post(LEASES, json={"wanted": 1}).json()["code"] == "onboarding_waits"
    assert admin.post(post).status_code == 303
    do_a_try(labeler, project, RIGHT)
    assert labeler.post(LEASES, json={"wanted": 1}).status_code == 200
    assert actions(session) == ["onboarding.another_try", "onboarding.another_try", "onboarding.enter"]


def test_only_an_admin_decides_about_newcomers(
    labeler: Person, researcher: Person, project: Project, lessons: list[Slate], session: Session
) -> None:
    do_one(labeler, project, WRONG)
    post = f"{NEWCOMERS}/{labeler_id(session, labeler)}/admission"
    assert (labeler.post(post).status_code, researcher.post(post).status_code) == (403, 403)
    assert session.scalars(select(Onboarding)).one().entered_at is None


def test_onboarding_rankings_never_count_and_hold_no_slot(
    labeler: Person, other_labeler: Person, project: Project, lessons: list[Slate], session: Session
) -> None:
    for person in (labeler, other_labeler):
        assert do_a_try(person, project, RIGHT)["counted"] is False
    assert session.scalar(select(func.count()).where(Ranking.counted)) == 0
    assert set(session.scalars(select(Slate.state).where(Slate.id.in_([s.id for s in lessons])))) == {SlateState.READY}


def test_admins_and_researchers_are_not_asked_to_pass(
    admin: Person, researcher: Person, site_admin: Person, project: Project, lessons: list[Slate], make_slate: MakeSlate
) -> None:
    site_admin.post("/api/v1/projects/everyday/guidelines/1/acceptance")
    for person in (admin, researcher, site_admin):
        slate = make_slate(TEXTS)
        (lease,) = take(person, project)
        assert set(ids(lease)) == {str(c.id) for c in slate.completions}


def test_who_already_works_in_the_project_is_no_newcomer(
    labeler: Person, researcher: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    source = make_slate(TEXTS)
    do_one(labeler, project, RIGHT)
    make_known(researcher, session, source, kind="onboarding")
    training = make_slate(TEXTS)
    (lease,) = take(labeler, project)
    assert set(ids(lease)) == {str(c.id) for c in training.completions}


def test_an_answer_that_was_shown_cannot_be_given_again(
    labeler: Person, project: Project, lessons: list[Slate]
) -> None:
    receipt = do_one(labeler, project, WRONG)
    refused = labeler.post(f"/api/v1/rankings/{receipt['id']}/retraction", json={"correct": True})
    assert refused.json()["code"] == "ranking_in_use"


def test_a_skipped_onboarding_slate_comes_back_after_the_others(
    labeler: Person, project: Project, lessons: list[Slate]
) -> None:
    (skipped,) = take(labeler, project)
    skip(labeler, skipped)
    (other,) = take(labeler, project)
    assert set(ids(other)) != set(ids(skipped))
    rank(labeler, other, RIGHT)
    (again,) = take(labeler, project)
    assert set(ids(again)) == set(ids(skipped))
    assert "your rankings count" in rank(labeler, again, RIGHT).json()["lesson"]["outcome"]


def test_a_slate_retired_in_the_middle_of_a_try_holds_nobody_up(
    labeler: Person, researcher: Person, project: Project, lessons: list[Slate], make_slate: MakeSlate
) -> None:
    training = make_slate(TEXTS)
    (lease,) = take(labeler, project)
    rank(labeler, lease, RIGHT)
    (left,) = [slate for slate in lessons if str(slate.completions[0].id) not in ids(lease)]
    researcher.post(f"{GOLD}/{left.id}/retirement")
    take(labeler, project)  # notices that nothing is left of the try
    (lease,) = take(labeler, project)
    assert set(ids(lease)) == {str(c.id) for c in training.completions}


def test_without_any_onboarding_slate_left_everyone_is_in(
    labeler: Person, researcher: Person, project: Project, lessons: list[Slate], make_slate: MakeSlate
) -> None:
    make_slate(TEXTS)
    do_one(labeler, project, WRONG)
    for slate in lessons:
        researcher.post(f"{GOLD}/{slate.id}/retirement")
    assert do_one(labeler, project, RIGHT)["counted"] is True


def test_begun_work_on_an_onboarding_slate_comes_back_first_after_its_lease_expired(
    labeler: Person, project: Project, lessons: list[Slate], session: Session
) -> None:
    _, begun = take(labeler, project, wanted=2)
    save(labeler, begun, 0, note="half done")
    expire_leases(session)
    (again,) = take(labeler, project)
    assert set(ids(again)) == set(ids(begun))


def test_without_a_script_the_lesson_is_a_page_of_ones_own(
    labeler: Person, other_labeler: Person, project: Project, lessons: list[Slate]
) -> None:
    (lease,) = take(labeler, project)
    fields = {f"rank:{letter}": str(rank) for letter, rank in zip("ABCD", range(1, 5), strict=True)}
    sent = {"lease_id": lease["id"], "ranking_id": "22222222-2222-4222-8222-222222222222", **fields}
    led = labeler.post("/projects/everyday/rank", data=sent)
    assert led.headers["location"] == f"/projects/everyday/onboarding/{sent['ranking_id']}"
    page = labeler.get(led.headers["location"]).text
    assert "Short and right" in page
    assert page.count("researchers: ") == 4
    assert other_labeler.get(led.headers["location"]).status_code == 404


def test_who_runs_the_installation_is_no_newcomer_in_any_role(
    site_admin: Person, project: Project, lessons: list[Slate], make_slate: MakeSlate, session: Session
) -> None:
    training = make_slate(TEXTS)
    assert site_admin.account is not None
    session.add(Membership(account_id=site_admin.account.id, project_id=project.id, role=Role.LABELER))
    accept_guidelines(session, site_admin.account)
    session.commit()
    (lease,) = take(site_admin, project)
    assert set(ids(lease)) == {str(c.id) for c in training.completions}


def test_a_slate_ranked_twice_in_one_try_is_answered_once(
    labeler: Person, project: Project, lessons: list[Slate], session: Session
) -> None:
    (late,) = take(labeler, project)
    expire_leases(session)
    (again,) = take(labeler, project)
    assert set(ids(again)) == set(ids(late))
    first = rank(labeler, again, RIGHT)
    second = rank(labeler, late, WRONG)
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.json()["lesson"]["reason"] == first.json()["lesson"]["reason"]  # it teaches all the same
    answers = session.scalars(select(OnboardingAnswer)).all()
    assert [(answer.num_agreed, answer.num_pairs) for answer in answers] == [(6, 6)]


def test_only_onboarding_rankings_have_a_lesson(
    labeler: Person, project: Project, make_slate: MakeSlate, researcher: Person, session: Session
) -> None:
    make_slate(TEXTS)
    make_known(researcher, session, make_slate(TEXTS, prompt="A gold one"))
    project.gold_share = 0.5
    session.commit()
    for _ in range(2):
        receipt = do_one(labeler, project, RIGHT)
        assert labeler.get(f"/projects/everyday/onboarding/{receipt['id']}").status_code == 404


def test_whoever_is_let_in_before_the_last_lesson_stays_in_whatever_it_brings(
    labeler: Person, admin: Person, project: Project, lessons: list[Slate], session: Session
) -> None:
    do_one(labeler, project, WRONG)
    (last,) = take(labeler, project)
    assert admin.post(f"{NEWCOMERS}/{labeler_id(session, labeler)}/admission").status_code == 303
    session.rollback()
    entered_at = session.scalars(select(Onboarding.entered_at)).one()
    rank(labeler, last, RIGHT)
    session.rollback()
    after = session.scalars(select(Onboarding)).one()
    assert (after.entered_at, after.try_number, after.waits_since) == (entered_at, 1, None)
    assert actions(session) == ["onboarding.admit"]


def test_another_try_is_for_those_who_wait(
    labeler: Person, admin: Person, project: Project, lessons: list[Slate], session: Session
) -> None:
    do_one(labeler, project, WRONG)
    post = f"{NEWCOMERS}/{labeler_id(session, labeler)}/another-try"
    assert admin.post(post).status_code == 409
    session.rollback()
    assert session.scalars(select(Onboarding.try_number)).one() == 1


def test_the_page_of_newcomers_counts_the_tries_that_were_added_and_shows_first_who_waits(
    labeler: Person, other_labeler: Person, admin: Person, project: Project, lessons: list[Slate], session: Session
) -> None:
    for _ in range(2):
        do_a_try(other_labeler, project, WRONG)  # Otto waits
    do_one(labeler, project, WRONG)  # Lena is on her way
    page = admin.get(NEWCOMERS).text.partition("<h1>")[2]
    assert page.index("Otto Labeler") < page.index("Lena Labeler")
    assert "2 of 2" in page
    assert admin.post(f"{NEWCOMERS}/{labeler_id(session, other_labeler)}/another-try").status_code == 303
    assert "3 of 3" in admin.get(NEWCOMERS).text


def test_newcomers_are_the_business_of_their_own_projects_admins(
    labeler: Person, person: Any, project: Project, lessons: list[Slate], session: Session
) -> None:
    do_one(labeler, project, WRONG)
    other = Project(slug="elsewhere", name="Elsewhere", flags=[])
    session.add(other)
    session.commit()
    stranger = person("Ina Elsewhere", other, Role.ADMIN)
    post = f"{NEWCOMERS.replace('everyday', 'elsewhere')}/{labeler_id(session, labeler)}/admission"
    assert stranger.post(post).status_code == 409
    session.rollback()
    assert session.scalars(select(Onboarding.entered_at)).one() is None

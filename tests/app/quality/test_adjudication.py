"""The adjudication queue: which slates, in which order; blind judgements; one decision, for ever."""

import re
from uuid import uuid4

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from app.db import clock
from app.labeling.models import SlateKind
from app.people.models import Role
from app.projects.models import Project
from app.quality.adjudication import case_of, decisions, queue
from app.quality.models import Adjudication
from tests.app.loop import make_labeler
from tests.app.quality.crowd import judge, labeler_of, new_slate

ORDER, ALMOST, REVERSED = [1, 2, 3, 4], [1, 2, 4, 3], [4, 3, 2, 1]
QUEUE = "/projects/everyday/quality/adjudication"


@pytest.fixture
def slate_ranked(session, project, labeler, other_labeler):
    """Makes a slate that Lena and Otto ranked: `slate_ranked(ORDER, REVERSED)`."""

    def make(*rankings, **options):
        slate = new_slate(session, project, **options)
        for person, ranks in zip((labeler, other_labeler), rankings, strict=False):
            judge(session, slate, labeler_of(session, project, person), ranks)
        session.commit()
        return slate

    return make


def queued(session, project: Project) -> list[tuple[object, float]]:
    return [(each.slate.id, pytest.approx(each.agreement)) for each in queue(session, project)]


def decision_on(slate, ranks=(1, 2, 3, 4), reason="The first is right."):
    ids = [str(completion.id) for completion in slate.completions]
    return {"ranks": dict(zip(ids, ranks, strict=True)), "reason": reason}


def decide(person, slate, **options):
    return person.post(f"/api/v1{QUEUE}/{slate.id}", json=decision_on(slate, **options))


def test_the_least_agreed_slate_comes_first(session, project, slate_ranked):
    almost = slate_ranked(ORDER, ALMOST)
    against = slate_ranked(ORDER, REVERSED)
    slate_ranked(ORDER, ORDER)  # nothing to decide
    slate_ranked(ORDER)  # nobody to differ
    assert queued(session, project) == [(against.id, 0), (almost.id, pytest.approx(5 / 6))]


def test_agreement_of_three_is_over_all_three_pairs(session, project, slate_ranked):
    slate = slate_ranked(ORDER, ALMOST)
    judge(session, slate, make_labeler(session, project, "third"), REVERSED)
    assert queued(session, project) == [(slate.id, pytest.approx((5 + 0 + 1) / 18))]


def test_rankings_that_do_not_count_or_were_taken_back_are_no_judgement(session, project, slate_ranked):
    slate = slate_ranked(ORDER)
    judge(session, slate, make_labeler(session, project, "late"), REVERSED, counted=False)
    assert queued(session, project) == []
    taken = judge(session, slate, make_labeler(session, project, "other"), REVERSED)
    assert len(queued(session, project)) == 1
    taken.retracted_at = clock(session)
    assert queued(session, project) == []


def test_what_a_judge_who_picked_left_open_is_no_judgement(session, project, slate_ranked, researcher):
    slate = slate_ranked(ORDER)
    judge(session, slate, make_labeler(session, project, "picker"), [2, 1, 2, 2], is_pick=True)
    assert queued(session, project) == [(slate.id, pytest.approx(2 / 3))]  # on the first against the second they differ
    ranks = {str(each.id): sorted(each.ranks, key=str) for each in case_of(session, project, slate.id).completions}
    assert [ranks[str(completion.id)] for completion in slate.completions] == [
        [1, None], [1, 2], [3, None], [4, None]
    ]  # fmt: skip
    session.commit()
    assert researcher.get(f"{QUEUE}/{slate.id}").text.count("not compared<") == 3


@pytest.mark.parametrize("kind", [SlateKind.GOLD, SlateKind.ONBOARDING])
def test_slates_with_a_known_answer_are_never_adjudicated(kind, session, project, slate_ranked):
    slate_ranked(ORDER, REVERSED, kind=kind)
    assert queued(session, project) == []


def test_a_researcher_sees_judgements_and_nothing_about_who_gave_them(researcher, session, project, slate_ranked):
    slate = slate_ranked([1, 2, 3, 4], [3, 2, 1, 1])
    page = researcher.get(f"{QUEUE}/{slate.id}").text
    assert "Judge 2" in page
    for secret in ("Lena", "Otto", "pseudonym-", "policy", "version", "starter"):
        assert secret not in page.split("<main")[1]
    for completion, ranks in zip(slate.completions, ["13", "22", "13", "14"], strict=True):
        row = page.split(completion.text)[1].split("</tr>")[0]  # each text beside the two ranks that it was given
        assert "".join(sorted(re.findall(r'numeric">(\d)<', row))) == ranks


def test_letters_and_judges_are_shuffled_by_slate_and_the_same_for_everyone(session, project, slate_ranked):
    slates = [slate_ranked(ORDER, REVERSED) for _ in range(12)]
    orders, judges = set(), set()
    for slate in slates:
        case = case_of(session, project, slate.id)
        again = case_of(session, project, slate.id)
        assert [each.id for each in case.completions] == [each.id for each in again.completions]
        position = {completion.id: completion.position for completion in slate.completions}
        orders.add(tuple(position[each.id] for each in case.completions))
        first = next(each for each in case.completions if position[each.id] == 0)
        judges.add(tuple(first.ranks))
        assert [each.letter for each in case.completions] == ["A", "B", "C", "D"]
    assert len(orders) > 1
    assert judges == {(1, 4), (4, 1)}


def test_a_decision_is_stored_with_its_reason_and_the_slate_leaves_the_queue(
    researcher, session, project, slate_ranked
):
    slate = slate_ranked(ORDER, REVERSED)
    response = decide(researcher, slate, ranks=(2, 5, 5, 9))
    assert response.status_code == 201
    stored = session.get_one(Adjudication, slate.id)
    assert [stored.ranks[str(completion.id)] for completion in slate.completions] == [1, 2, 2, 3]
    assert (stored.reason, stored.num_rankings, stored.account_id) == ("The first is right.", 2, researcher.account.id)
    assert queued(session, project) == []
    assert "The first is right." in researcher.get(QUEUE).text


def test_the_first_decision_stands(researcher, admin, session, slate_ranked):
    slate = slate_ranked(ORDER, REVERSED)
    assert decide(researcher, slate).status_code == 201
    refused = decide(admin, slate, reason="No.")
    assert (refused.status_code, refused.json()["code"]) == (409, "already_adjudicated")
    assert session.scalars(select(Adjudication.reason)).all() == ["The first is right."]
    for statement in ("DELETE FROM adjudication", "UPDATE adjudication SET reason = 'x'"):
        with pytest.raises(IntegrityError, match="append-only"):
            session.execute(text(statement))
        session.rollback()


def test_a_decision_ranks_every_completion_and_says_why(researcher, session, slate_ranked):
    slate, other = slate_ranked(ORDER, REVERSED), slate_ranked(ORDER, REVERSED)
    address = f"/api/v1{QUEUE}/{slate.id}"
    whole = decision_on(slate)
    missing = {**whole, "ranks": dict(list(whole["ranks"].items())[:3])}
    for form, code in (
        (missing, "bad_decision"),
        ({**whole, "ranks": {}}, "bad_decision"),
        ({**whole, "ranks": decision_on(other)["ranks"]}, "bad_decision"),
        (decision_on(slate, ranks=(0, 1, 2, 3)), "bad_decision"),
        ({**whole, "reason": " "}, "reason_missing"),
    ):
        refused = researcher.post(address, json=form)
        assert (refused.status_code, refused.json()["code"]) == (422, code)
    assert session.scalars(select(Adjudication)).all() == []
    assert researcher.post(address, json=whole).status_code == 201


def test_only_slates_of_the_queue_are_decided(researcher, session, slate_ranked):
    lone = slate_ranked(ORDER)
    for slate_id in (lone.id, uuid4()):
        refused = researcher.post(f"/api/v1{QUEUE}/{slate_id}", json=decision_on(lone))
        assert (refused.status_code, refused.json()["code"]) == (404, "slate_not_in_queue")


def test_labelers_decide_nothing_and_see_nothing(labeler, slate_ranked):
    slate = slate_ranked(ORDER, REVERSED)
    assert decide(labeler, slate).status_code == 403
    assert labeler.get(f"{QUEUE}/{slate.id}").status_code == 403


def test_the_form_works_without_a_script_and_keeps_what_was_typed(researcher, session, slate_ranked):
    slate = slate_ranked(ORDER, REVERSED)
    address = f"{QUEUE}/{slate.id}"
    some = {"rank:A": "1", "rank:B": "2", "reason": "Because."}
    refused = researcher.post(address, data=some)
    assert refused.status_code == 422
    assert ">Because.</textarea>" in refused.text
    assert refused.text.count(" selected>") == 2
    done = researcher.post(address, data={**some, "rank:C": "3", "rank:D": "3"})
    assert (done.status_code, done.headers["location"]) == (303, QUEUE)
    assert sorted(session.get_one(Adjudication, slate.id).ranks.values()) == [1, 2, 3, 3]


def test_a_judgement_that_was_taken_back_is_not_laid_before_who_decides(session, project, slate_ranked):
    slate = slate_ranked(ORDER, REVERSED)
    taken = judge(session, slate, make_labeler(session, project, "third"), ALMOST)
    assert case_of(session, project, slate.id).num_judges == 3
    taken.retracted_at = clock(session)
    session.flush()
    assert case_of(session, project, slate.id).num_judges == 2


def test_a_slate_is_decided_in_its_own_project(person, session, slate_ranked):
    slate = slate_ranked(ORDER, REVERSED)
    other = Project(slug="elsewhere", name="Elsewhere", flags=[])
    session.add(other)
    session.commit()
    stranger = person("Sven Elsewhere", other, Role.RESEARCHER)
    address = QUEUE.replace("everyday", "elsewhere")
    assert stranger.get(f"{address}/{slate.id}").status_code == 404
    assert stranger.post(f"/api/v1{address}/{slate.id}", json=decision_on(slate)).status_code == 404
    assert session.scalars(select(Adjudication)).all() == []


def test_decisions_are_listed_with_their_best_text_the_newest_first(researcher, session, project, slate_ranked):
    first, second = slate_ranked(ORDER, REVERSED), slate_ranked(ORDER, REVERSED)
    assert decide(researcher, first, ranks=(3, 1, 2, 4), reason="Earlier.").status_code == 201
    assert decide(researcher, second, ranks=(4, 3, 2, 1), reason="Later.").status_code == 201
    listed = decisions(session, project)
    assert [each.decision.reason for each in listed] == ["Later.", "Earlier."]
    assert [each.best for each in listed] == [second.completions[3].text, first.completions[1].text]

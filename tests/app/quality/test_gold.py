# ruff: noqa: F811 - fixtures are found by name
"""Known answers: made by researchers from slates that exist, and mixed in so that nobody can tell."""

import re
from uuid import UUID

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.labeling.models import FITTING_KINDS, Ranking, Slate, SlateKind, SlateState
from app.people.models import Membership, Role
from app.projects.models import Project
from app.quality.entry_models import ReferenceRanking
from app.quality.gold import held_against, known_answers
from app.rounds.models import Round
from tests.app.conftest import Person
from tests.app.labeling.conftest import (  # noqa: F401
    MakeSlate,
    comparing_round,
    make_slate,
    num_counted,
    skip,
    submit,
    take,
)
from tests.app.quality.known import GOLD, answer_form, make_known

NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def project(project: Project, session: Session) -> Project:
    """Every slate given out is a gold one where there is one."""
    project.gold_share, project.repeat_share = 1.0, 0.0
    session.commit()
    return project


def done(session: Session, slate: Slate) -> Slate:
    """The slate as it is after its rankings are in."""
    slate.state = SlateState.DONE
    session.commit()
    return slate


def test_a_known_answer_is_a_copy_that_everyone_may_rank_with_the_answer_on_record(
    researcher: Person, session: Session, make_slate: MakeSlate
) -> None:
    source = make_slate()
    slate = make_known(researcher, session, source, ranks=(2, 1, 3, 3), reason=" The second is whole. ")
    assert [c.text for c in slate.completions] == [c.text for c in source.completions]
    assert [c.policy_version_id for c in slate.completions] == [c.policy_version_id for c in source.completions]
    assert not {c.id for c in slate.completions} & {c.id for c in source.completions}
    reference = session.get_one(ReferenceRanking, slate.id)
    assert [reference.ranks[str(c.id)] for c in slate.completions] == [2, 1, 3, 3]
    assert reference.reason == "The second is whole."
    assert researcher.account is not None
    assert reference.account_id == researcher.account.id
    assert (slate.kind, slate.state) == (SlateKind.GOLD, SlateState.READY)


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (answer_form((1, 2, 3)), "each of the slate&#39;s completions one rank"),
        (answer_form((1, 2, 3, 9)), "each of the slate&#39;s completions one rank"),
        (answer_form((1, 1, 1, 1)), "places at least one completion above another"),
        (answer_form((1, 2, 3, 4), reason="  "), "says why"),
        (answer_form((1, 2, 3, 4), reason="x" * 2001), "says why"),
    ],
)
def test_an_answer_that_lacks_something_is_refused_and_what_was_given_stays(
    researcher: Person, session: Session, make_slate: MakeSlate, form: dict[str, str], words: str
) -> None:
    source = make_slate()
    response = researcher.post(f"{GOLD}/new/{source.id}", data=form)
    assert response.status_code == 422
    assert words in response.text
    assert re.search(r'name="rank:A" value="1" required checked', response.text)
    assert session.scalar(select(func.count()).select_from(ReferenceRanking)) == 0


def test_a_gold_slate_is_given_to_each_labeler_once(
    researcher: Person,
    labeler: Person,
    other_labeler: Person,
    session: Session,
    project: Project,
    make_slate: MakeSlate,
) -> None:
    gold = make_known(researcher, session, done(session, make_slate()))
    for person in (labeler, other_labeler):
        (lease,) = take(person, project)
        assert {c["id"] for c in lease["completions"]} == {str(c.id) for c in gold.completions}
        assert submit(person, lease).json()["counted"] is True
        assert take(person, project) == []
    assert num_counted(session, gold) == 2
    assert gold.kind not in FITTING_KINDS


def test_without_a_gold_slate_left_training_goes_on(
    researcher: Person, labeler: Person, session: Session, project: Project, make_slate: MakeSlate
) -> None:
    gold = make_known(researcher, session, done(session, make_slate()))
    training = make_slate()
    slates = []
    for _ in range(2):
        (lease,) = take(labeler, project)
        submit(labeler, lease)
        slates.append({c["id"] for c in lease["completions"]})
    assert slates == [{str(c.id) for c in slate.completions} for slate in (gold, training)]


def test_without_a_share_no_gold_slate_is_given_out(
    researcher: Person, labeler: Person, session: Session, project: Project, make_slate: MakeSlate
) -> None:
    project.gold_share = 0.0
    session.commit()
    make_known(researcher, session, done(session, make_slate()))
    assert take(labeler, project) == []


def test_nothing_that_a_labeler_gets_tells_a_gold_slate_from_another(
    researcher: Person,
    labeler: Person,
    other_labeler: Person,
    session: Session,
    project: Project,
    make_slate: MakeSlate,
) -> None:
    source = make_slate()
    (training,) = take(labeler, project)
    training_page = labeler.get("/projects/everyday/rank").text
    make_known(researcher, session, done(session, source))
    (gold,) = take(other_labeler, project)
    gold_page = other_labeler.get("/projects/everyday/rank").text

    def look(page: str) -> str:
        """The page's slate without what is random on every page: ids, tokens, the order of the texts."""
        slate = page[page.index('<form class="slate') : page.index("</form>", page.index('<form class="slate'))]
        for text in (completion.text for completion in source.completions):
            slate = slate.replace(text, "…")
        return re.sub(r'[0-9a-f]{8}-[0-9a-f-]{27}|name="csrf_token" value="[^"]*"', "id", slate)

    assert gold.keys() == training.keys()
    assert [each.keys() for each in gold["completions"]] == [each.keys() for each in training["completions"]]
    assert {c["text"] for c in gold["completions"]} == {c["text"] for c in training["completions"]}
    assert look(gold_page) == look(training_page)
    assert submit(other_labeler, gold).json().keys() == submit(labeler, training).json().keys()


def test_who_gave_the_answer_is_not_asked_for_it(
    researcher: Person, session: Session, project: Project, make_slate: MakeSlate
) -> None:
    make_known(researcher, session, done(session, make_slate()))
    assert take(researcher, project) == []


def test_who_knows_the_slate_is_not_given_its_copy(
    researcher: Person,
    labeler: Person,
    other_labeler: Person,
    session: Session,
    project: Project,
    make_slate: MakeSlate,
) -> None:
    source = make_slate()
    (lease,) = take(labeler, project)
    submit(labeler, lease)
    make_known(researcher, session, source)
    assert take(labeler, project) == []
    assert len(take(other_labeler, project)) == 1


def test_a_gold_slate_that_everyone_skipped_waits_for_those_who_come(
    researcher: Person, labeler: Person, admin: Person, session: Session, project: Project, make_slate: MakeSlate
) -> None:
    gold = make_known(researcher, session, done(session, make_slate()))
    session.execute(update(Membership).where(Membership.role == Role.RESEARCHER).values(paused_at=func.now()))
    session.commit()
    for person in (labeler, admin):  # everyone there is
        (lease,) = take(person, project)
        assert skip(person, lease).status_code == 204
    session.refresh(gold)
    assert gold.state is SlateState.READY


def test_a_retired_answer_is_given_to_nobody_and_work_on_it_is_kept(
    researcher: Person,
    labeler: Person,
    other_labeler: Person,
    session: Session,
    project: Project,
    make_slate: MakeSlate,
) -> None:
    gold = make_known(researcher, session, done(session, make_slate()))
    (lease,) = take(labeler, project)
    assert researcher.post(f"{GOLD}/{gold.id}/retirement").status_code == 303
    assert take(other_labeler, project) == []
    assert submit(labeler, lease).status_code == 201
    assert session.scalar(select(func.count(Ranking.id))) == 1
    assert session.get(ReferenceRanking, gold.id) is not None


def test_the_page_lists_what_is_in_use_and_what_can_be_chosen(
    researcher: Person, session: Session, make_slate: MakeSlate
) -> None:
    make_known(researcher, session, make_slate(prompt="Known already?"), reason="Because it is right.")
    make_slate(prompt="Not known yet?")
    known, choices = researcher.get(GOLD).text.split("Slates to choose from", 1)
    assert "Known already?" in known
    assert "Because it is right." in known
    assert "Known already?" not in choices
    assert "Not known yet?" in choices


def test_slates_to_choose_from_come_a_page_at_a_time(
    researcher: Person, make_slate: MakeSlate, session: Session
) -> None:
    for number in range(21):
        make_slate(prompt=f"Prompt number {number:02}.")
    first = researcher.get(GOLD).text
    older = re.search(r'href="([^"]+)#choose-title">Older', first)
    assert older is not None
    second = researcher.get(older[1].replace("&amp;", "&")).text
    shown = [set(re.findall(r'<th scope="row"[^>]*>Prompt number (\d\d)', page)) for page in (first, second)]
    assert (len(shown[0]), shown[1]) == (20, {"00"})
    assert "Older slates" not in second


def test_slates_that_compare_policies_or_are_unknown_cannot_become_known(
    researcher: Person, comparing_round: Round, make_slate: MakeSlate
) -> None:
    pair = make_slate(["Yes.", "No."], kind=SlateKind.EVALUATION, round_id=comparing_round.id)
    for slate_id in (pair.id, UUID(NOBODY)):
        response = researcher.get(f"{GOLD}/new/{slate_id}")
        assert response.status_code == 404


def test_labelers_learn_no_known_answer(labeler: Person, make_slate: MakeSlate) -> None:
    slate = make_slate()
    assert labeler.get(GOLD).status_code == 403
    assert labeler.post(f"{GOLD}/new/{slate.id}", data=answer_form((1, 2, 3, 4))).status_code == 403


def test_an_answer_cannot_be_changed_in_the_database(
    researcher: Person, session: Session, make_slate: MakeSlate
) -> None:
    make_known(researcher, session, make_slate())
    with pytest.raises(IntegrityError, match="append-only"):
        session.execute(update(ReferenceRanking).values(reason="I think otherwise now."))


@pytest.mark.parametrize(
    ("ours", "num_agreed"),
    [
        ({"a": 1, "b": 2, "c": 3}, 3.0),
        ({"a": 3, "b": 2, "c": 1}, 0.0),
        ({"a": 1, "b": 3, "c": 2}, 2.0),
        ({"a": 1, "b": 1, "c": 2}, 2.5),
        ({"a": 1, "b": 1, "c": 1}, 1.5),
    ],
)
def test_agreement_with_an_answer_counts_its_pairs_and_a_tie_half(ours: dict[str, int], num_agreed: float) -> None:
    assert held_against({"a": 1, "b": 2, "c": 3}, ours) == (num_agreed, 3)


def test_slates_of_a_size_that_labelers_never_see_are_not_offered(researcher: Person, make_slate: MakeSlate) -> None:
    odd = make_slate(["One.", "Two.", "Three."], prompt="Imported with three?", kind=SlateKind.IMPORTED)
    make_slate(prompt="With four?", kind=SlateKind.IMPORTED)
    page = researcher.get(GOLD).text
    assert "With four?" in page
    assert "Imported with three?" not in page
    assert researcher.get(f"{GOLD}/new/{odd.id}").status_code == 404


def test_a_slate_whose_known_answer_was_retired_can_be_chosen_again(
    researcher: Person, session: Session, make_slate: MakeSlate
) -> None:
    gold = make_known(researcher, session, make_slate(prompt="Once more?"))
    assert "Once more?" not in researcher.get(GOLD).text.split("Slates to choose from", 1)[1]
    researcher.post(f"{GOLD}/{gold.id}/retirement")
    assert "Once more?" in researcher.get(GOLD).text.split("Slates to choose from", 1)[1]


def test_what_was_taken_back_is_not_among_the_rankings_of_a_known_answer(
    researcher: Person, labeler: Person, session: Session, project: Project, make_slate: MakeSlate
) -> None:
    make_known(researcher, session, done(session, make_slate()))
    (lease,) = take(labeler, project)
    receipt = submit(labeler, lease).json()
    (answer,) = known_answers(session, project)
    assert answer.num_rankings == 1
    labeler.post(f"/api/v1/rankings/{receipt['id']}/retraction", json={"correct": False})
    session.rollback()
    (answer,) = known_answers(session, project)
    assert answer.num_rankings == 0


def test_only_a_known_answer_of_this_project_is_retired_here(
    researcher: Person, session: Session, make_slate: MakeSlate
) -> None:
    training = make_slate()
    gold = make_known(researcher, session, make_slate())
    assert researcher.post(f"{GOLD}/{training.id}/retirement").status_code == 404
    other = Project(slug="elsewhere", name="Elsewhere", flags=[])
    session.add(other)
    session.flush()
    assert researcher.account is not None
    session.add(Membership(account_id=researcher.account.id, project_id=other.id, role=Role.RESEARCHER))
    session.commit()
    elsewhere = GOLD.replace("everyday", "elsewhere")
    assert researcher.post(f"{elsewhere}/{gold.id}/retirement").status_code == 404
    session.rollback()
    assert {slate.state for slate in session.scalars(select(Slate))} == {SlateState.READY}
    assert researcher.post(f"{GOLD}/{gold.id}/retirement").status_code == 303

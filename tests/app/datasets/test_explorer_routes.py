"""Choosing labels through the front door: the part that follows each change, the words, and the licence."""

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets.models import Snapshot
from app.labeling.models import SlateKind
from app.people.models import AuditEvent
from tests.app.conftest import Person
from tests.app.datasets.conftest import AddRanking

ROOT = "/projects/garden/datasets"
API = "/api/v1/projects/garden"


def test_the_part_that_follows_each_change_says_what_the_page_says(researcher: Person, add_ranking: AddRanking) -> None:
    add_ranking((1, 2, 2, 3))
    chosen = {"min_k": "4", "ties": "with", "labelers": ""}
    part = researcher.get(f"{ROOT}/holds", params=chosen).text
    assert "<!doctype" not in part
    assert "<dd>5</dd>" in part
    assert "This choice holds 1 rankings and 0 demonstrations." in part
    assert part.strip() in researcher.get(ROOT, params=chosen).text


def test_each_choice_has_a_link_that_takes_it_away(researcher: Person, add_ranking: AddRanking) -> None:
    add_ranking()
    shown = researcher.get(ROOT, params={"splits": "train", "min_k": "4", "max_k": "9"}).text
    assert f'href="{ROOT}?splits=train#choose" aria-label="Leave out: K 4–9"' in shown
    assert f'href="{ROOT}?min_k=4&amp;max_k=9#choose" aria-label="Leave out: train split"' in shown


def test_what_is_shown_with_more_choices_is_what_is_frozen(
    researcher: Person, add_ranking: AddRanking, session: Session
) -> None:
    add_ranking((1, 2, 3, 4))
    tied = add_ranking((1, 2, 2, 3), flags=(["Rude"], [], [], []))
    chosen = {"ties": "with", "flags": "Rude", "min_k": "4", "is_shared": "false", "licence": "cc-by-4.0"}
    assert researcher.post(f"{ROOT}/snapshots", data=chosen | {"name": "Ties"}).status_code == 303
    snapshot = session.scalars(select(Snapshot)).one()
    assert (snapshot.num_rankings, snapshot.licence) == (1, "cc-by-4.0")
    assert str(tied.id) in researcher.get(f"{API}/snapshots/{snapshot.id}/export").text
    assert "flagged Rude, with ties, slates ranked once" in researcher.get(f"{ROOT}/snapshots/{snapshot.id}").text


def test_a_program_counts_with_the_same_choices(researcher: Person, add_ranking: AddRanking) -> None:
    add_ranking()
    add_ranking((1, 2), kind=SlateKind.PAIR)
    counts = researcher.get(f"{API}/datasets/counts", params={"kinds": ["pair"]}).json()
    assert (counts["num_rankings"], counts["margin"], counts["words"]) == (1, None, "pair slates")
    refused = researcher.get(f"{API}/datasets/counts", params={"min_k": 7, "max_k": 4})
    assert (refused.status_code, refused.json()["code"]) == (422, "bad_filter")


def test_a_choice_that_means_nothing_is_told_in_its_place(researcher: Person, add_ranking: AddRanking) -> None:
    add_ranking()
    refused = researcher.get(f"{ROOT}/holds", params={"min_agreement": "0.9", "max_agreement": "0.1"})
    assert refused.status_code == 422
    assert "The range of agreement leaves nothing" in refused.text


@pytest.mark.parametrize("field", ["contents", "kinds", "splits"])
def test_a_program_that_chooses_none_of_what_there_must_be_one_of_is_refused(
    researcher: Person, add_ranking: AddRanking, session: Session, field: str
) -> None:
    add_ranking()
    refused = researcher.post(f"{API}/snapshots", json={"name": "May", "filter": {field: []}})
    assert (refused.status_code, refused.json()["code"]) == (422, "bad_filter")
    assert session.scalars(select(Snapshot)).all() == []


def test_an_admin_sets_the_licence_that_snapshots_take_and_it_is_audited(
    admin: Person, researcher: Person, add_ranking: AddRanking, session: Session
) -> None:
    add_ranking()
    assert researcher.post(f"{ROOT}/licence", data={"licence": "odc-by"}).status_code == 403
    assert admin.post(f"{ROOT}/licence", data={"licence": "odc-by"}).status_code == 303
    assert researcher.post(f"{API}/snapshots", json={"name": "May"}).json()["licence"] == "odc-by"
    assert "license: " in researcher.get(f"{ROOT}/snapshots/1/card").text
    other = researcher.post(f"{API}/snapshots", json={"name": "June", "licence": "cc0-1.0"}).json()
    assert other["licence"] == "cc0-1.0"
    assert "project.licence" in session.scalars(select(AuditEvent.action)).all()
    assert admin.put(f"{API}/datasets/licence").status_code == 204
    assert researcher.post(f"{API}/snapshots", json={"name": "July"}).json()["licence"] is None


def test_an_unknown_licence_is_refused_and_nothing_is_frozen(
    researcher: Person, add_ranking: AddRanking, session: Session
) -> None:
    add_ranking()
    refused = researcher.post(f"{ROOT}/snapshots", data={"name": "May", "licence": "mine"})
    assert refused.status_code == 422
    assert "There is no licence “mine”" in refused.text
    assert session.scalars(select(Snapshot)).all() == []


def test_counts_are_for_researchers_of_the_project(
    labeler: Person, outsider: Person, researcher: Person, add_ranking: AddRanking
) -> None:
    add_ranking()
    for path in (f"{ROOT}/holds", f"{API}/datasets/counts", f"{ROOT}/compare"):
        assert [person.get(path).status_code for person in (labeler, outsider, researcher)] == [403, 404, 200]

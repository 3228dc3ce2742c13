"""The datasets' pages and API, through the front door."""

import hashlib
import json
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.datasets.models import DatasetImport, Snapshot
from app.labeling.models import Demonstration, Ranking, SlateKind
from app.people.models import AuditEvent
from app.projects.models import Project
from tests.app.conftest import Person
from tests.app.datasets.conftest import NOW, AddRanking, days

PAGE = "/projects/garden/datasets"
SNAPSHOTS = "/projects/garden/datasets/snapshots"
API = "/api/v1/projects/garden/snapshots"


def upload(person: Person, records: list[Any], name: str = "rankings.jsonl", **fields: str) -> Any:
    content = "".join(f"{json.dumps(record)}\n" for record in records).encode()
    return person.post("/projects/garden/datasets/imports", files={"file": (name, content)}, data=fields)


def pair(chosen: str = "Oak", rejected: str = "Car") -> dict[str, str]:
    return {"prompt": "Name a tree.", "chosen": chosen, "rejected": rejected}


def test_what_is_shown_is_what_is_frozen(researcher: Person, add_ranking: AddRanking, session: Session) -> None:
    add_ranking(submitted_at=NOW - days(1))
    kept = add_ranking((1, 2, 2, 3), submitted_at=NOW)
    chosen = {"since": NOW.strftime("%Y-%m-%dT%H:%M"), "kinds": "training"}
    shown = researcher.get(PAGE, params=chosen).text
    assert "<dd>1</dd>" in shown
    assert "<dd>5</dd>" in shown
    answer = researcher.post(SNAPSHOTS, data=chosen | {"name": "May"})
    assert answer.status_code == 303
    snapshot = session.scalars(select(Snapshot)).one()
    assert (snapshot.num_rankings, snapshot.num_comparisons) == (1, 5)
    assert str(kept.id) in researcher.get(f"{API}/{snapshot.id}/export").text
    assert snapshot.sha256 in researcher.get(answer.headers["location"]).text
    assert session.scalars(select(AuditEvent.action)).all() == ["snapshot.create"]


def test_a_refused_name_keeps_what_was_typed(researcher: Person, add_ranking: AddRanking) -> None:
    add_ranking()
    researcher.post(SNAPSHOTS, data={"name": "May"})
    answer = researcher.post(SNAPSHOTS, data={"name": "May", "splits": ["train", "test", "validation"]})
    assert answer.status_code == 422
    assert "exists already" in answer.text
    assert 'value="May"' in answer.text


@pytest.mark.parametrize(
    "chosen",
    [{"since": "yesterday"}, {"kinds": "gild"}, {"since": "2026-05-04T12:00", "until": "2026-05-04T12:00"}],
)
def test_a_filter_that_means_nothing_is_said_to(
    researcher: Person, add_ranking: AddRanking, chosen: dict[str, str], session: Session
) -> None:
    add_ranking()
    assert researcher.get(PAGE, params=chosen).status_code == 422
    assert researcher.post(SNAPSHOTS, data=chosen | {"name": "May"}).status_code == 422
    assert session.scalar(select(func.count(Snapshot.id))) == 0


def test_an_empty_project_says_what_to_do_first(researcher: Person) -> None:
    assert "Nothing is frozen yet" in researcher.get(PAGE).text
    assert "or import rankings" in researcher.get(PAGE).text


def test_a_program_freezes_lists_and_downloads(researcher: Person, add_ranking: AddRanking) -> None:
    add_ranking()
    created = researcher.post(API, json={"name": "May", "filter": {"kinds": ["training"]}})
    assert created.status_code == 201
    assert researcher.get(API).json() == [created.json()]
    export = researcher.get(f"{API}/{created.json()['id']}/export", params={"format": "kwise", "file": "jsonl"})
    assert export.headers["content-type"] == "application/x-ndjson"
    assert export.headers["content-disposition"] == 'attachment; filename="garden-may-kwise.jsonl"'
    assert hashlib.sha256(export.content).hexdigest() == created.json()["sha256"]


def test_who_has_the_file_already_is_sent_nothing(researcher: Person, add_ranking: AddRanking) -> None:
    add_ranking()
    address = f"{API}/{researcher.post(API, json={'name': 'May'}).json()['id']}/export"
    tag = researcher.get(address).headers["etag"]
    again = researcher.get(address, headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    other = researcher.get(address, params={"format": "pairs"}, headers={"If-None-Match": tag})
    assert other.status_code == 200


@pytest.mark.parametrize("wrong", [{"format": "csv"}, {"file": "xml"}, {"format": "pairs", "ties": "maybe"}])
def test_an_export_that_does_not_exist_is_refused(
    researcher: Person, add_ranking: AddRanking, wrong: dict[str, str]
) -> None:
    add_ranking()
    address = f"{API}/{researcher.post(API, json={'name': 'May'}).json()['id']}/export"
    assert researcher.get(address, params=wrong).status_code == 422


def test_prompts_of_several_turns_are_not_written_in_the_standard_style(
    researcher: Person, add_ranking: AddRanking
) -> None:
    add_ranking(prompt=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a tree."}])
    address = f"{API}/{researcher.post(API, json={'name': 'May'}).json()['id']}/export"
    refused = researcher.get(address, params={"format": "pairs", "style": "standard"})
    assert (refused.status_code, refused.json()["code"]) == (422, "bad_export")
    assert researcher.get(address, params={"format": "pairs", "style": "conversational"}).status_code == 200


def test_what_people_wrote_is_frozen_by_the_page_and_downloaded(researcher: Person, session: Session) -> None:
    upload(researcher, [{"prompt": "Name a tree.", "completion": "Oak"}], what="demonstrations")
    chosen = researcher.get(PAGE, params={"contents": "demonstrations"}).text
    assert '<input type="hidden" name="contents" value="demonstrations">' in chosen
    frozen = researcher.post(SNAPSHOTS, data={"name": "May", "contents": "demonstrations"})
    shown = researcher.get(frozen.headers["location"]).text
    assert "format=sft" in shown
    assert "format=kwise" not in shown
    snapshot = session.scalars(select(Snapshot)).one()
    for root in (SNAPSHOTS, API):
        sft = researcher.get(f"{root}/{snapshot.id}/export", params={"format": "sft"})
        assert hashlib.sha256(sft.content).hexdigest() == snapshot.sft_sha256
    refused = researcher.get(f"{API}/{snapshot.id}/export", params={"format": "pairs"})
    assert (refused.status_code, refused.json()["code"]) == (422, "bad_export")


def test_the_card_tells_what_the_snapshot_holds(researcher: Person, add_ranking: AddRanking) -> None:
    add_ranking()
    snapshot = researcher.post(API, json={"name": "May"}).json()
    card = researcher.get(f"{SNAPSHOTS}/{snapshot['id']}/card").text
    assert "\n# Garden: May\n" in card
    assert snapshot["sha256"] in card
    assert "| demonstrations | none |" in card


def test_the_card_tells_of_picks_and_of_who_wrote(researcher: Person, add_ranking: AddRanking) -> None:
    add_ranking((1, 2, 2, 2), kind=SlateKind.CONVERSATION, is_pick=True)
    add_ranking((1, 2, 2, 2))
    upload(researcher, [{"prompt": "Name a tree.", "completion": "Oak", "labeler": "Ada"}], what="demonstrations")
    snapshot = researcher.post(API, json={"name": "May"}).json()
    card = researcher.get(f"{SNAPSHOTS}/{snapshot['id']}/card").text
    assert "| of which picks: one against each of the others | 1 |" in card
    assert "| demonstrations | 1 in 1 conversations by 1 people, 0 from a suggestion of the policy |" in card
    assert f"`{snapshot['sft_sha256']}`" in card
    assert "not picked" in researcher.get(f"{SNAPSHOTS}/{snapshot['id']}").text


def test_rankings_are_imported_by_upload_and_reported(researcher: Person, session: Session) -> None:
    answer = upload(researcher, [pair(), pair("Elm", "Elm"), pair("Elm")])
    assert answer.status_code == 303
    report = researcher.get(answer.headers["location"]).text
    assert "Added 1 prompt, 2 slates, 2 rankings, 2 comparisons, 1 labeler." in report
    assert "left out (line 2)" in report
    assert session.scalar(select(func.count(Ranking.id))) == 2
    assert "nothing has changed" in upload(researcher, [pair(), pair("Elm", "Elm"), pair("Elm")]).text


def test_demonstrations_are_imported_by_their_own_form(researcher: Person, session: Session) -> None:
    records = [{"prompt": "Name a tree.", "completion": "Oak"}]
    assert 'name="what" value="demonstrations"' in researcher.get(f"{PAGE}/imports").text
    assert upload(researcher, records, what="demonstrations").status_code == 303
    assert session.scalars(select(Demonstration.text)).all() == ["Oak"]
    assert upload(researcher, records, what="everything").status_code == 422


def test_a_refused_file_names_its_lines_and_leaves_nothing(researcher: Person, session: Session) -> None:
    answer = upload(researcher, [pair(), {"chosen": 1, "rejected": 2}], name="<b>.jsonl")
    assert answer.status_code == 422
    assert "line 2: chosen and rejected are neither" in answer.text
    assert "&lt;b&gt;.jsonl was not imported" in answer.text
    assert session.scalars(select(DatasetImport.state)).all() == ["failed"]


def test_a_program_imports_and_is_told_each_line_that_is_wrong(researcher: Person, session: Session) -> None:
    address = "/api/v1/projects/garden/imports"
    good, bad = json.dumps(pair()).encode(), b'{"chosen": 1}'
    refused = researcher.post(address, files={"file": ("pairs.jsonl", good + b"\n" + bad)})
    assert (refused.status_code, refused.json()["code"]) == (422, "import_refused")
    assert refused.json()["problems"][0]["line"] == 2
    tried = researcher.post(address, files={"file": ("pairs.jsonl", good)}, data={"is_trial": "true"})
    assert (tried.status_code, tried.json()["is_trial"], session.scalar(select(func.count(Ranking.id)))) == (
        200,
        True,
        0,
    )
    created = researcher.post(address, files={"file": ("pairs.jsonl", good)})
    assert (created.status_code, created.json()["report"]["counts"]["rankings"]) == (201, 1)
    again = researcher.post(address, files={"file": ("pairs.jsonl", good)})
    assert (again.status_code, again.json()["is_new"]) == (200, False)


def test_an_unknown_format_is_refused(researcher: Person) -> None:
    answer = upload(researcher, [pair()], format="spreadsheet")
    assert answer.status_code == 422
    assert "the formats are kwise, squality, pairwise, votes, ratings, oasst, hh, trl" in answer.text


def test_datasets_are_for_researchers_of_the_project(
    labeler: Person, outsider: Person, researcher: Person, add_ranking: AddRanking
) -> None:
    add_ranking()
    address = f"{API}/{researcher.post(API, json={'name': 'May'}).json()['id']}/export"
    assert {labeler.get(path).status_code for path in (PAGE, API, address)} == {403}
    assert {outsider.get(path).status_code for path in (PAGE, API, address)} == {404}
    assert labeler.post(API, json={"name": "June"}).status_code == 403


def test_ids_of_other_projects_are_not_found(researcher: Person, site_admin: Person, session: Session) -> None:
    session.add(Project(slug="kitchen", name="Kitchen", flags=[]))
    session.commit()
    answer = upload(researcher, [pair()])
    elsewhere = answer.headers["location"].replace("garden", "kitchen")
    assert site_admin.get(elsewhere).status_code == 404
    assert site_admin.get(f"{SNAPSHOTS}/99").status_code == 404

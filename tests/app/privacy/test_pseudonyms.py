"""Researchers meet pseudonyms alone, notes go nowhere, and one person's pseudonyms in two projects cannot be linked."""

import io
import json
from typing import Any

import pyarrow.parquet as pq
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets.cards import dataset_card
from app.datasets.exports import ExportChoice, export_chunks
from app.datasets.models import Snapshot
from app.datasets.snapshots import create_snapshot
from app.db import clock
from app.labeling.models import Lease, LeaseEnd
from app.people.models import Labeler
from app.projects.models import Project
from app.prompts.models import Split
from tests.app.conftest import Person
from tests.app.loop import make_prompts, make_slate, make_version, rank
from tests.app.privacy.conftest import NOTE, Crowd, labeler_in
from tests.app.test_access import routes

ROOT = "/projects/everyday"


def pages_of(values: dict[str, str]) -> list[str]:
    """Every address below a project that is read, with what stands in it filled in from the values."""
    found = []
    for method, path in routes():
        if method == "GET" and "/projects/{slug}" in path:
            for name, value in values.items():
                path = path.replace(f"{{{name}}}", value)
            if "{" not in path and not path.endswith("/events"):  # those never end, and say no more than "changed"
                found.append(path)
    return found


@pytest.fixture
def watched(crowd: Crowd, session: Session, project: Project) -> Crowd:
    """With a skipped slate whose reason says something of the labeler, too."""
    now = clock(session)
    slate = make_slate(session, make_prompts(session, project, Split.TRAIN)[0])
    session.add(
        Lease(
            slate_id=slate.id,
            labeler_id=crowd.lena.id,
            slot=1,
            order_shown=[],
            granted_at=now,
            expires_at=now,
            closed_at=now,
            end=LeaseEnd.SKIPPED,
            reason=NOTE,
        )
    )
    session.commit()
    return crowd


def test_nothing_that_a_researcher_can_open_has_a_labelers_name_address_or_note(
    researcher: Person, admin: Person, session: Session, watched: Crowd
) -> None:
    values = {
        "slug": "everyday",
        "snapshot_id": str(watched.snapshot.id),
        "labeler_id": str(watched.lena.id),
        "slate_id": str(watched.hers.slate_id),
        "ranking_id": str(watched.hers.id),
        "number": "1",
        "version": "1",
        "content": "rankings",
    }
    opened = []
    for path in pages_of(values):
        response = researcher.get(path)
        assert response.status_code < 500, path
        if response.status_code == 200:
            opened.append(path)
            told = (response.text + json.dumps(dict(response.headers))).lower()
            for secret in ("lena lab", "otto lab", "labeler@example.org", NOTE.lower()):
                assert secret not in told, f"{secret} stands in {path}"
    assert len(opened) > 40  # the walk went somewhere
    for path in (f"{ROOT}/quality", f"{ROOT}/datasets/snapshots/{watched.snapshot.id}", f"/api/v1{ROOT}/snapshots"):
        assert path in opened
    assert "lena" in admin.get(f"{ROOT}/quality").text.lower()  # what the walk looks for is there to be found


@pytest.mark.parametrize("format", ["kwise", "pairs", "sft"])
@pytest.mark.parametrize("file", ["jsonl", "parquet"])
def test_exports_have_the_pseudonym_and_neither_names_ids_of_accounts_nor_notes(
    researcher: Person, session: Session, watched: Crowd, format: str, file: str
) -> None:
    url = f"/api/v1{ROOT}/snapshots/{watched.snapshot.id}/export?format={format}&file={file}"
    content = researcher.get(url).content
    rows = (
        [json.loads(line) for line in content.splitlines()]
        if file == "jsonl"
        else pq.read_table(io.BytesIO(content)).to_pylist()
    )
    assert {row["labeler"] for row in rows} <= {watched.lena.pseudonym, watched.otto.pseudonym}
    told = json.dumps(rows, default=str).lower()
    assert NOTE.lower() not in told
    assert "lena" not in told
    names = names_in(rows)
    assert not {name for name in names if "account" in name or "note" in name or "email" in name}


def names_in(value: Any) -> set[str]:
    """Every name of a field, however deep."""
    if isinstance(value, list):
        return set().union(*map(names_in, value)) if value else set()
    if isinstance(value, dict):
        return set(value).union(*map(names_in, value.values()))
    return set()


def test_the_card_and_the_files_name_say_nothing_of_people(
    researcher: Person, session: Session, project: Project, watched: Crowd
) -> None:
    card = dataset_card(session.merge(project), session.get_one(Snapshot, watched.snapshot.id)).lower()
    file = researcher.get(f"/api/v1{ROOT}/snapshots/{watched.snapshot.id}/export")
    for told in (card, file.headers["content-disposition"].lower()):
        for secret in ("lena lab", "lena-", "example.org", watched.lena.pseudonym):
            assert secret not in told


def test_one_persons_pseudonyms_in_two_projects_share_nothing(
    session: Session, labeler: Person, project: Project, elsewhere: Project
) -> None:
    one, other = labeler_in(session, labeler, project), labeler_in(session, labeler, elsewhere)
    assert one.pseudonym != other.pseudonym
    assert labeler_in(session, labeler, project).pseudonym == one.pseudonym  # and each stays


def test_a_pseudonym_is_drawn_by_lot_and_not_made_from_anything(
    session: Session, labeler: Person, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same account, project and time give another pseudonym when the lot is another one."""
    lots = iter(["aaaaaaaa", "bbbbbbbb"])
    monkeypatch.setattr("app.people.pseudonyms.secrets.token_hex", lambda _: next(lots))
    first = labeler_in(session, labeler, project).pseudonym
    session.rollback()
    assert session.scalars(select(Labeler)).all() == []
    assert (first, labeler_in(session, labeler, project).pseudonym) == ("labeler-aaaaaaaa", "labeler-bbbbbbbb")


def test_a_snapshot_of_two_projects_rankings_by_one_person_links_no_one(
    session: Session, labeler: Person, project: Project, elsewhere: Project, researcher: Person
) -> None:
    make_version(session, elsewhere)
    files = []
    for each in (project, elsewhere):
        found = labeler_in(session, labeler, each)
        rank(session, make_slate(session, make_prompts(session, each, Split.TRAIN)[0]), [1, 2, 3, 4], found)
        session.commit()
        snapshot = create_snapshot(session, each, name="paper", account=None, now=clock(session))
        session.commit()
        files.append([json.loads(line) for line in b"".join(export_chunks(snapshot, ExportChoice())).splitlines()])
    [one], [other] = files
    shared = {
        name
        for name in one
        if isinstance(one[name], str) and one[name] == other[name] and name not in ("kind", "split")
    }
    assert shared == set()


def test_the_answers_that_researchers_programs_read_have_no_id_of_an_account(
    researcher: Person, session: Session, watched: Crowd
) -> None:
    values = {"slug": "everyday", "snapshot_id": str(watched.snapshot.id), "number": "1"}
    for path in pages_of(values):
        response = researcher.get(path)
        if response.status_code == 200 and response.headers["content-type"] == "application/json":
            names = names_in(response.json())
            assert not {name for name in names if "account" in name or name == "created_by"}, path

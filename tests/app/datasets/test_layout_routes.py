"""The folder to publish over HTTP: a zip file that goes on in the middle, and its files with their hashes."""

import hashlib
import io
import zipfile
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from app.datasets import layout, layout_routes
from app.datasets.export_commands import write_whole
from app.datasets.layout import write_layout
from app.datasets.models import ExportFile, Redaction, Snapshot
from app.privacy.models import Erasure, Extent
from app.projects.models import Project
from tests.app.conftest import Person


@pytest.fixture
def address(seven_rankings: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a folder with at most three rankings in a file."""
    monkeypatch.setattr(layout, "LABELS_A_SHARD", 3)
    return f"{seven_rankings}/layout"


def test_the_zip_file_holds_what_the_command_writes_and_its_length_is_known_the_second_time(
    session: Session, researcher: Person, garden: Project, address: str, tmp_path: Path
) -> None:
    snapshot = session.scalars(select(Snapshot)).one()
    list(write_layout(tmp_path / "garden", garden, snapshot, write=write_whole))
    written = {path.relative_to(tmp_path / "garden").as_posix(): path.read_bytes() for path in
               (tmp_path / "garden").rglob("*") if path.is_file()}  # fmt: skip
    first = researcher.get(f"{address}/export")
    assert "content-length" not in first.headers
    with zipfile.ZipFile(io.BytesIO(first.content)) as archive:
        assert archive.testzip() is None
        assert {name.removeprefix("garden-may-1/"): archive.read(name) for name in archive.namelist()} == written
    second = researcher.get(f"{address}/export")
    assert (second.content, second.headers["etag"]) == (first.content, first.headers["etag"])
    assert second.headers["content-length"] == str(len(second.content))
    told = researcher.get(address).json()
    assert {each["name"]: (each["num_bytes"], each["sha256"]) for each in told} == {
        name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in written.items()
    }


@pytest.mark.parametrize("is_known", [True, False], ids=["read before", "read by nobody"])
def test_a_download_that_broke_off_goes_on_where_it_was(
    session: Session, researcher: Person, address: str, is_known: bool
) -> None:
    whole = researcher.get(f"{address}/export")
    if not is_known:  # it broke off the first time: what was read to its end is not all of it
        session.execute(delete(ExportFile))
        session.commit()
    for first in (1, 700, len(whole.content) - 1):
        rest = researcher.get(
            f"{address}/export", headers={"Range": f"bytes={first}-", "If-Range": whole.headers["etag"]}
        )
        assert (rest.status_code, rest.content) == (206, whole.content[first:])
        assert rest.headers["content-range"] == f"bytes {first}-{len(whole.content) - 1}/{len(whole.content)}"
    other = researcher.get(f"{address}/export", headers={"Range": "bytes=7-", "If-Range": '"another"'})
    assert (other.status_code, other.content) == (200, whole.content)


@pytest.mark.parametrize(
    ("asked", "if_range"), [("bytes=0-", None), ("bytes=0-99", None), ("bytes=5-99", None), ("bytes=7-", '"another"')]
)
def test_nothing_is_measured_for_an_answer_that_is_the_whole_archive(
    researcher: Person, address: str, monkeypatch: pytest.MonkeyPatch, asked: str, if_range: str | None
) -> None:
    monkeypatch.setattr(layout_routes, "measured", lambda *given: pytest.fail("it was read for nothing"))
    headers = {"Range": asked} | ({"If-Range": if_range} if if_range else {})
    assert researcher.get(f"{address}/export", headers=headers).status_code == 200


def test_a_rest_that_begins_past_the_end_is_refused(researcher: Person, address: str) -> None:
    size = len(researcher.get(f"{address}/export").content)
    for first in (size, size + 1):
        past = researcher.get(f"{address}/export", headers={"Range": f"bytes={first}-"})
        assert (past.status_code, past.headers["content-range"], past.content) == (416, f"bytes */{size}", b"")


def test_each_file_is_listed_and_can_be_taken_alone(researcher: Person, address: str) -> None:
    listed = researcher.get(address).json()
    assert [each["name"] for each in listed if each["export"] is None] == ["LICENSE.md", "README.md"]
    assert {each["sha256"] for each in listed if each["export"]} == {None}
    with zipfile.ZipFile(io.BytesIO(researcher.get(f"{address}/export").content)) as archive:
        for each in listed:
            if each["export"] is not None:
                alone = researcher.get(address.replace("/layout", "/export"), params=parse_qsl(each["export"]))
                assert alone.content == archive.read(f"garden-may-1/{each['name']}"), each["name"]


def test_the_page_has_the_files_and_one_button_for_all_of_them(
    session: Session, researcher: Person, labeler: Person, address: str
) -> None:
    snapshot = session.scalars(select(Snapshot)).one()
    page = f"/projects/garden/datasets/snapshots/{snapshot.id}"
    assert f'href="{page}/layout/export" download' in researcher.get(page).text
    before = researcher.get(f"{page}/layout").text
    assert "data/kwise/" in before
    assert "known once somebody has downloaded it" in before
    researcher.get(f"{page}/layout/export")
    after = researcher.get(f"{page}/layout").text
    assert "known once somebody has downloaded it" not in after
    known = session.scalars(select(ExportFile.sha256)).all()
    assert known
    assert all(sha256 in after for sha256 in known)
    assert labeler.get(f"{page}/layout").status_code == 403
    assert labeler.get(f"{page}/layout/export").status_code == 403


def test_a_redacted_snapshot_has_no_folder(session: Session, researcher: Person, address: str) -> None:
    erasure = Erasure(extent=Extent.LABELS, transaction_id="1", report={}, at=func.now())
    session.add(erasure)
    snapshot = session.scalars(select(Snapshot)).one()
    session.flush()
    session.add(Redaction(snapshot_id=snapshot.id, successor_id=None, erasure_id=erasure.id))
    session.commit()
    for path in (address, f"{address}/export"):
        assert (researcher.get(path).status_code, researcher.get(path).json()["code"]) == (410, "snapshot_redacted")

"""Downloads that go on where they broke off, from the database and not from a file."""

import asyncio
import base64
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.datasets import export_files, exports
from app.datasets.models import ExportFile
from tests.app.conftest import Person


@pytest.fixture
def address(seven_rankings: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of an export in pieces of two rankings."""
    monkeypatch.setattr(exports, "ROWS_PER_SESSION", 2)
    return f"{seven_rankings}/export"


Rest = Callable[..., Any]


@pytest.fixture
def rest(researcher: Person, address: str) -> Rest:
    """Asks for a part of a file."""

    def ask(part: str, file: str = "jsonl", **headers: str) -> Any:
        said = {"Range": part} | {name.replace("_", "-"): value for name, value in headers.items()}
        return researcher.get(address, params={"format": "pairs", "file": file}, headers=said)

    return ask


@pytest.mark.parametrize("file", ["jsonl", "parquet"])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True), length=st.integers(1, 5000))
def test_any_part_of_a_file_is_that_part(
    researcher: Person, address: str, rest: Rest, file: str, share: float, length: int
) -> None:
    whole = researcher.get(address, params={"format": "pairs", "file": file}).content
    first = int(share * len(whole))
    last = min(first + length, len(whole)) - 1
    for part, expected in ((f"bytes={first}-", whole[first:]), (f"bytes={first}-{last}", whole[first : last + 1])):
        answer = rest(part, file)
        assert (answer.status_code, answer.content) == (206, expected)
        assert answer.headers["content-length"] == str(len(expected))
        assert answer.headers["content-range"] == f"bytes {first}-{first + len(expected) - 1}/{len(whole)}"


def test_a_part_can_be_asked_for_before_anybody_has_read_the_whole(
    researcher: Person, address: str, rest: Rest, session: Session
) -> None:
    assert session.scalar(select(func.count(ExportFile.tag))) == 0
    answer = rest("bytes=100-")
    assert answer.status_code == 206
    whole = researcher.get(address, params={"format": "pairs"})
    assert (answer.content, answer.headers["etag"]) == (whole.content[100:], whole.headers["etag"])


def test_a_file_is_measured_once_whoever_waits_for_it_and_nobody_else_waits(
    app: FastAPI, engine: Any, researcher: Person, address: str, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_connections = 3
    monkeypatch.setattr(engine.pool, "size", lambda: num_connections)
    write, readings, has_begun, goes_on = export_files.export_pieces, [], Event(), Event()

    def held(*given: Any, first: int | None = None) -> Iterator[Iterator[bytes]]:
        if first is None:
            readings.append(given)
            has_begun.set()
            goes_on.wait(30)
        yield from write(*given, first=first or 0)

    monkeypatch.setattr(export_files, "export_pieces", held)

    async def ask() -> tuple[httpx.Response, list[httpx.Response]]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://testserver", cookies=dict(researcher.cookies), timeout=None
        ) as reader:
            waiting = [
                asyncio.create_task(reader.get(address, headers={"Range": "bytes=100-"}))
                for _ in range(2 * num_connections)
            ]
            try:
                await asyncio.to_thread(has_begun.wait, 30)
                other = await asyncio.wait_for(reader.get("/api/v1/projects/garden/snapshots"), 15)
            finally:
                goes_on.set()
            return other, await asyncio.gather(*waiting)

    with ThreadPoolExecutor(1) as thread:  # this one may have a loop of a browser's
        other, parts = thread.submit(asyncio.run, ask()).result()
    assert other.status_code == 200
    assert [part.status_code for part in parts] == [206] * len(parts)
    assert len(readings) == 1
    assert {part.content for part in parts} == {researcher.get(address).content[100:]}


def test_where_pieces_begin_is_forgotten_when_they_are_made_of_other_sizes(
    rest: Rest, researcher: Person, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = researcher.get(address, params={"format": "pairs"})
    start = len(whole.content) * 2 // 3
    monkeypatch.setattr(exports, "ROWS_PER_SESSION", 3)
    assert rest(f"bytes={start}-").content == whole.content[start:]
    assert rest(f"bytes={start}-", If_Range=whole.headers["etag"]).content == whole.content


def test_the_size_and_the_hash_are_told_once_somebody_came_to_the_end(researcher: Person, address: str) -> None:
    before = researcher.head(address)
    assert (before.status_code, before.headers.get("content-length"), before.headers.get("repr-digest")) == (
        200, None, None
    )  # fmt: skip
    content = researcher.get(address).content
    after = researcher.head(address)
    digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
    assert after.headers["content-length"] == str(len(content))
    assert after.headers["repr-digest"] == f"sha-256=:{digest}:"
    assert after.headers["etag"] == before.headers["etag"]
    assert researcher.get(address).headers["content-length"] == str(len(content))


def test_who_holds_the_beginning_of_another_file_gets_the_whole_one(
    rest: Rest, researcher: Person, address: str
) -> None:
    whole = researcher.get(address, params={"format": "pairs"})
    same = rest("bytes=10-", If_Range=whole.headers["etag"])
    other = rest("bytes=10-", If_Range='"another"')
    assert (same.status_code, other.status_code, other.content) == (206, 200, whole.content)


def test_nothing_comes_after_the_end_and_what_is_no_range_is_not_heeded(
    rest: Rest, researcher: Person, address: str
) -> None:
    whole = researcher.get(address, params={"format": "pairs"}).content
    beyond = rest(f"bytes={len(whole)}-")
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(whole)}")
    for odd in ("bytes=9-3", "bytes=-5", "lines=1-2", "bytes=1-2,5-6"):
        assert rest(odd).status_code == 200


def test_a_part_of_json_lines_reads_no_row_before_its_piece(
    rest: Rest, researcher: Person, address: str, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = researcher.get(address, params={"format": "pairs"}).content
    read: list[int] = []
    rows_between = exports.rows_between

    def watched(session: Session, snapshot_id: int, first: int, last: int, split: Any) -> Any:
        read.append(first)
        return rows_between(session, snapshot_id, first, last, split)

    monkeypatch.setattr(exports, "rows_between", watched)
    start = session.scalars(select(ExportFile.starts)).one()[2]
    assert rest(f"bytes={start + 1}-").content == whole[start + 1 :]
    assert read == [5, 7]


@pytest.mark.parametrize("wrong", [{"least_quality": "much"}, {"shard": "2"}, {"split": "dev"}, {"num_shards": "9999"}])
def test_a_file_that_does_not_exist_is_refused(researcher: Person, address: str, wrong: dict[str, str]) -> None:
    assert researcher.get(address, params={"format": "kto"} | wrong).status_code == 422
    assert researcher.head(address, params={"format": "kto"} | wrong).status_code == 422


def test_parts_are_for_researchers_of_the_project(labeler: Person, outsider: Person, address: str) -> None:
    for path in (address, address.replace("export", "card")):
        assert (labeler.get(path).status_code, outsider.get(path).status_code) == (403, 404)

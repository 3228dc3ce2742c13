"""The Python client, against the real app: it iterates, downloads, and goes on when the line breaks."""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy.orm import Session

from app import client
from app.client import BrokenOff, Damaged, Podium, Refused, lines
from app.datasets import exports
from app.people import service
from app.projects.models import Project
from tests.app.conftest import Person
from tests.app.datasets.conftest import AddRanking, add_ranking, garden  # noqa: F401 - fixtures are found by name
from tests.test_structure import imports_of


@pytest.fixture
def project(garden: Project) -> Project:  # noqa: F811
    """The people of these tests are the garden's."""
    return garden


class ShakyLine(httpx.BaseTransport):
    """Lets so many bytes of each export's answer through, and then breaks; every other request breaks at once."""

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self.inner = inner
        self.lets_through: int | None = None
        self.is_away = False
        self.asked: list[str | None] = []  # the ranges of exports

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self.is_away:
            raise httpx.ConnectError("nobody is there", request=request)
        answer = self.inner.handle_request(request)
        is_export = request.method == "GET" and request.url.path.endswith("/export")
        if is_export:
            self.asked.append(request.headers.get("range"))
        stream = Broken(answer.read(), self.lets_through if is_export else None)
        return httpx.Response(answer.status_code, headers=list(answer.headers.items()), stream=stream, request=request)


class Killed(Exception):
    """As if the process had ended there."""


def killed(attempt: int) -> None:
    raise Killed


class Broken(httpx.SyncByteStream):
    def __init__(self, content: bytes, lets_through: int | None) -> None:
        self.content, self.lets_through = content, lets_through

    def __iter__(self) -> Iterator[bytes]:
        if self.lets_through is None or self.lets_through >= len(self.content):
            yield self.content
            return
        yield self.content[: self.lets_through]
        raise httpx.ReadError("the line broke")


@pytest.fixture
def line(researcher: Person) -> ShakyLine:
    return ShakyLine(researcher._transport)


@pytest.fixture
def podium(
    researcher: Person,
    line: ShakyLine,
    session: Session,
    add_ranking: AddRanking,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Podium:
    """Nine rankings to read, with a researcher's key."""
    monkeypatch.setattr(exports, "ROWS_PER_SESSION", 2)
    monkeypatch.setattr(client, "pause", lambda attempt: None)
    for number in range(9):
        add_ranking((1, 2, 2, 3), prompt=f"Wörter {number}?\nUnd \u2028 mehr.")
    assert researcher.account is not None
    key = service.create_key(session, researcher.account, "notebook")
    session.commit()
    return Podium("http://testserver", key, http=httpx.Client(transport=line))


def test_a_program_freezes_lists_and_iterates(podium: Podium) -> None:
    project = podium.project("garden")
    frozen = project.freeze("May", kinds=["training"])
    assert [snapshot.name for snapshot in project.snapshots()] == ["May"]
    assert project.snapshot("May").id == project.snapshot(frozen.id).id == frozen.id
    assert len(list(frozen.kwise())) == frozen.facts["num_rankings"] == 9
    pairs = list(frozen.pairs(ties="keep", split=None))
    assert len(pairs) == 9 * 6
    assert {pair["prompt"] for pair in pairs} == {f"Wörter {number}?\nUnd \u2028 mehr." for number in range(9)}
    assert {prompt["prompt"][0]["content"][:6] for prompt in frozen.prompts()} == {"Wörter"}
    assert "\n# Garden: May\n" in frozen.card()


def test_records_come_whole_and_once_however_often_the_line_breaks(podium: Podium, line: ShakyLine) -> None:
    snapshot = podium.project("garden").freeze("May")
    expected = list(snapshot.pairs())
    line.lets_through = 1000
    line.asked.clear()
    assert list(snapshot.pairs()) == expected
    assert line.asked[:3] == [None, "bytes=1000-", "bytes=2000-"]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_download_that_was_given_up_goes_on_in_the_next_call(
    podium: Podium, line: ShakyLine, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = podium.project("garden").freeze("May")
    whole = snapshot.download(tmp_path / f"whole.{suffix}").read_bytes()
    file = tmp_path / f"again.{suffix}"
    file.write_bytes(b"what was there before")
    line.lets_through = 700
    download = snapshot._download("kwise", suffix, {})
    chunks = download.chunks()
    part = next(chunks)
    line.lets_through, line.is_away = None, True
    with pytest.raises(BrokenOff, match="begin again; a file goes on"):
        list(chunks)
    line.is_away = False
    assert len(part) == 700
    line.lets_through = 500
    line.asked.clear()

    monkeypatch.setattr(client, "pause", killed)
    with pytest.raises(Killed):
        snapshot.download(file)
    assert file.read_bytes() == b"what was there before"
    line.lets_through = None
    snapshot.download(file)
    assert line.asked == [None, "bytes=500-"]
    assert file.read_bytes() == whole
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_what_does_not_have_its_hash_is_thrown_away(podium: Podium, line: ShakyLine, tmp_path: Path) -> None:
    snapshot = podium.project("garden").freeze("May")
    snapshot.download(tmp_path / "a.jsonl")
    line.lets_through = 500
    download = snapshot._download("kwise", "jsonl", {})
    name = hashlib.sha256(download.tag.encode()).hexdigest()[:16]
    (tmp_path / f".b.jsonl.{name}.part").write_bytes(b"not what was sent")
    line.lets_through = None
    with pytest.raises(Damaged, match="download it again"):
        snapshot.download(tmp_path / "b.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_refusal_says_why_in_the_servers_words(podium: Podium) -> None:
    project = podium.project("garden")
    snapshot = project.freeze("May")
    with pytest.raises(Refused, match="holds no demonstration") as refused:
        list(snapshot.demonstrations())
    assert refused.value.code == "bad_export"
    with pytest.raises(Refused, match="has no snapshot 'June'"):
        project.snapshot("June")
    with pytest.raises(Refused):
        podium.project("elsewhere").snapshots()


def test_a_server_that_stays_away_is_told_of(podium: Podium, line: ShakyLine) -> None:
    line.is_away = True
    with pytest.raises(BrokenOff, match="look whether it runs"):
        podium.project("garden").snapshots()


def test_a_data_frame_and_a_dataset_hold_the_records(
    podium: Podium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    snapshot = podium.project("garden").freeze("May")
    expected = list(snapshot.pairs())
    assert snapshot.to_pandas("pairs")["chosen"].tolist() == [pair["chosen"] for pair in expected]
    dataset = snapshot.to_dataset("pairs")
    assert list(dataset) == expected


@pytest.mark.parametrize("sizes", [1, 3, 1000])
def test_lines_are_put_together_from_any_chunks(sizes: int) -> None:
    content = "ä\u2028b\n\nlast".encode()
    chunks = (content[start : start + sizes] for start in range(0, len(content), sizes))
    assert [line.decode() for line in lines(chunks)] == ["ä\u2028b", "", "last"]


def test_the_client_is_one_file_that_needs_httpx_alone() -> None:
    roots = {name.partition(".")[0] for name in imports_of("app.client", Path(client.__file__))}
    assert roots - sys.stdlib_module_names == {"httpx", "datasets", "pandas"}  # the last two when they are asked for

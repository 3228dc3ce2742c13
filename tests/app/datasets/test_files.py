"""Files: read a record at a time, whatever they are wrapped in; what is wrong is named by line."""

import gzip
import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.datasets import files
from app.datasets.errors import BadFile
from app.datasets.files import container_of, records


def read(content: bytes, name: str = "file.jsonl") -> list[tuple[int, dict[str, Any]]]:
    file = io.BytesIO(content)
    return list(records(file, container_of(file, name)))


def parquet(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


A_PROMPT = b'{"prompt": "Na\xc3\xafve?"}\n'


@pytest.mark.parametrize(
    "content",
    [
        A_PROMPT,
        A_PROMPT.rstrip(),
        b"\xef\xbb\xbf" + A_PROMPT,
        A_PROMPT.replace(b"\n", b"\r\n"),
        gzip.compress(A_PROMPT),
    ],
    ids=["plain", "no end of line", "byte order mark", "Windows line ends", "gzip"],
)
def test_json_lines_are_read_however_they_were_saved(content: bytes) -> None:
    assert read(content) == [(1, {"prompt": "Naïve?"})]


def test_blank_lines_count_as_lines_and_are_no_records() -> None:
    assert [line for line, _ in read(b'\n{"a": 1}\n\n{"a": 2}\n')] == [2, 4]


def test_plain_lines_are_prompts() -> None:
    assert read(b"Name a tree.\r\n\r\n Name a bird. \r\n", "p.txt") == [
        (1, {"text": "Name a tree."}),
        (3, {"text": "Name a bird."}),
    ]


def test_csv_is_read_by_its_header_with_breaks_in_quoted_texts() -> None:
    rows = read(b'prompt,note\r\n"Say ""hi"",\r\nthen go",x\r\nName a tree.,y\r\n', "p.csv")
    assert rows == [(2, {"prompt": 'Say "hi",\nthen go', "note": "x"}), (4, {"prompt": "Name a tree.", "note": "y"})]


def test_parquet_is_known_by_its_content() -> None:
    rows = [{"prompt": "a"}, {"prompt": "b"}]
    assert read(parquet(rows), "file.bin") == [(1, {"prompt": "a"}), (2, {"prompt": "b"})]


@pytest.mark.parametrize(("name", "container"), [("a.csv", "csv"), ("a.txt.gz", "lines"), ("a", "lines")])
def test_texts_are_told_apart_by_name(name: str, container: str) -> None:
    assert container_of(io.BytesIO(b"prompt\n"), name) == container


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (b"", None, "empty"),
        (gzip.compress(b"", mtime=0), None, "empty"),
        (b'{"a": 1}\n{"a": \n', 2, "not JSON: Expecting value"),
        (b'{"a": 1}\n[1]\n', 2, "not a JSON object"),
        (b'[{"a": 1}]', 1, "one JSON list"),
        (b'{"a": NaN}', 1, "NaN is no JSON number"),
        (b'{"a": ' + b"9" * 5000 + b"}", 1, "not JSON"),
        (b"[" * 100_000, 1, "nested too deeply"),
        (b'{"a": 1}\n{"a": "caf\xe9"}\n', 2, "byte 0xe9 at position 11 is not UTF-8"),
        ('{"a": 1}\n'.encode("utf-16"), 1, "UTF-16"),
        (gzip.compress(b'{"a": 1}\n' * 1000, mtime=0)[:-20], None, "gzip"),
        (b"PAR1 but no more", None, "not a Parquet file"),
    ],
)
def test_what_cannot_be_read_is_named_by_line_and_reason(content: bytes, line: int | None, reason: str) -> None:
    with pytest.raises(BadFile, match=reason) as caught:
        read(content)
    if line is not None:
        assert caught.value.problem.line == line


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [(b"prompt,n\na,1\nb\n", 3, "1 columns where the first line names 2"), (b'prompt\n"a\n', None, "not CSV")],
)
def test_a_broken_csv_is_named_by_line(content: bytes, line: int | None, reason: str) -> None:
    with pytest.raises(BadFile, match=reason) as caught:
        read(content, "p.csv")
    if line is not None:
        assert caught.value.problem.line == line


def test_a_line_without_end_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 1000)
    with pytest.raises(BadFile, match="longer than 0 MiB") as caught:
        read(gzip.compress(b'{"a": 1}\n' + b"x" * 5000))
    assert caught.value.problem.line == 2
    assert read(b'{"a": "' + b"x" * 900 + b'"}\n')[0][0] == 1


def test_a_small_archive_of_a_huge_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 10_000)
    bomb = gzip.compress(b'{"a": 1}\n' * 100_000)
    assert len(bomb) < 10_000
    with pytest.raises(BadFile, match="longer than"):
        read(bomb)


def test_a_parquet_file_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 100)
    with pytest.raises(BadFile, match="unpacks to more"):
        read(parquet([{"prompt": f"number {number}"} for number in range(1000)]))


def test_texts_that_postgres_cannot_hold_are_replaced_wherever_they_are() -> None:
    ((_, record),) = read(b'{"a\\u0000": ["b\\u0000", {"c": "\\ud800"}]}')
    assert record == {"a\ufffd": ["b\ufffd", {"c": "\ufffd"}]}


def test_a_record_nested_too_deeply_to_be_looked_through_is_named_by_line() -> None:
    deep = "[" * 800 + "]" * 800
    with pytest.raises(BadFile, match="nested too deeply") as caught:
        read(A_PROMPT + f'{{"prompt": {deep}}}'.encode())
    assert caught.value.problem.line == 2

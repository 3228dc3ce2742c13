"""Small Parquet files that unpack to something huge: refused before the memory is needed."""

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.datasets import files
from app.datasets.errors import BadFile
from app.datasets.files import records
from app.datasets.parquet_files import TooMuch, TooMuchInLists, rows

MEBIBYTE = 2**20


def written(table: Any, **options: Any) -> io.BytesIO:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file


def repeated(text: str, num: int) -> Any:
    """A column that holds one text so many times, and stores it once."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * num, pa.int32()), [text])


def test_rows_come_as_they_were_written_whatever_their_columns() -> None:
    table = pa.table(
        {
            "messages": [[{"role": "user", "content": f"{n}"}, {"role": "assistant", "content": "So."}] for n in "abc"],
            "ranks": [[1, 2], None, []],
            "label": repeated("same", 3),
            "bytes": [b"a", None, b"\xff"],
            "facts": pa.array([[("k", "v")], [], None], pa.map_(pa.string(), pa.string())),
            "nothing": pa.nulls(3),
        }
    )
    assert list(rows(written(table), max_row_bytes=MEBIBYTE, max_file_bytes=MEBIBYTE)) == table.to_pylist()


def test_a_text_repeated_a_thousand_times_counts_a_thousand_times() -> None:
    file = written(pa.table({"text": repeated("x" * 100_000, 1000)}), compression="zstd")
    assert file.tell() < 10_000
    found = rows(file, max_row_bytes=MEBIBYTE, max_file_bytes=50 * MEBIBYTE)
    seen = 0
    with pytest.raises(TooMuch):  # noqa: PT012 - how far it came is what is looked at
        for _ in found:
            seen += 1
    assert 0 < seen < 50 * MEBIBYTE / 100_000


def test_a_row_that_is_one_endless_list_is_refused_unread() -> None:
    table = pa.table({"ranks": pa.array([[0] * 3_000_000], pa.list_(pa.int8()))})
    file = written(table, compression="zstd")
    assert file.tell() < 50_000
    with pytest.raises(TooMuch) as refused:
        next(rows(file, max_row_bytes=MEBIBYTE, max_file_bytes=10 * MEBIBYTE))
    assert refused.value.row is None


IN_SMALL_LISTS = {
    "wide": pa.array([[b"\0" * MEBIBYTE] * 20], pa.list_(pa.binary(MEBIBYTE))),
    "empty texts": pa.array([[""] * 200_000]),
    "nulls": pa.array([[None] * 200_000], pa.list_(pa.string())),
    "booleans": pa.array([[True] * 200_000]),
    "numbers of 8 bytes": pa.array([[7] * 200_000]),
    "numbers of 1 byte": pa.array([[7] * 200_000], pa.list_(pa.int8())),
    "nothings": pa.array([[None] * 200_000], pa.list_(pa.null())),
    "structs": pa.array([[{"a": None}] * 200_000], pa.list_(pa.struct([("a", pa.bool_())]))),
    "lists": pa.array([[[]] * 200_000], pa.list_(pa.list_(pa.string()))),
    "maps": pa.array([[[("", "")]] * 200_000], pa.list_(pa.map_(pa.string(), pa.string()))),
}


@pytest.mark.parametrize("array", IN_SMALL_LISTS.values(), ids=IN_SMALL_LISTS.keys())
def test_values_that_take_no_room_in_the_file_take_some_in_a_row(array: Any) -> None:
    file = written(pa.table({"list": array}), compression="zstd")
    assert file.tell() < 10_000
    with pytest.raises(TooMuch) as refused:
        next(rows(file, max_row_bytes=MEBIBYTE, max_file_bytes=1000 * MEBIBYTE))
    assert refused.value.row == 1


@pytest.mark.parametrize("array", IN_SMALL_LISTS.values(), ids=IN_SMALL_LISTS.keys())
def test_lists_that_might_be_one_row_are_refused_before_they_are_read(array: Any) -> None:
    file = written(pa.table({"list": array}), compression="zstd")
    before = pa.total_allocated_bytes()
    with pytest.raises(TooMuchInLists):
        next(rows(file, max_row_bytes=MEBIBYTE, max_file_bytes=24 * MEBIBYTE))
    assert pa.total_allocated_bytes() - before < MEBIBYTE


def test_lists_are_read_from_smaller_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 20 * MEBIBYTE)
    table = pa.table({"list": [[7] * 100] * 4000})
    with pytest.raises(BadFile, match="smaller row groups"):
        list(records(written(table), "parquet"))
    assert len(list(records(written(table, row_group_size=1000), "parquet"))) == 4000


def test_wide_columns_are_fetched_by_few_rows() -> None:
    file = written(pa.table({"zeros": pa.array([b"\0" * MEBIBYTE] * 100, pa.binary(MEBIBYTE))}), compression="zstd")
    before = pa.total_allocated_bytes()
    for _ in rows(file, max_row_bytes=2 * MEBIBYTE, max_file_bytes=200 * MEBIBYTE):
        assert pa.total_allocated_bytes() - before < 20 * MEBIBYTE
    with pytest.raises(TooMuch) as refused:
        next(rows(file, max_row_bytes=MEBIBYTE // 2, max_file_bytes=200 * MEBIBYTE))
    assert refused.value.row == 1


def test_what_the_file_calls_json_is_counted_like_any_text() -> None:
    texts = pa.ExtensionArray.from_storage(pa.json_(), pa.array(['"' + "x" * 100_000 + '"'] * 100))
    file = written(pa.table({"facts": texts}), compression="zstd")
    before = pa.total_allocated_bytes()
    found = rows(file, max_row_bytes=MEBIBYTE, max_file_bytes=50 * MEBIBYTE)
    for record in found:
        assert record == {"facts": texts[0].as_py()}
        assert pa.total_allocated_bytes() - before < 4 * MEBIBYTE


def test_long_maps_are_counted_row_by_row() -> None:
    table = pa.table(
        {"facts": pa.array([[("k", f"{n}" * 10_000)] for n in range(100)], pa.map_(pa.string(), pa.string()))}
    )
    found = rows(written(table), max_row_bytes=MEBIBYTE // 4, max_file_bytes=50 * MEBIBYTE)
    assert list(found) == table.to_pylist()


@pytest.mark.parametrize("text", [pa.string_view(), pa.binary_view(), pa.large_string(), pa.large_binary()], ids=str)
def test_texts_are_read_whatever_arrow_calls_them(text: Any) -> None:
    some, binary = ["a", None, ""], pa.types.is_binary_view(text) or pa.types.is_large_binary(text)
    values = [value.encode() if binary and value is not None else value for value in some]
    table = pa.table(
        {
            "text": pa.array(values, text),
            "list": pa.array([values, None, []], pa.list_(text)),
            "view": pa.array([values, None, []], pa.list_view(text)),
            "pair": pa.array([values[:2], None, values[1:]], pa.list_(text, 2)),
            "struct": pa.array([{"in": [values[0]]}, None, {"in": None}], pa.struct([("in", pa.large_list(text))])),
            "map": pa.array([[(values[0], None)], None, []], pa.map_(text, text)),
        }
    )
    assert list(rows(written(table), max_row_bytes=MEBIBYTE, max_file_bytes=MEBIBYTE)) == table.to_pylist()


def test_one_row_that_is_too_long_is_named() -> None:
    table = pa.table({"text": ["short", "x" * (20 * MEBIBYTE)]})
    with pytest.raises(BadFile, match="longer than 16 MiB") as refused:
        list(records(written(table, compression="zstd"), "parquet"))
    assert refused.value.problem.line == 2

"""Rows of Parquet files, however much a small one unpacks to.

A column that repeats one value is stored as that value and its number of repetitions: a file of some kilobytes may hold
terabytes. So what a file says of itself is added up before it is read, texts are read as references to the texts they
repeat, their true size is counted before any is copied, and rows are copied in pieces that fit into memory. No value
weighs nothing: a list of empty texts is as long as one of others. Knows nothing of what the records mean.
"""

from collections.abc import Iterator
from typing import Any, BinaryIO, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

Record: TypeAlias = dict[str, Any]

ROWS_PER_FETCH = 200
REFERENCE_BYTES = 8  # what it takes to point to a value, however small it is


class TooMuch(Exception):
    """More than a file may hold. row: the first one that is too large, counted from 1; None: the file as a whole is."""

    def __init__(self, row: int | None) -> None:
        super().__init__(row)
        self.row = row


class TooMuchInLists(TooMuch):
    """The lists of one row group may all be one row's, which would not fit into memory."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(None)
        self.max_bytes = max_bytes


def rows(file: BinaryIO, *, max_row_bytes: int, max_file_bytes: int) -> Iterator[Record]:
    """Every row, in order.  Raises TooMuch, pyarrow.ArrowException, OSError."""
    metadata = pq.read_metadata(file)
    rows_at_once = check_unread(metadata, max_row_bytes=max_row_bytes, max_file_bytes=max_file_bytes)
    texts = [column.path for column in columns_of(metadata) if column.physical_type == "BYTE_ARRAY"]
    # Without extensions: what the file calls JSON would be read as copies.
    opened = pq.ParquetFile(file, read_dictionary=texts, arrow_extensions_enabled=False)
    num_rows = num_bytes = 0
    for batch in opened.iter_batches(batch_size=rows_at_once):
        copies = pa.schema([field.with_type(of_copies(field.type)) for field in batch.schema])
        for piece, size in pieces(batch, max_row_bytes):
            num_bytes += size
            if piece.num_rows == 1 and size > max_row_bytes:
                raise TooMuch(num_rows + 1)
            if num_bytes > max_file_bytes:
                raise TooMuch(None)
            num_rows += piece.num_rows
            yield from piece.cast(copies).to_pylist()


def check_unread(metadata: Any, *, max_row_bytes: int, max_file_bytes: int) -> int:
    """How many rows may be read at once, by what the file says of itself.  Raises TooMuch."""
    columns = columns_of(metadata)
    max_list_bytes = max_file_bytes // 8
    num_bytes = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        in_lists = 0
        for index, column in enumerate(columns):
            chunk = group.column(index)
            as_read = bytes_a_value(column) * chunk.num_values
            num_bytes += max(chunk.total_uncompressed_size, as_read)
            in_lists += as_read if column.max_repetition_level else 0
        if num_bytes > max_file_bytes:
            raise TooMuch(None)
        if in_lists > max_list_bytes:
            raise TooMuchInLists(max_list_bytes)
    row_bytes = sum(bytes_a_value(column) for column in columns if not column.max_repetition_level)
    if row_bytes > max_row_bytes:
        raise TooMuch(1)
    return min(ROWS_PER_FETCH, max_row_bytes // max(row_bytes, 1))


def columns_of(metadata: Any) -> list[Any]:
    return [metadata.schema.column(index) for index in range(metadata.num_columns)]


def bytes_a_value(column: Any) -> int:
    """What each takes as it is read, if it is text without the text itself; and each list that it may begin."""
    width = {"FIXED_LEN_BYTE_ARRAY": column.length, "INT96": 12}.get(column.physical_type, 0)
    return int(max(width, REFERENCE_BYTES) + REFERENCE_BYTES * column.max_repetition_level)


def of_copies(kind: Any) -> Any:
    """The type with texts instead of references to them, which Python copies faster. Views of lists cannot be cast."""
    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(of_copies(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(of_copies(kind.key_type), of_copies(kind.item_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(of_copies(kind.value_type), kind.list_size)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return (pa.list_ if pa.types.is_list(kind) else pa.large_list)(of_copies(kind.value_type))
    return kind


def pieces(batch: Any, max_bytes: int) -> Iterator[tuple[Any, int]]:
    """The batch in parts of at most so many bytes, or of one row, with their sizes."""
    size = sum(copied_bytes(column) for column in batch.columns)
    if size <= max_bytes or batch.num_rows == 1:
        yield batch, size
        return
    half = batch.num_rows // 2
    yield from pieces(batch.slice(0, half), max_bytes)
    yield from pieces(batch.slice(half), max_bytes)


def copied_bytes(array: Any) -> int:
    """What the array's values take when each is a copy of its own, with what points to it."""
    references = REFERENCE_BYTES * len(array)
    if pa.types.is_dictionary(array.type):
        return references + (pc.sum(pc.binary_length(array.dictionary).take(array.indices)).as_py() or 0)
    if pa.types.is_struct(array.type):
        return references + sum(copied_bytes(field) for field in array.flatten())
    if pa.types.is_map(array.type):
        start, end = array.offsets[0].as_py(), array.offsets[-1].as_py()  # the keys of a slice are those of all
        return references + sum(copied_bytes(each.slice(start, end - start)) for each in (array.keys, array.items))
    if pa.types.is_nested(array.type):
        return references + copied_bytes(array.flatten())
    return max(references, int(array.nbytes))

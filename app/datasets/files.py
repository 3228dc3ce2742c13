"""Files as people have them, read one record at a time: text, JSON lines, CSV or Parquet, gzipped or not.

Whatever is wrong is named with its line. Memory does not grow with the file: lines and the whole are bounded, also when
a small archive unpacks to something huge. Knows nothing of what the records mean.
"""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from decimal import Decimal
from math import isfinite
from pathlib import PurePath
from typing import Any, BinaryIO, NoReturn, TypeAlias

from app.datasets.errors import BadFile
from app.prompts.messages import storable

Record: TypeAlias = dict[str, Any]

CONTAINERS = ("lines", "jsonl", "csv", "parquet")

MAX_LINE_BYTES = 16 * 2**20  # a slate of nine completions of 100,000 words is half of it
MAX_FILE_BYTES = 2 * 2**30  # unpacked

GZIP_MAGIC = b"\x1f\x8b"
PARQUET_MAGIC = b"PAR1"
UTF8_MARK = b"\xef\xbb\xbf"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def container_of(file: BinaryIO, file_name: str) -> str:
    """What the file is: "parquet", "jsonl", "csv" or "lines", by its first bytes and, between texts, by its name.

    Raises BadFile if it is empty.
    """
    file.seek(0)
    start = file.read(4)
    file.seek(0)
    if not start:
        raise BadFile(None, "the file is empty")
    if start == PARQUET_MAGIC:
        return "parquet"
    first = next(text_lines(file), (1, ""))[1].strip()
    suffix = PurePath(file_name.lower().removesuffix(".gz")).suffix
    if suffix in {".csv", ".txt"}:
        return {".csv": "csv", ".txt": "lines"}[suffix]
    return "jsonl" if suffix in {".jsonl", ".json", ".ndjson"} or first.startswith(("{", "[")) else "lines"


def records(file: BinaryIO, container: str) -> Iterator[tuple[int, Record]]:
    """The file's objects with the number of their line (of their row, in Parquet). Raises BadFile."""
    read = {"parquet": parquet_records, "jsonl": json_records, "csv": csv_records, "lines": line_records}[container]
    for number, record in read(file):
        try:
            yield number, storable_value(record)
        except RecursionError:
            raise BadFile(number, "nested too deeply") from None


def line_records(file: BinaryIO) -> Iterator[tuple[int, Record]]:
    for number, line in text_lines(file):
        if line.strip():
            yield number, {"text": line.strip()}


def json_records(file: BinaryIO) -> Iterator[tuple[int, Record]]:
    for number, line in text_lines(file):
        if line.strip():
            yield number, json_object(number, line)


def json_object(number: int, line: str) -> Record:
    try:
        value = json.loads(line, parse_constant=refuse_constant)
    except json.JSONDecodeError as error:
        raise BadFile(number, f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise BadFile(number, "not JSON we can read: nested too deeply") from None
    except ValueError as error:  # NaN, or a number with thousands of digits
        raise BadFile(number, f"not JSON: {error}") from None
    if isinstance(value, list) and number == 1:
        raise BadFile(number, "the file is one JSON list; write one object a line (jq -c '.[]' does it)")
    if not isinstance(value, dict):
        raise BadFile(number, "not a JSON object")
    return value


def refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def csv_records(file: BinaryIO) -> Iterator[tuple[int, Record]]:
    """Rows under the names of the first line; quoted texts may hold line breaks."""
    csv.field_size_limit(MAX_LINE_BYTES)
    reader = csv.reader((f"{line}\n" for _, line in text_lines(file)), strict=True)
    try:
        header = next(reader)
        start = reader.line_num + 1
        for row in reader:
            if row and len(row) != len(header):
                raise BadFile(start, f"{len(row)} columns where the first line names {len(header)}")
            if row:
                yield start, dict(zip(header, row, strict=True))
            start = reader.line_num + 1
    except csv.Error as error:
        raise BadFile(reader.line_num, f"not CSV: {error}") from None


def parquet_records(file: BinaryIO) -> Iterator[tuple[int, Record]]:
    import pyarrow as pa  # here, since most imports are texts and it takes a tenth of a second

    from app.datasets import parquet_files

    try:
        found = parquet_files.rows(file, max_row_bytes=MAX_LINE_BYTES, max_file_bytes=MAX_FILE_BYTES)
        yield from enumerate(found, start=1)
    except parquet_files.TooMuchInLists as error:
        reason = f"the lists of one row group may take more than {error.max_bytes >> 20} MiB"
        raise BadFile(None, f"{reason}; write the file with smaller row groups") from None
    except parquet_files.TooMuch as error:
        if error.row is not None:
            raise BadFile(error.row, f"longer than {MAX_LINE_BYTES >> 20} MiB") from None
        raise BadFile(None, f"it unpacks to more than {MAX_FILE_BYTES >> 30} GiB; split it") from None
    except (pa.ArrowException, OSError) as error:
        raise BadFile(None, f"not a Parquet file that can be read: {str(error).splitlines()[0]}") from None


def text_lines(file: BinaryIO) -> Iterator[tuple[int, str]]:
    """Lines without their ends (Windows' too), counted from 1, unpacked where needed. Raises BadFile."""
    file.seek(0)
    is_packed = file.read(2) == GZIP_MAGIC
    file.seek(0)
    source: Any = gzip.GzipFile(fileobj=file) if is_packed else file
    number, size = 0, 0
    try:
        while line := source.readline(MAX_LINE_BYTES + 1):
            number += 1
            size += len(line)
            if len(line) > MAX_LINE_BYTES:
                raise BadFile(number, f"longer than {MAX_LINE_BYTES >> 20} MiB")
            if size > MAX_FILE_BYTES:
                raise BadFile(number, f"the file is longer than {MAX_FILE_BYTES >> 30} GiB; split it")
            yield number, decoded(number, line)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadFile(number + 1, f"the gzip data is damaged here: {error}") from None
    if number == 0:
        raise BadFile(None, "the file is empty")


def decoded(number: int, line: bytes) -> str:
    if number == 1:
        if line.startswith(UTF16_MARKS):
            raise BadFile(1, "the file is UTF-16; save it as UTF-8")
        line = line.removeprefix(UTF8_MARK)
    try:
        return line.rstrip(b"\r\n").decode()
    except UnicodeDecodeError as error:
        byte, column = line[error.start], error.start + 1
        raise BadFile(number, f"byte 0x{byte:02x} at position {column} is not UTF-8; save the file as UTF-8") from None


def storable_value(value: Any) -> Any:
    """The value with every text and number in it as Postgres can hold it."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, float):
        return value if isfinite(value) else None  # NaN is how Parquet files of pandas say that there is nothing
    if isinstance(value, Decimal):
        return storable_value(float(value))
    if isinstance(value, bytes):
        return storable(value.decode(errors="replace"))  # some Parquet files do not say that a column is text
    if isinstance(value, list):
        return [storable_value(item) for item in value]
    if isinstance(value, dict):
        return {storable(str(name)): storable_value(item) for name, item in value.items()}
    return value

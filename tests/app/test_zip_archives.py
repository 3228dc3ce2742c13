"""A zip file that is written as it is sent: its length before, and no more of it held than a chunk."""

import io
import zipfile

import pytest

from app import zip_archives
from app.zip_archives import content, zip_chunks, zip_size


@pytest.mark.parametrize("limit", [2**31 - 1, 50])
def test_the_size_of_an_archive_is_known_before_it_is_made(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it needs ZIP64, whose limit is lowered here."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", limit)
    members = [content(name, bytes(size)) for name, size in (("a", 0), ("sub/b", 40), ("ö", 3000), ("d", 7))]
    made = b"".join(zip_chunks("folder", members))
    assert zip_size("folder", members) == len(made)
    monkeypatch.undo()
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        assert {info.filename: info.file_size for info in archive.infolist()} == {
            "folder/a": 0,
            "folder/sub/b": 40,
            "folder/ö": 3000,
            "folder/d": 7,
        }


def test_no_more_than_a_chunk_of_a_file_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_archives, "CHUNK_BYTES", 100)
    chunks = list(zip_chunks("folder", [content("large", bytes(10_000))]))
    assert max(map(len, chunks)) < 400

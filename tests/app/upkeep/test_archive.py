"""The file of a backup is whole or it is none, and what is wrong with one has a name."""

import errno
import hashlib
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.upkeep.archive import HEADER, MANIFEST, Archive, ArchiveWriter
from app.upkeep.errors import BackupDamaged, BackupNotWritten, BackupUnderWay, NotABackup
from tests.app.upkeep.installations import silently

FILES = {"database.pgdump": b"rows" * 10_000, "artifacts/" + "long/" * 40 + "name": b"x", "artifacts/empty": b""}


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    path = tmp_path / "a backup.tar"
    with ArchiveWriter(path, silently) as writer:
        writer.add(HEADER, [b'{"format": 1}'])
        for name, content in FILES.items():
            writer.add(name, [content[:7], content[7:]])
        writer.finish({"made_at": "now"})
    return path


def test_what_was_written_is_read_and_any_tar_opens_it(backup: Path, tmp_path: Path) -> None:
    with Archive(backup) as archive:
        archive.verify(silently)
        assert {name: b"".join(archive.read(name)) for name in FILES} == FILES
        assert archive.about["made_at"] == "now"
    subprocess.run(["tar", "-xf", backup, "-C", tmp_path], check=True)
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == FILES
    named = json.loads((tmp_path / MANIFEST).read_text())["files"]
    assert {name: file["sha256"] for name, file in named.items() if name in FILES} == {
        name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()
    }


def test_it_is_for_its_owners_eyes_only(backup: Path) -> None:
    assert backup.stat().st_mode & 0o777 == 0o600


def test_a_backup_that_ends_while_a_second_one_begins_is_left_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second has opened the file beside, and not locked it yet, when the first gives it its name."""
    path = tmp_path / "backup.tar"
    first, open_it = ArchiveWriter(path, silently), os.open
    first.add(HEADER, [b'{"format": 1}'])

    def open_and_be_slow(*arguments: Any) -> int:
        descriptor = open_it(*arguments)
        if not path.exists() and arguments[1] & os.O_CREAT:
            first.finish({"made_at": "now"})
        return descriptor

    monkeypatch.setattr(os, "open", open_and_be_slow)
    with ArchiveWriter(path, silently), Archive(path) as archive:
        archive.verify(silently)


KILLED = """
import os, sys; from pathlib import Path; from app.upkeep.archive import HEADER, ArchiveWriter
writer = ArchiveWriter(Path(sys.argv[1]), lambda name, num_bytes: None)
writer.add(HEADER, [b'{"format": 1}'])
writer.add("database.pgdump", [b"rows" * 1000])
writer._file.flush()
os._exit(9)
"""


def test_what_a_killed_backup_leaves_has_another_name_and_the_next_one_takes_its_place(tmp_path: Path) -> None:
    path = tmp_path / "backup.tar"
    program = [sys.executable, "-c", KILLED, path]
    assert subprocess.run(program, check=False).returncode == 9
    assert [left.name for left in tmp_path.iterdir()] == [".backup.tar.partial"]
    with pytest.raises(BackupDamaged, match="ends before its"):
        Archive(tmp_path / ".backup.tar.partial")
    with ArchiveWriter(path, silently) as writer:
        writer.add(HEADER, [b'{"format": 1}'])
        writer.finish({})
    assert [left.name for left in tmp_path.iterdir()] == ["backup.tar"]
    with Archive(path) as archive:
        archive.verify(silently)


def test_a_backup_that_is_broken_off_leaves_nothing_and_keeps_the_one_before(backup: Path) -> None:
    before = backup.read_bytes()

    def full() -> Iterator[bytes]:
        yield b"a little"
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(BackupNotWritten, match="No space left on device"), ArchiveWriter(backup, silently) as writer:
        writer.add("database.pgdump", full())
    assert [left.name for left in backup.parent.iterdir()] == [backup.name]
    assert backup.read_bytes() == before


def test_two_backups_to_one_place_do_not_meet(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path / "b.tar", silently) as first:
        with pytest.raises(BackupUnderWay, match="another backup is being written"):
            ArchiveWriter(tmp_path / "b.tar", silently)
        first.add(HEADER, [b'{"format": 1}'])
        first.finish({})
    assert (tmp_path / "b.tar").exists()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackupNotWritten, match="No such file or directory"):
        ArchiveWriter(tmp_path / "nowhere/b.tar", silently)


def test_what_another_hash_was_expected_of_is_not_in_it(tmp_path: Path) -> None:
    path = tmp_path / "b.tar"
    with ArchiveWriter(path, silently) as writer:
        writer.add(HEADER, [b'{"format": 1}'])
        assert writer.add("altered", [b"other"], sha256=hashlib.sha256(b"content").hexdigest()) is None
        assert writer.add("kept", [b"content"], sha256=hashlib.sha256(b"content").hexdigest()) is not None
        writer.finish({})
    with Archive(path) as archive:
        assert list(archive.files) == [HEADER, "kept"]
        archive.verify(silently)
    with tarfile.open(path) as tar:
        assert tar.getnames() == [HEADER, "kept", MANIFEST]


@pytest.mark.parametrize("where", ["a file", "the last block of a file", "its end"])
def test_a_damaged_backup_is_found_out(backup: Path, where: str) -> None:
    content = bytearray(backup.read_bytes())
    if where == "its end":
        content = content[: len(content) // 2]
    else:
        at = content.index(b"rowsrows") if where == "a file" else content.index(b"rows\0") + 3
        content[at] ^= 1
    backup.write_bytes(content)
    with pytest.raises(BackupDamaged, match="cannot be relied on"), Archive(backup) as archive:
        archive.verify(silently)


def test_what_is_no_backup_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a letter" * 1000)
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        tar.add(tmp_path / "text", "text")
    for name in ("text", "other.tar", "nothing"):
        with pytest.raises(NotABackup, match="nothing was changed"):
            Archive(tmp_path / name)


def test_a_file_that_leads_out_of_it_is_refused(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path / "b.tar", silently) as writer:
        writer.add(HEADER, [b'{"format": 1}'])
        writer.add("artifacts/../../outside", [b"x"])
        writer.finish({})
    with pytest.raises(BackupDamaged, match="leads out of it"):
        Archive(tmp_path / "b.tar")

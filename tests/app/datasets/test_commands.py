"""`podium import`, `podium snapshot` and `podium export`."""

import errno
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session
from typer.testing import CliRunner, Result

from app import db
from app.datasets import commands, export_commands, import_commands
from app.datasets.errors import BadFilter, ImportRefused, SnapshotNotFound, UnknownLicence
from app.datasets.export_commands import write_whole
from app.datasets.models import Snapshot, SnapshotRanking
from app.labeling.models import Ranking
from app.projects.models import Project
from app.terminal import CannotStart
from tests.app.datasets.conftest import AddRanking

PAIR = {"prompt": "Name a tree.", "chosen": "Oak", "rejected": "Car"}


@pytest.fixture
def podium(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command on this test's database."""

    @contextmanager
    def open_session() -> Iterator[Session]:
        with db.SessionFactory.begin() as session:
            yield session

    cli = typer.Typer()
    for module in (commands, export_commands, import_commands):
        monkeypatch.setattr(module, "open_session", open_session)
    commands.register(cli)
    export_commands.register(cli)

    def run(*arguments: object, refused: type[Exception] | None = None) -> Result:
        result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
        if refused is None:
            assert result.exit_code == 0, result.output
        else:
            assert isinstance(result.exception, refused), result.output
        return result

    return run


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    file = tmp_path / "my pairs.jsonl"
    file.write_text(json.dumps(PAIR) + "\n", encoding="utf-8")
    return file


def test_rankings_are_imported_once_and_said_so(podium: Any, pairs: Path, garden: Project, session: Session) -> None:
    assert (
        "1 ranking, 1 comparison, 1 labeler would be added"
        in podium("import", "rankings", pairs, "-p", "garden", "--dry-run").output
    )
    assert "my pairs.jsonl (trl): 1 prompt, 1 slate" in podium("import", "rankings", pairs, "-p", "garden").output
    assert "nothing has changed" in podium("import", "rankings", pairs, "-p", "garden").output
    assert session.scalar(select(func.count(Ranking.id))) == 1


def test_a_dry_run_shows_each_line_and_writes_all_of_them(
    podium: Any, pairs: Path, garden: Project, session: Session
) -> None:
    records = [PAIR, PAIR | {"chosen": "Car"}, *(PAIR | {"rejected": f"Car {number}"} for number in range(60))]
    pairs.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    table, every = pairs.with_suffix(".csv"), pairs.with_suffix(".lines")
    shown = podium("import", "rankings", pairs, "-p", "garden", "--dry-run", "--lines", table).output
    assert "left out" in shown
    assert "the first 50 of 62 lines" in shown
    assert len(table.read_text(encoding="utf-8").splitlines()) == 63
    podium("import", "rankings", pairs, "-p", "garden", "--dry-run", "--lines", every)
    assert [json.loads(line)["line"] for line in every.read_text(encoding="utf-8").splitlines()] == [*range(1, 63)]
    podium("import", "rankings", pairs, "-p", "garden", "--lines", pairs.parent / "no" / "x.csv", refused=CannotStart)
    assert session.scalar(select(func.count(Ranking.id))) == 0


def test_a_program_reads_the_report_as_json(podium: Any, pairs: Path, garden: Project) -> None:
    report = json.loads(podium("import", "prompts", pairs, "-p", "garden", "--json").output)
    assert (report["format"], report["counts"]["prompts"]) == ("jsonl", 1)


def test_a_refused_file_and_a_missing_one_are_told_apart(
    podium: Any, pairs: Path, garden: Project, session: Session
) -> None:
    pairs.write_text('{"chosen": 1, "rejected": 2}\n{"chosen": 3, "rejected": 4}\n{', encoding="utf-8")
    assert "line 2: chosen and" in podium("import", "rankings", pairs, "-p", "garden", refused=ImportRefused).output
    pairs.write_text("{", encoding="utf-8")
    assert "line 1" in str(podium("import", "rankings", pairs, "-p", "garden", refused=ImportRefused).exception)
    missing = podium("import", "rankings", pairs.with_name("no.jsonl"), "-p", "garden", refused=CannotStart)
    assert "cannot be read (No such file or directory)" in str(missing.exception)
    assert session.scalar(select(func.count(Ranking.id))) == 0


def test_a_snapshot_is_frozen_listed_and_exported_by_number_or_name(
    podium: Any, add_ranking: AddRanking, garden: Project, tmp_path: Path, session: Session
) -> None:
    add_ranking()
    add_ranking((1, 2), kind="gold")
    created = json.loads(podium("snapshot", "create", "garden", "--name", "May", "--json").output)
    assert (created["name"], created["num_rankings"]) == ("May", 1)
    assert "May: 1 rankings, 6 comparisons" in podium("snapshot", "list", "garden").output
    to = tmp_path / "out.jsonl"
    podium("export", created["id"], "--to", to)
    assert hashlib.sha256(to.read_bytes()).hexdigest() == created["sha256"]
    podium("export", "May", "--project", "garden", "--format", "pairs", "--to", tmp_path / "out.parquet")
    assert (tmp_path / "out.parquet").read_bytes().startswith(b"PAR1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "out.parquet"]


def test_filters_of_the_command_line_are_the_snapshots(
    podium: Any, add_ranking: AddRanking, garden: Project, session: Session
) -> None:
    add_ranking()
    add_ranking((1, 2), kind="gold")
    podium("snapshot", "create", "garden", "--kind", "gold", "--until", "2026-06-01", "--since", "2026-05-01T00:00Z")
    snapshot = session.scalars(select(Snapshot)).one()
    assert snapshot.counts["kind"] == {"gold": 1}
    assert snapshot.filter["until"] == "2026-06-01T00:00:00Z"


def test_the_command_line_chooses_by_all_that_the_page_does(
    podium: Any, add_ranking: AddRanking, garden: Project, session: Session
) -> None:
    add_ranking()
    kept = add_ranking((1, 2, 2, 3), flags=(["Rude"], [], [], []))
    said = (
        "--ties with --flag Rude --without-flag Wrong --min-k 4 --max-k 4 --origin here --not-shared --not-adjudicated"
    )
    more = "--group imported --without-group paused --licence cc-by-4.0 --prompt-kind imported --policy 1"
    podium("snapshot", "create", "garden", *said.split(), *more.split())
    snapshot = session.scalars(select(Snapshot)).one()
    assert (snapshot.num_rankings, snapshot.licence) == (1, "cc-by-4.0")
    assert session.scalars(select(SnapshotRanking.ranking_id)).one() == kept.id
    podium("snapshot", "create", "garden", "--licence", "mine", refused=UnknownLicence)
    podium("snapshot", "create", "garden", "--min-agreement", "2", refused=BadFilter)


def test_what_people_wrote_is_frozen_and_exported_alone(
    podium: Any, add_ranking: AddRanking, garden: Project, tmp_path: Path
) -> None:
    add_ranking()
    file = tmp_path / "written.jsonl"
    file.write_text(json.dumps({"prompt": "Name a tree.", "completion": "Oak"}), encoding="utf-8")
    podium("import", "demonstrations", file, "--project", "garden")
    created = json.loads(podium("snapshot", "create", "garden", "--content", "demonstrations", "--json").output)
    assert (created["num_rankings"], created["num_demonstrations"]) == (0, 1)
    to = tmp_path / "sft.jsonl"
    assert "1 demonstrations of" in podium("export", created["id"], "--format", "sft", "--to", to).output
    assert hashlib.sha256(to.read_bytes()).hexdigest() == created["sft_sha256"]


def test_what_cannot_be_exported_leaves_no_file(
    podium: Any, add_ranking: AddRanking, garden: Project, tmp_path: Path
) -> None:
    add_ranking()
    podium("snapshot", "create", "garden", "--name", "May")
    to = tmp_path / "out.jsonl"
    podium("export", "99", "--to", to, refused=SnapshotNotFound)
    podium("export", "May", "--to", to, refused=CannotStart)
    podium("export", "1", "--format", "csv", "--to", to, refused=CannotStart)
    podium("export", "1", "--to", tmp_path / "no folder" / "out.jsonl", refused=CannotStart)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"new"
        raise OSError(errno.ENOSPC, "No space left on device")

    to = tmp_path / "out.jsonl"
    to.write_bytes(b"old")
    with pytest.raises(CannotStart, match="No space left on device"):
        write_whole(to, chunks())
    assert to.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [to]
    assert write_whole(to, iter([b"n", b"ew"])) == 3
    assert to.read_bytes() == b"new"

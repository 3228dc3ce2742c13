"""`podium export` in several files, as a folder to publish, and from another machine."""

from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.orm import Session

from app import client
from app.client import Podium
from app.datasets import export_commands
from app.people import service
from app.projects.models import Project
from app.terminal import CannotStart
from tests.app.conftest import Person
from tests.app.datasets.conftest import AddRanking
from tests.app.datasets.test_commands import podium  # noqa: F401 - found by name
from tests.app.datasets.test_exports import export, freeze
from tests.app.test_client import ShakyLine


@pytest.fixture
def snapshot(session: Session, garden: Project, add_ranking: AddRanking) -> Any:
    for number in range(5):
        add_ranking((1, 1, 2, 3), prompt=f"Q{number}")
    return freeze(session, garden)


def test_shards_are_written_side_by_side(podium: Any, snapshot: Any, tmp_path: Path) -> None:  # noqa: F811
    podium("export", snapshot.id, "--format", "pairs", "--to", tmp_path / "pairs.jsonl", "--shard-size", "2")
    names = [f"pairs-0000{number}-of-00003.jsonl" for number in range(3)]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert b"".join((tmp_path / name).read_bytes() for name in names) == export(snapshot, format="pairs")
    told = podium("export", snapshot.id, "--split", "train", "--to", tmp_path / "train.parquet").output
    assert "train of 5 rankings of “May” as kwise" in told


def test_a_folder_to_publish_is_named_with_how_to_open_it(podium: Any, snapshot: Any, tmp_path: Path) -> None:  # noqa: F811
    told = podium("export", "May", "--project", "garden", "--layout", tmp_path / "garden").output
    assert f'datasets.load_dataset("{tmp_path / "garden"}")' in told
    assert {path.name for path in (tmp_path / "garden").iterdir()} == {"README.md", "LICENSE.md", "data"}


@pytest.mark.parametrize(
    "wrong",
    [
        (),
        ("--to", "a.jsonl", "--layout", "a"),
        ("--to", "a.jsonl", "--shards", "2", "--shard-size", "1"),
        ("--to", "a.jsonl", "--shard-size", "0"),
        ("--to", "a.jsonl", "--server", "http://testserver"),
        ("--layout", "a", "--server", "http://testserver"),
    ],
)
def test_what_contradicts_itself_is_refused(podium: Any, snapshot: Any, wrong: tuple[str, ...]) -> None:  # noqa: F811
    podium("export", snapshot.id, *wrong, refused=CannotStart)


def test_a_file_comes_from_another_machine_though_the_line_breaks(
    podium: Any,  # noqa: F811
    snapshot: Any,
    researcher: Person,
    session: Session,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = ShakyLine(researcher._transport)
    line.lets_through = 1500
    assert researcher.account is not None
    monkeypatch.setenv("PODIUM_KEY", service.create_key(session, researcher.account, "laptop"))
    session.commit()
    monkeypatch.setattr(client, "pause", lambda attempt: None)
    monkeypatch.setattr(export_commands, "Podium", partial(Podium, http=httpx.Client(transport=line)))
    server = ("--project", "garden", "--server", "http://testserver")
    to = tmp_path / "pairs.jsonl"
    podium("export", "May", *server, "--format", "pairs", "--ties", "halve", "--shards", "2", "--to", to)
    written = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
    assert b"".join(written) == export(snapshot, format="pairs", ties="halve")
    assert any(asked for asked in line.asked)
    podium("export", "June", *server, "--to", to, refused=CannotStart)

"""A folder to publish: `datasets` opens it by its card alone, split by split."""

from pathlib import Path

import pytest
import yaml
from sqlalchemy.orm import Session

from app.datasets import layout
from app.datasets.errors import BadExport
from app.datasets.export_commands import write_whole
from app.datasets.layout import write_layout
from app.datasets.models import Snapshot
from app.labeling.models import Demonstration
from app.projects.models import Project
from tests.app.datasets.conftest import AddRanking
from tests.app.datasets.test_exports import freeze, records


@pytest.fixture
def folder(
    session: Session, garden: Project, add_ranking: AddRanking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Of ten rankings and a demonstration, in shards of at most three rankings."""
    monkeypatch.setattr(layout, "LABELS_A_SHARD", 3)
    for number in range(10):
        ranking = add_ranking((1, 2, 2, 3), prompt=f"Q{number}")
    session.add(Demonstration(prompt_id=ranking.slate.prompt_id, text="Like this."))
    session.commit()
    snapshot = freeze(session, garden, 'The "first"')
    list(write_layout(tmp_path / "garden", garden, snapshot, write=write_whole))
    return tmp_path / "garden"


def test_the_card_names_every_file_by_format_and_split(folder: Path, session: Session) -> None:
    _, front, card = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    said = yaml.safe_load(front)
    assert card.lstrip().startswith("# Garden: The")
    assert said["pretty_name"] == 'Garden: The "first"'
    assert [(one["config_name"], one.get("default", False)) for one in said["configs"]] == [
        ("pairs", True), ("kwise", False), ("kto", False), ("sft", False), ("prompts", False)
    ]  # fmt: skip
    named = {path for one in said["configs"] for split in one["data_files"] for path in folder.glob(split["path"])}
    assert named == set(folder.glob("data/*/*.parquet"))
    assert (folder / "LICENSE.md").read_text(encoding="utf-8").startswith("# Licence")
    shards = sorted(path.name for path in (folder / "data" / "kwise").glob("train-*"))
    assert shards == [f"train-{number:05}-of-{len(shards):05}.parquet" for number in range(len(shards))]


def test_datasets_opens_the_folder_and_finds_every_record(
    folder: Path, session: Session, garden: Project, tmp_path: Path
) -> None:
    datasets = pytest.importorskip("datasets")
    snapshot = session.query(Snapshot).one()
    for format in ("pairs", "kwise", "kto", "sft", "prompts"):
        found = datasets.load_dataset(str(folder), format, cache_dir=str(tmp_path / "cache"))
        rows = [row for split in found.values() for row in split]
        expected = records(snapshot, format=format)
        assert len(rows) == len(expected)
        for split, part in found.items():
            assert {row["split"] for row in part} == {split}
    usual = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert "chosen" in usual["train"].column_names


def test_a_folder_that_holds_other_things_is_left_as_it_is(
    folder: Path, session: Session, garden: Project, tmp_path: Path
) -> None:
    snapshot = session.query(Snapshot).one()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    with pytest.raises(BadExport, match="is not empty"):
        list(write_layout(mine, garden, snapshot, write=write_whole))
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]

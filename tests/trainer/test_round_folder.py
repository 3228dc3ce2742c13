import json
import random
import subprocess
import sys

import pytest

from tests.trainer.tiny import some_demonstration, some_ranking
from trainer.round_folder import (
    BrokenRoundFolder,
    DemonstrationRow,
    FolderLocked,
    PretrainingRow,
    PromptRow,
    RoundFolder,
    Stage,
    read_result,
    read_table,
    write_table,
)
from trainer.settings import ConfigError, recipe_config


@pytest.fixture
def folder(tmp_path):
    return RoundFolder(tmp_path)


def a_stage(**changes):
    return Stage(
        **{
            "recipe": "reward",
            "config": recipe_config("reward", "small", {"learning_rate": 1e-4}),
            "preset": "small",
            "seed": 3,
            "num_threads": 2,
            "device": "cpu",
            "models": {"policy": "/models/starter"},
            "parents": {"policy_version": 4},
            "snapshot_sha256": "ab" * 32,
            **changes,
        }
    )


def test_a_stage_is_read_as_it_was_written(folder):
    folder.write_stage(a_stage())
    assert folder.read_stage() == a_stage()


def test_a_stage_whose_setting_breaks_its_rule_is_refused(folder):
    folder.write_stage(a_stage())
    path = folder.path / "stage.json"
    path.write_text(path.read_text().replace('"batch_size": 16', '"batch_size": 0'))
    with pytest.raises(ConfigError, match=r"reward\.batch_size=0 must be at least 1"):
        folder.read_stage()


@pytest.mark.parametrize("text", ["", "{", "{}"])
def test_a_stage_that_cannot_be_read_is_named(folder, text):
    (folder.path / "stage.json").write_text(text)
    with pytest.raises(BrokenRoundFolder, match=r"stage\.json"):
        folder.read_stage()


def test_rows_are_read_as_they_were_written(folder):
    rng = random.Random(0)
    rankings = [some_ranking(i, rng, k=k) for i, k in enumerate([2, 4, 9])]
    demonstrations = [some_demonstration(1, rng), some_demonstration(2, rng, split="validation")]
    prompts = [PromptRow(prompt_id=5, split="test", prompt_ids=[5, 6], text="what's 5 × 6?")]
    folder.write_rankings(rankings)
    folder.write_demonstrations(demonstrations)
    folder.write_prompts(prompts)
    folder.write_pretraining([PretrainingRow(token_ids=[5, 6, 7])])
    assert folder.read_pretraining() == [PretrainingRow(token_ids=[5, 6, 7])]
    assert folder.read_rankings() == rankings
    assert folder.read_demonstrations() == demonstrations
    assert folder.read_prompts() == prompts


def test_no_rows_are_rows_too(folder):
    folder.write_demonstrations([])
    assert folder.read_demonstrations() == []


def test_a_missing_table_is_named(folder):
    with pytest.raises(BrokenRoundFolder, match=r"rankings\.parquet is missing"):
        folder.read_rankings()


def test_a_table_of_another_shape_can_be_written(tmp_path):
    rows = [{"model": "candidate", "token_ids": [1, 2], "score": None, "seed": 2**40}]
    path = tmp_path / "completions.parquet"
    write_table(path, {"model": "string", "token_ids": "list<int32>", "score": "double", "seed": "int64"}, rows)
    assert read_table(path) == rows


def test_metrics_are_appended_and_cut_back_to_a_position(folder):
    metrics = folder.metrics()
    metrics.record(1, loss=0.5, kl=None)
    position = metrics.position
    metrics.record(2, loss=0.25)
    metrics.cut_back(position)
    metrics.record(2, loss=0.125)
    rows = metrics.read()
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 0.5), (2, 0.125)]
    assert "kl" not in rows[0]


def test_a_line_still_being_written_is_left_for_later(folder):
    metrics = folder.metrics()
    metrics.record(1, loss=0.5)
    with metrics.path.open("a") as file:
        file.write('{"step": 2, "lo')
    assert [row["step"] for row in metrics.read()] == [1]


def test_the_manifest_comes_last_and_names_every_file(folder):
    assert not folder.is_finished

    def write(result):
        (result / "model.safetensors").write_bytes(b"weights")
        assert not folder.is_finished

    folder.publish_result(write, {"figures": {"accuracy": 0.7}})
    assert folder.is_finished
    assert set(json.loads((folder.result / "manifest.json").read_text())) == {"model.safetensors", "result.json"}
    assert read_result(folder.result) == {"figures": {"accuracy": 0.7}}


def test_a_result_without_a_manifest_is_none_and_is_written_anew(folder):
    folder.result.mkdir()
    (folder.result / "half.safetensors").write_bytes(b"wei")
    with pytest.raises(BrokenRoundFolder):
        read_result(folder.result)
    folder.publish_result(lambda result: None, {})
    assert sorted(path.name for path in folder.result.iterdir()) == ["manifest.json", "result.json"]


def test_a_result_whose_file_was_changed_is_refused(folder):
    folder.publish_result(lambda result: (result / "model.safetensors").write_bytes(b"a"), {})
    (folder.result / "model.safetensors").write_bytes(b"b")
    with pytest.raises(BrokenRoundFolder, match=r"model\.safetensors"):
        read_result(folder.result)


def test_only_one_process_holds_the_folder(folder):
    with folder.locked(), pytest.raises(FolderLocked), RoundFolder(folder.path).locked():
        pass
    with folder.locked():
        pass


def test_reading_the_stage_needs_no_pyarrow_and_no_torch():
    code = "import sys, trainer.round_folder; print({'pyarrow', 'torch', 'sqlalchemy'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_rows_of_one_kind_are_not_read_as_another(folder):
    folder.write_prompts([PromptRow(prompt_id=1, split="train", prompt_ids=[1], text="")])
    with pytest.raises(TypeError):
        folder.read_rows("prompts", DemonstrationRow)

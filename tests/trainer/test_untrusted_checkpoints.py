"""Checkpoints from strangers: whatever lies in the folder, opening it runs nothing of theirs."""

import json
import pickle
from pathlib import Path

import pytest

from tests.trainer.tiny import save_tiny_policy
from trainer.inspect_policy import describe_policy
from trainer.models import UnsafeWeights, load_policy

PICKLES = ["pytorch_model.bin", "adapter_model.bin", "training_args.bin", "optimizer.pt", "scheduler.pt", "model.pth"]


class Marking:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.mark,)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good policy between a stranger's pickles and code."""
    folder = tmp_path / "policy"
    folder.mkdir()
    save_tiny_policy("llama", folder)
    for name in PICKLES:
        (folder / name).write_bytes(pickle.dumps(Marking(tmp_path / "ran")))
    mine = f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\nMine = object\n"
    for name in ("modeling", "configuration", "tokenization"):
        (folder / f"{name}.py").write_text(mine)
    bring_code(folder / "config.json", AutoConfig="configuration.Mine", AutoModelForCausalLM="modeling.Mine")
    bring_code(folder / "tokenizer_config.json", AutoTokenizer=["tokenization.Mine", None])
    return folder


def bring_code(file: Path, **auto_map: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | {"auto_map": auto_map}))


def test_the_pickles_do_leave_a_mark_when_they_are_opened(folder: Path) -> None:
    pickle.loads((folder / PICKLES[0]).read_bytes())
    assert (folder.parent / "ran").exists()


def test_a_policy_among_pickles_and_code_opens_and_runs_none_of_it(folder: Path) -> None:
    assert describe_policy(folder).num_parameters > 0
    assert type(load_policy(folder).model).__module__.startswith("transformers.")
    assert not (folder.parent / "ran").exists()


@pytest.mark.parametrize("only", ["pytorch_model.bin", "model.pth"])
def test_pickled_weights_alone_are_refused_unopened(folder: Path, only: str) -> None:
    for name in {"model.safetensors", *PICKLES} - {only}:
        (folder / name).unlink()
    for opened in (load_policy, describe_policy):
        with pytest.raises(UnsafeWeights):
            opened(folder)
    assert not (folder.parent / "ran").exists()

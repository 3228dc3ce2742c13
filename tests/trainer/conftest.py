"""Tiny policies on disk, and round folders to fit them in."""

import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests import warm
from tests.trainer.tiny import save_tiny_policy, save_tiny_reward_model, write_tiny_rankings, write_tiny_stage
from trainer import recipe_process
from trainer.round_folder import RoundFolder
from trainer.settings import Value


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # tiny models gain nothing from more, and lose much on a busy machine


@pytest.fixture(scope="session")
def policy_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny policy of a family (llama, gpt2, qwen2, opt), made once."""
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = save_tiny_policy(family, tmp_path_factory.mktemp(family))
        return made[family]

    return folder


@pytest.fixture(scope="session")
def llama_folder(policy_folder: Callable[[str], Path]) -> Path:
    return policy_folder("llama")


@pytest.fixture(scope="session")
def gpt2_folder(policy_folder: Callable[[str], Path]) -> Path:
    return policy_folder("gpt2")


@pytest.fixture
def reward_model(llama_folder: Path, tmp_path: Path) -> Path:
    """A reward model whose result.json says how far its scores spread."""
    return save_tiny_reward_model(llama_folder, tmp_path / "reward")


@pytest.fixture
def write_stage(tmp_path: Path, llama_folder: Path) -> Callable[..., RoundFolder]:
    """Writes stage.json of a new round folder; settings and models as given."""
    numbers = itertools.count()

    def write(
        recipe: str, settings: dict[str, Value] | None = None, models: dict[str, str] | None = None
    ) -> RoundFolder:
        path = tmp_path / f"{recipe}-{next(numbers)}"
        return write_tiny_stage(path, recipe, settings or {}, models or {"policy": str(llama_folder)})

    return write


@pytest.fixture
def reward_folder(write_stage: Callable[..., RoundFolder]) -> Callable[..., RoundFolder]:
    """A round folder of the reward recipe with rankings that can be learned, and prompts to normalise on."""

    def make(num_rankings: int = 24, **settings: Value) -> RoundFolder:
        folder = write_stage("reward", {"num_normalisation_completions": 8, "max_completion_tokens": 6, **settings})
        write_tiny_rankings(folder, num_rankings)
        return folder

    return make


@pytest.fixture
def warm_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipes that a worker within this process starts begin warm."""
    begun_warm = SimpleNamespace(Popen=warm.Program, PIPE=warm.PIPE, STDOUT=warm.STDOUT)
    monkeypatch.setattr(recipe_process, "subprocess", begun_warm)

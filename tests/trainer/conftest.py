"""Tiny policies on disk, and round folders to fit them in."""

import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.trainer.tiny import save_tiny_policy, some_prompt, some_ranking
from trainer.models import reward_model_from_policy, save_model
from trainer.round_folder import PromptRow, RoundFolder, Stage
from trainer.settings import Value, recipe_config


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
    reward = reward_model_from_policy(llama_folder, seed=3)
    save_model(reward.model, reward.tokenizer, tmp_path / "reward")
    (tmp_path / "reward" / "result.json").write_text(json.dumps({"score_std": 0.8}))
    return tmp_path / "reward"


@pytest.fixture
def write_stage(tmp_path: Path, llama_folder: Path) -> Callable[..., RoundFolder]:
    """Writes stage.json of a new round folder; settings and models as given."""
    numbers = itertools.count()

    def write(
        recipe: str, settings: dict[str, Value] | None = None, models: dict[str, str] | None = None
    ) -> RoundFolder:
        folder = RoundFolder(tmp_path / f"{recipe}-{next(numbers)}")
        folder.path.mkdir()
        stage = Stage(
            recipe=recipe,
            config=recipe_config(recipe, "small", settings or {}),
            preset="small",
            seed=7,
            num_threads=1,
            device="cpu",
            models=models or {"policy": str(llama_folder)},
        )
        folder.write_stage(stage)
        return folder

    return write


@pytest.fixture
def reward_folder(write_stage: Callable[..., RoundFolder]) -> Callable[..., RoundFolder]:
    """A round folder of the reward recipe with rankings that can be learned, and prompts to normalise on."""

    def make(num_rankings: int = 24, **settings: Value) -> RoundFolder:
        folder = write_stage("reward", {"num_normalisation_completions": 8, "max_completion_tokens": 6, **settings})
        rng = random.Random(0)
        rows = [some_ranking(i, rng, split="validation" if i % 4 == 0 else "train") for i in range(num_rankings)]
        folder.write_rankings(rows)
        folder.write_demonstrations([])
        folder.write_prompts(
            PromptRow(prompt_id=i, split="validation", prompt_ids=some_prompt(rng), text="") for i in range(4)
        )
        return folder

    return make

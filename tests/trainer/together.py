"""What two processes do together in tests, all in one go: starting them takes longer than a tiny stage does.

    python -m torch.distributed.run --nproc-per-node=2 -m tests.trainer.together FOLDER ...

A folder with a stage.json is run; into one of a policy go the gradients that two processes with divided weights get.
Ends with 1 after the first stage that fails.
"""

import importlib
import os
import random
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from tests.trainer.tiny import some_completion, some_prompt
from trainer import team
from trainer.imitation import Example, add_gradients
from trainer.models import load_policy
from trainer.parts import clip_gradients, gathered
from trainer.recipes.program import Interrupt, run_in_folder
from trainer.round_folder import RoundFolder
from trainer.sharding import shard

ROOT = Path(__file__).parents[2]
MAIN = {
    "sft": "fine_tune",
    "reward": "fit_reward_model",
    "ppo": "run_ppo",
    "grpo": "run_grpo",
    "rejection": "improve_by_rejection",
}
MAX_NORM = 1.0  # far below that of the gradients


def run_together(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module in two processes."""
    launcher = ["torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "1"}
    command = [sys.executable, "-m", *launcher, "-m", module, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def run_stage(folder: RoundFolder) -> int:
    """Its exit code, in this process."""
    recipe = folder.read_stage().recipe
    program = importlib.import_module(f"trainer.recipes.{recipe}")
    return run_in_folder(getattr(program, MAIN[recipe]), folder, Interrupt())


def gradients_of(model: PreTrainedModel) -> dict[str, Tensor]:
    """Of a batch of three parts, one of which has no partner in the other process; scaled down to MAX_NORM."""
    rng = random.Random(0)
    examples = [Example(prompt_ids=some_prompt(rng), completion_ids=some_completion(rng)) for _ in range(3)]
    add_gradients(model, examples, micro_batch_tokens=1)
    team.add_gradients(list(model.parameters()))
    norm = clip_gradients(list(model.parameters()), MAX_NORM)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {**gathered(gradients, keep=team.is_first()), "norm": norm}


def main() -> None:
    torch.set_num_threads(1)
    for path in map(Path, sys.argv[1:]):
        if not (path / "stage.json").exists():
            team.join("cpu")
            gradients = gradients_of(shard(load_policy(path).model, "cpu"))
            if team.is_first():
                save_file(gradients, path / "gradients.safetensors")
        elif status := run_stage(RoundFolder(path, is_writer=team.is_first())):
            sys.exit(f"{path} ended with {status}")


if __name__ == "__main__":
    main()

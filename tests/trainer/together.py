"""What two processes do together in tests, all in one go: starting them takes longer than a tiny stage does.

    RANK=0 WORLD_SIZE=2 … python -m tests.trainer.together FOLDER ...

A folder with a stage.json is run; into one of a policy go the gradients that two processes with divided weights get,
and what each holds of the best parameters after a resume. Ends with 1 after the first stage that fails.
"""

import importlib
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from tests import warm
from tests.trainer.tiny import some_completion, some_prompt
from trainer import team
from trainer.checkpoints import model_tensors
from trainer.fitting import Fit, fit
from trainer.imitation import Example, add_gradients
from trainer.kl import KLController
from trainer.models import load_policy
from trainer.parts import clip_gradients, gathered, is_part
from trainer.policy_run import Run
from trainer.policy_updates import Learner
from trainer.recipes.program import Interrupt, run_in_folder
from trainer.round_folder import RoundFolder
from trainer.settings import SFTConfig, recipe_config
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


def run_together(module: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a module in two processes, told of each other as by torchrun. Both end with the first that fails."""
    command = [sys.executable, "-m", module, *arguments]
    with tempfile.TemporaryDirectory() as folder, socket.socket() as meeting:
        meeting.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        meeting.bind(("127.0.0.1", 0))  # held and not listened at: the first process does, and nobody else is given it
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(meeting.getsockname()[1])}
        with (Path(folder) / "printed").open("w+") as printed:
            programs = [
                warm.Program(command, stdout=printed, cwd=ROOT, env={**os.environ, **place, **names})
                for names in map(names_of, range(2))
            ]
            pause = threading.Event()
            while None in (statuses := [program.poll() for program in programs]):
                if any(statuses):
                    for program in programs:
                        program.kill()
                pause.wait(0.02)
            printed.seek(0)
            status = next(filter(None, statuses), 0)
            return subprocess.CompletedProcess(command, status, stdout="", stderr=printed.read())


def names_of(number: int) -> dict[str, str]:
    """Which of the two a process is."""
    return {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}


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


def held_after_a_resume(model: PreTrainedModel, path: Path) -> list[int]:
    """How many numbers this process holds of the best parameters: in a fit, and in a policy's run, that go on."""
    config = recipe_config("sft", "small", {"num_epochs": 1, "batch_size": 1})
    assert isinstance(config, SFTConfig)
    folder = RoundFolder(path, is_writer=team.is_first())
    example = Example(prompt_ids=[5, 6], completion_ids=[7, 1])

    def fit_or_go_on() -> Fit:
        return fit(model, 1, learn, lambda step: {"validation_loss": 1.0}, config, 0, folder, Interrupt())

    def learn(batch: Sequence[int]) -> dict[str, float]:
        return add_gradients(model, [example], 64)

    def held(tensors: Mapping[str, Tensor]) -> int:
        return sum(own_part(tensor).numel() for tensor in tensors.values())

    fit_or_go_on()
    if not folder.checkpoints.joinpath("step-00000001").is_dir():
        sys.exit("went on before the checkpoint was whole")
    of_fit = held(fit_or_go_on().best)
    (path / "run").mkdir(exist_ok=True)
    of_run = RoundFolder(path / "run", is_writer=team.is_first())
    run = Run({"policy": Learner(model, 1e-3, 0, 1.0)}, KLController("fixed", 0.1, 1.0))
    run.best_policy = model_tensors(model, "policy")
    run.save(of_run)
    run.restore(of_run)
    return [of_fit, held(run.best_policy), held(model_tensors(model, "own"))]


def own_part(tensor: Tensor) -> Tensor:
    """What this process holds of it."""
    return tensor.to_local() if is_part(tensor) else tensor  # type: ignore[attr-defined,no-any-return]


def main() -> None:
    torch.set_num_threads(1)
    for path in map(Path, sys.argv[1:]):
        if not (path / "stage.json").exists():
            team.join("cpu")
            model = shard(load_policy(path).model, "cpu")
            gradients = gradients_of(model)
            gradients["held"] = torch.tensor(team.collect(held_after_a_resume(model, path)))
            if team.is_first():
                save_file(gradients, path / "gradients.safetensors")
        elif status := run_stage(RoundFolder(path, is_writer=team.is_first())):
            sys.exit(f"{path} ended with {status}")


if __name__ == "__main__":
    main()

"""Two processes of one stage, started by torchrun over gloo, end where one alone ends."""

import json
import os
import subprocess
import threading
from dataclasses import replace
from datetime import timedelta

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from tests import warm
from tests.policy_server import policy_server
from tests.trainer.tiny import save_tiny_reward_model, write_tiny_prompts, write_tiny_rankings, write_tiny_stage
from tests.trainer.together import MAIN, ROOT, run_stage, run_together
from trainer import launch, team
from trainer.launch import cause_among
from trainer.recipe_process import RecipeProcess, Tail, command, explain
from trainer.recipes.grpo import run_grpo
from trainer.recipes.program import EXIT_LOCKED, EXIT_NAMED, Interrupt, run_in_folder
from trainer.recipes.sft import fine_tune
from trainer.round_folder import RoundFolder

__all__ = ["policy_server"]

LORA = {"tuning": "lora", "lora_rank": 4, "lora_alpha": 8}
POLICY = {
    "num_steps": 2,
    "batch_size": 8,
    "minibatch_size": 4,
    "samples_per_prompt": 2,
    "num_epochs": 2,
    "max_completion_tokens": 6,
    "learning_rate": 1e-3,
    "warmup_updates": 0,
    "kl_budget": 1000.0,
    "evaluate_every_steps": 1,
    "num_evaluation_prompts": 5,
    "max_length_factor": 100.0,
    "max_length_share": 100.0,
    "max_eos_drop": 1.0,
    "ema_decay": 0.5,
    "micro_batch_tokens": 64,  # several parts of a minibatch, so that there is something to share
    **LORA,
}
REJECTION = {
    "samples_per_prompt": 4,
    "prompts_per_chunk": 4,
    "max_completion_tokens": 12,
    "batch_size": 4,
    "num_epochs": 1,
    "kl_budget": 1000.0,
    "num_evaluation_prompts": 5,
    "micro_batch_tokens": 64,
    **LORA,
}
SETTINGS = {
    "sft": {"num_epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "micro_batch_tokens": 64},
    "reward": {
        **LORA,
        "num_members": 2,
        "num_epochs": 1,
        "micro_batch_tokens": 64,
        "num_normalisation_completions": 8,
        "max_completion_tokens": 6,
    },
    "ppo": POLICY,
    "grpo": POLICY,
    "rejection": REJECTION,
}


@pytest.fixture(scope="module")
def make(tmp_path_factory, llama_folder):
    """Makes a round folder of a recipe for so many processes."""
    reward_model = save_tiny_reward_model(llama_folder, tmp_path_factory.mktemp("models") / "reward")

    def make_folder(recipe: str, num_processes: int) -> RoundFolder:
        models = {"policy": str(llama_folder), "reward_model": str(reward_model)}
        settings = {**SETTINGS[recipe], "num_processes": num_processes}
        folder = write_tiny_stage(tmp_path_factory.mktemp(recipe) / "stage", recipe, settings, models)
        if recipe == "reward":
            write_tiny_rankings(folder, 20)
        else:
            write_tiny_prompts(folder)
        return folder

    return make_folder


def run(folder: RoundFolder) -> subprocess.CompletedProcess[str]:
    """By the launcher, which begins warm; what it starts does not."""
    recipe = folder.read_stage().recipe
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "1"}
    return warm.run(command(recipe, folder), folder.path.parent, cwd=ROOT, env=environment)


@pytest.fixture(scope="module")
def ran_together(make):
    """The folder of each recipe, run in two processes."""
    folders = {recipe: make(recipe, 2) for recipe in MAIN}
    finished = run_together("tests.trainer.together", *(str(folder.path) for folder in folders.values()))
    assert finished.returncode == 0, finished.stderr
    return folders


@pytest.mark.parametrize("recipe", MAIN)
def test_two_processes_end_in_the_weights_of_one(make, ran_together, recipe):
    """Broken by gradients that are not added up, and by a share of the loss that is divided by its own tokens."""
    alone, together = make(recipe, 1), ran_together[recipe]
    assert run_stage(alone) == 0
    ours, theirs = (load_file(folder.result / "model.safetensors") for folder in (together, alone))
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], atol=2e-4, rtol=1e-3)
    figures, expected = (json.loads((f.result / "result.json").read_text())["figures"] for f in (together, alone))
    assert figures == pytest.approx(expected, rel=1e-3, abs=1e-3)
    rows, expected_rows = together.metrics().read(), alone.metrics().read()
    assert [row["step"] for row in rows] == [row["step"] for row in expected_rows]  # one process writes
    for row, wanted in zip(rows, expected_rows, strict=True):
        for name in ("loss", "train_accuracy", "policy_loss", "value_loss", "kl", "score", "gradient_norm"):
            if name in wanted:
                assert row[name] == pytest.approx(wanted[name], rel=1e-2, abs=1e-4), name


def test_processes_wait_for_one_that_writes_a_large_checkpoint(monkeypatch):
    """NCCL's own patience is ten minutes: 70 B parameters with their optimiser are 1.4 TB to write."""
    told = {}
    monkeypatch.setattr("accelerate.PartialState", lambda **keywords: told.update(keywords))
    monkeypatch.setenv("WORLD_SIZE", "2")
    team.join("cuda")
    assert told["timeout"] >= timedelta(hours=1)
    assert told["cpu"] is False


def test_two_processes_that_divide_the_weights_hand_them_over_whole_and_each_samples_its_share(
    make, policy_server, monkeypatch
):
    """Seen to fail with every process handing over, and with the first one's parts, which the server cannot open."""
    alone, together = make("grpo", 1), make("grpo", 2)
    for folder in (alone, together):
        stage = folder.read_stage()
        config = replace(stage.config, tuning="full", shard_weights=stage.config.num_processes > 1)
        folder.write_stage(replace(stage, config=config))
    assert run_in_folder(run_grpo, alone, Interrupt()) == 0
    monkeypatch.setenv("PODIUM_ROLLOUTS_URL", policy_server.url)
    finished = run(together)
    assert finished.returncode == 0, finished.stderr
    paths = policy_server.paths()
    assert paths.count("/collective_rpc") == POLICY["num_steps"]
    num_completions = POLICY["num_steps"] * (4 + POLICY["batch_size"])  # 4: the probe
    assert paths.count("/v1/completions") == 2 + num_completions  # each asks once what the server understands
    ours, theirs = (load_file(folder.result / "model.safetensors") for folder in (together, alone))
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], atol=2e-4, rtol=1e-3)


def test_an_error_of_one_process_ends_all_and_is_told_by_name(make):
    folder = make("ppo", 2)
    (folder.path / "data" / "prompts.parquet").unlink()
    finished = run(folder)
    assert finished.returncode != 0
    assert explain(finished.returncode, folder, "")["code"] == "broken_round_folder", finished.stderr


def test_a_folder_that_another_process_holds_is_told_as_when_alone(make):
    folder = make("sft", 2)
    with folder.locked():
        assert run(folder).returncode == EXIT_LOCKED


@pytest.mark.parametrize(
    ("statuses", "cause"),
    [([1, -9], -9), ([-15, 3], 3), ([-9, 4, -15], 4), ([1, -15], 1), ([-11, 1, -15], -11)],
)
def test_the_cause_among_processes_is_the_kill_or_the_named_failure(statuses, cause):
    assert cause_among(statuses) == cause


def test_a_named_failure_is_told_though_whoever_named_it_ends_after_the_others(monkeypatch, tmp_path):
    """A slow machine: the other noticed that its peer was going, and ended with a traceback before it was gone."""
    names_it = iter([True, False])

    def run(*command):
        if next(names_it):
            RoundFolder(tmp_path).write_error("broken_round_folder", "it is broken", "mend it")
        raise ChildFailedError("ppo", {1: ProcessFailure(local_rank=1, pid=0, exitcode=1, error_file="")})

    monkeypatch.setattr(launch, "elastic_launch", lambda *given: run)
    assert launch.launch(2, "ppo", str(tmp_path)) == EXIT_NAMED
    assert launch.launch(2, "ppo", str(tmp_path)) == 1  # what an earlier run wrote is not this one's


def test_alone_nothing_is_shared_and_nothing_is_waited_for():
    assert team.share([1, 2, 3]) == [1, 2, 3]
    assert team.collect(["a", "b"]) == ["a", "b"]
    assert team.add_numbers(1.5, 2.0) == [1.5, 2.0]
    assert team.is_first()


@pytest.mark.parametrize("num_processes", [2, 3])
def test_shares_are_all_of_the_work_and_none_of_it_twice(monkeypatch, num_processes):
    monkeypatch.setenv("WORLD_SIZE", str(num_processes))
    shares = []
    for rank in range(num_processes):
        monkeypatch.setenv("RANK", str(rank))
        shares.append(team.share(range(7)))
    assert sorted(item for share in shares for item in share) == list(range(7))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("num_items", [0, 1, 4, 6])
def test_all_take_equally_many_turns_and_each_item_is_one_process_own(monkeypatch, num_items):
    """Broken by a last turn of those alone who have an item left: sharded weights take all of them."""
    monkeypatch.setenv("WORLD_SIZE", "3")
    turns = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        turns.append(team.turns(range(num_items)))
    assert len({len(own) for own in turns}) == 1
    assert sorted(item for own in turns for item, is_own in own if is_own) == list(range(num_items))


def test_processes_that_are_asked_to_stop_save_together_and_go_on_where_they_were(make):
    alone, together = make("sft", 1), make("sft", 2)
    for folder in (alone, together):
        stage = folder.read_stage()
        folder.write_stage(replace(stage, config=replace(stage.config, num_epochs=20, patience=100)))
    assert run_in_folder(fine_tune, alone, Interrupt()) == 0
    process = RecipeProcess("sft", together)
    pause, tail = threading.Event(), Tail(together.path / "metrics.jsonl")
    while not tail.read():
        assert process.poll() is None, process.last_lines()
        pause.wait(0.05)
    process.ask_to_stop()
    while process.poll() is None:
        pause.wait(0.05)
    process.close()
    num_rows = len(together.metrics().read())
    assert 0 < num_rows < len(alone.metrics().read())
    assert not together.is_finished
    assert run(together).returncode == 0
    ours, theirs = (load_file(folder.result / "model.safetensors") for folder in (together, alone))
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], atol=5e-3, rtol=5e-2)
    steps = [row["step"] for row in together.metrics().read()]
    assert steps == list(range(1, len(steps) + 1))

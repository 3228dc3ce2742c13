"""Weights divided over two processes, over gloo: what comes of it is what comes of one process that holds them all."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from tests.trainer.tiny import (
    save_tiny_ensemble,
    save_tiny_policy,
    save_tiny_reward_model,
    write_tiny_prompts,
    write_tiny_rankings,
    write_tiny_stage,
)
from tests.trainer.together import MAX_NORM, gradients_of, run_stage, run_together
from trainer.models import load_policy
from trainer.round_folder import RoundFolder
from trainer.settings import ConfigError, recipe_config
from trainer.sharding import CannotShard, shard

LORA = {"tuning": "lora", "lora_rank": 4, "lora_alpha": 8}
LEARNING = {"num_epochs": 1, "batch_size": 8, "micro_batch_tokens": 64}  # several parts of a batch to share
SCORED = {"max_completion_tokens": 6, "num_evaluation_prompts": 5}
POLICY = {
    **SCORED,
    "num_steps": 2,
    "batch_size": 12,
    "minibatch_size": 6,
    "samples_per_prompt": 2,
    "num_epochs": 2,
    "micro_batch_tokens": 64,
    "learning_rate": 1e-3,
    "warmup_updates": 0,
    "kl_budget": 1000.0,
    "evaluate_every_steps": 1,
    "checkpoint_every_steps": 1,
    "max_length_factor": 100.0,
    "max_eos_drop": 1.0,
    "max_disagreement_factor": 100.0,
    "ema_decay": 0.5,
}
STAGES = {
    "sft": ("sft", {**LEARNING, "gradient_checkpointing": True}),
    "sft-lora": ("sft", {**LEARNING, **SCORED, **LORA, "select_by": "score"}),
    "reward": ("reward", {**LEARNING, "max_completion_tokens": 6, "num_normalisation_completions": 8}),
    "reward-lora": ("reward", {**LEARNING, **LORA, "max_completion_tokens": 6, "num_normalisation_completions": 8}),
    "ppo": ("ppo", {**POLICY, "value_warmup_steps": 0, "ptx_coef": 0.5, "ptx_ratio": 1}),
    "grpo-ensemble": ("grpo", POLICY),
    "rejection": (
        "rejection",
        {**LEARNING, **SCORED, "samples_per_prompt": 4, "prompts_per_chunk": 4, "kl_budget": 1000.0},
    ),
}
COMPARED = {"loss", "gradient_norm", "policy_loss", "policy_gradient_norm", "value_loss", "value_gradient_norm", "kl"}
FAMILIES = ("llama", "gpt2")  # tied embeddings and grouped queries; positions that are learned, biases


@pytest.fixture(scope="module")
def make(tmp_path_factory, llama_folder):
    """Makes a round folder of a stage; of two processes that divide the weights, unless it is to run alone."""
    opened = tmp_path_factory.mktemp("models")
    reward_model = save_tiny_reward_model(llama_folder, opened / "reward")
    ensemble = save_tiny_ensemble(llama_folder, opened / "ensemble")

    def make_folder(name: str, *, alone: bool) -> RoundFolder:
        recipe, settings = STAGES[name]
        settings = settings if alone else {**settings, "num_processes": 2, "shard_weights": True}
        models = {"policy": str(llama_folder), "reward_model": str(ensemble if "ensemble" in name else reward_model)}
        folder = write_tiny_stage(tmp_path_factory.mktemp(name) / "stage", recipe, settings, models)
        if recipe == "reward":
            write_tiny_rankings(folder, 20)
        else:
            write_tiny_prompts(folder)
        return folder

    return make_folder


@pytest.fixture(scope="module")
def divided(make, tmp_path_factory):
    """What two processes have made together: of each stage its folder, of each family one with gradients."""
    folders = {name: make(name, alone=False) for name in STAGES}
    models = {family: save_tiny_policy(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}
    paths = [*models.values(), *(folder.path for folder in folders.values())]
    finished = run_together("tests.trainer.together", *map(str, paths))
    assert finished.returncode == 0, finished.stderr
    return {**folders, **models}


@pytest.mark.parametrize("name", STAGES)
def test_two_processes_that_divide_the_weights_end_in_the_weights_of_one(make, divided, name):
    """Broken by decoding from the weights of the first step, and by counting what fills a turn in GRPO's loss."""
    together, alone = divided[name], make(name, alone=True)
    assert run_stage(alone) == 0
    ours, theirs = (load_file(folder.result / "model.safetensors") for folder in (together, alone))
    assert ours.keys() == theirs.keys()
    for tensor in theirs:
        torch.testing.assert_close(ours[tensor], theirs[tensor], atol=2e-4, rtol=1e-3)
    results = [json.loads((folder.result / "result.json").read_text()) for folder in (together, alone)]
    assert results[0]["figures"] == pytest.approx(results[1]["figures"], rel=1e-3, abs=1e-3)
    rows, expected_rows = together.metrics().read(), alone.metrics().read()
    assert [row["step"] for row in rows] == [row["step"] for row in expected_rows]
    for row, wanted in zip(rows, expected_rows, strict=True):
        for figure in COMPARED & wanted.keys():
            assert row[figure] == pytest.approx(wanted[figure], rel=1e-2, abs=1e-4), figure
    described, expected = (json.loads((folder.result / "config.json").read_text()) for folder in (together, alone))
    assert described == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradients_of_divided_weights_are_those_of_whole_ones(divided, family):
    """Broken by a mean over the processes, by counting what fills the last turn, and by the norm of one's own part."""
    ours = load_file(divided[family] / "gradients.safetensors")
    ours.pop("held")
    theirs = gradients_of(load_policy(divided[family]).model)
    assert ours.keys() == theirs.keys()
    assert theirs["norm"] > 2 * MAX_NORM
    for name in theirs:
        torch.testing.assert_close(
            ours[name], theirs[name], rtol=1e-5, atol=1e-7, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_divided_fit_and_a_divided_run_that_go_on_hold_parts_of_the_best_parameters(divided, family):
    """Broken by keeping them as the checkpoint has them: whole, in each process."""
    of_fits, of_runs, of_models = load_file(divided[family] / "gradients.safetensors")["held"].view(3, 2)
    assert torch.equal(of_fits, of_models)
    assert torch.equal(of_runs, of_models)
    assert of_models.sum() == sum(p.numel() for p in load_policy(divided[family]).model.parameters())


def test_a_divided_stage_that_was_killed_goes_on_to_the_same_bits_and_one_process_can_finish_it(make, divided):
    """Broken by a checkpoint of one process's parts, and by an optimiser that starts anew."""
    killed, uninterrupted = make("ppo", alone=False), divided["ppo"]
    in_second_step = ("trainer.recipes.ppo.update_value", "6")  # of four a step
    run_together("tests.trainer.killing", "trainer.recipes.ppo", "run_ppo", str(killed.path), *in_second_step)
    assert [path.name for path in killed.checkpoints.iterdir()] == ["step-00000001"]
    taken_over = RoundFolder(shutil.copytree(killed.path, killed.path.with_name("taken-over")))
    finished = run_together("tests.trainer.together", str(killed.path))
    assert finished.returncode == 0, finished.stderr
    assert run_stage(taken_over) == 0
    ours, theirs, of_one = (
        load_file(folder.checkpoints / "step-00000002" / "tensors.safetensors")
        for folder in (killed, uninterrupted, taken_over)
    )
    assert ours.keys() == theirs.keys() == of_one.keys()  # two models, their optimisers, the average, the best so far
    for name in theirs:
        assert torch.equal(ours[name], theirs[name]), name
        torch.testing.assert_close(of_one[name], theirs[name], atol=2e-4, rtol=1e-2)


def test_a_model_whose_layers_nobody_knows_is_refused():
    with pytest.raises(CannotShard):
        shard(torch.nn.Linear(2, 2), "cpu")  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("recipe", "settings", "rule"),
    [
        ("sft", {}, "needs sft.num_processes above 1"),
        ("ppo", {"num_processes": 2, **LORA}, "needs ppo.tuning=full"),
        ("rejection", {"num_processes": 2, **LORA}, "needs rejection.tuning=full"),
        ("reward", {"num_processes": 2, **LORA, "num_members": 2}, "needs reward.num_members=1"),
    ],
)
def test_dividing_weights_is_refused_where_it_would_save_nothing(recipe, settings, rule):
    with pytest.raises(ConfigError, match=rule):
        recipe_config(recipe, "small", {**settings, "shard_weights": True})

import json
import math
import random
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import trainer.ppo
import trainer.reward_models
from tests.trainer.killing import run_until_killed
from tests.trainer.tiny import GOOD, some_prompt
from trainer.models import reward_model_from_policy, save_model
from trainer.recipes.ppo import run_ppo
from trainer.recipes.program import EXIT_NAMED, EXIT_TERMINATED, Interrupt, run_in_folder
from trainer.round_folder import PromptRow

SETTINGS = {
    "num_steps": 4,
    "batch_size": 8,
    "minibatch_size": 4,
    "samples_per_prompt": 2,
    "num_epochs": 2,
    "max_completion_tokens": 6,
    "learning_rate": 1e-2,
    "value_learning_rate": 1e-2,
    "value_warmup_steps": 1,
    "warmup_updates": 3,
    "kl_control": "adaptive",
    "kl_budget": 1000.0,
    "evaluate_every_steps": 2,
    "num_evaluation_prompts": 6,
    "patience": 50,
    "max_length_factor": 100.0,  # six tokens are soon one: rules on drift have tests of their own
    "max_eos_drop": 1.0,
    "checkpoint_every_steps": 2,
}


@pytest.fixture
def reward_model(llama_folder, tmp_path):
    """A reward model whose result.json says how far its scores spread."""
    reward = reward_model_from_policy(llama_folder, seed=3)
    save_model(reward.model, reward.tokenizer, tmp_path / "reward")
    (tmp_path / "reward" / "result.json").write_text(json.dumps({"score_std": 0.8}))
    return tmp_path / "reward"


@pytest.fixture
def ppo_folder(write_stage, llama_folder, reward_model):
    """Makes a round folder of the ppo recipe with prompts of both splits."""

    def make(**settings):
        models = {"policy": str(llama_folder), "reward_model": str(reward_model)}
        folder = write_stage("ppo", SETTINGS | settings, models)
        rng = random.Random(0)
        folder.write_prompts(
            PromptRow(prompt_id=i, split=split, prompt_ids=some_prompt(rng), text=f"prompt {i}")
            for i, split in enumerate(["train"] * 11 + ["validation"] * 8 + ["test"] * 2)
        )
        return folder

    return make


def run(folder):
    return run_in_folder(run_ppo, folder, Interrupt())


def weights(folder):
    return load_file(folder.result / "model.safetensors")


def result_of(folder):
    return json.loads((folder.result / "result.json").read_text())


def without_times(folder):
    """The metrics, except what a clock or the machine's memory says."""
    told = ("at", "memory_mb", "tokens_per_s", "episodes_per_s")
    return [
        {name: value for name, value in row.items() if name not in told and not name.endswith("_s")}
        for row in folder.metrics().read()
    ]


def assert_same_outcome(folder, undisturbed):
    ours, theirs = weights(folder), weights(undisturbed)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert result_of(folder) == result_of(undisturbed)
    assert without_times(folder) == without_times(undisturbed)
    assert folder.samples().read() == undisturbed.samples().read()


def test_a_finished_stage_leaves_a_plain_policy_its_figures_and_a_metric_row_a_step(ppo_folder, llama_folder):
    folder = ppo_folder()
    assert run(folder) == 0
    improved = AutoModelForCausalLM.from_pretrained(folder.result)
    start = AutoModelForCausalLM.from_pretrained(llama_folder)
    result, rows = result_of(folder), folder.metrics().read()
    moved = any(not torch.equal(a, b) for a, b in zip(improved.parameters(), start.parameters(), strict=True))
    assert moved == (result["figures"]["best_step"] > 0)
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["step"] for row in rows if "held_out_score" in row] == [0, 2, 4]
    best = max((row for row in rows if "held_out_reward" in row), key=lambda row: row["held_out_reward"])
    assert result["figures"]["best_step"] == best["step"]
    assert result["figures"]["held_out_reward"] == best["held_out_reward"]
    assert "policy_loss" not in rows[1]  # in the first step only the value model learns
    assert rows[2]["ratio_error"] == 0.0
    assert rows[0]["held_out_kl"] == 0.0
    assert {sample["step"] for sample in folder.samples().read()} == {0, 2, 4}
    assert set(folder.samples().read()[0]) == {"step", "prompt", "completion", "score", "kl"}


def test_the_phases_of_a_step_add_up_to_it(ppo_folder):
    folder = ppo_folder()
    assert run(folder) == 0
    for row in folder.metrics().read()[1:]:
        phases = [row.get(f"{name}_s", 0.0) for name in ("sample", "score", "update", "evaluate", "save")]
        assert 0.8 * row["step_s"] < sum(phases) <= row["step_s"]


# Where a process dies, by phase: a function that is called in it, and the call. The fourth step of four, or the last
# evaluation and checkpoint: what came before must be found again.
PHASES = {
    "sample": ("trainer.improvement.sample_rollouts", 4),
    "score": ("trainer.recipes.ppo.weigh", 4),
    "update": ("trainer.recipes.ppo.update_policy", 6),  # 4 minibatches a step, the first step learns values only
    "evaluate": ("trainer.held_out.decode_completion", 15),  # of 6 a look: the sample table is half written
    "save": ("trainer.checkpoints.sync", 6),  # everything is written, nothing renamed
}


@pytest.mark.parametrize("phase", PHASES)
def test_a_stage_killed_in_any_phase_and_resumed_ends_in_the_same_bits(ppo_folder, phase):
    folder, undisturbed = ppo_folder(), ppo_folder()
    run_until_killed("trainer.recipes.ppo", "run_ppo", folder.path, *PHASES[phase])
    assert not folder.is_finished
    assert [path.name for path in sorted(folder.checkpoints.glob("step-????????"))] == ["step-00000002"]
    assert run(folder) == 0
    assert run(undisturbed) == 0
    assert_same_outcome(folder, undisturbed)


@pytest.fixture(params=[1, 2])
def num_threads(request):
    """With two, policy and value model learn at once; a stage sets the threads, so they are put back."""
    before = torch.get_num_threads()
    yield request.param
    torch.set_num_threads(before)


def test_a_stage_asked_to_stop_saves_and_goes_on_in_the_same_bits(ppo_folder, num_threads):
    folder, undisturbed = ppo_folder(), ppo_folder()
    for stage in (folder, undisturbed):
        stage.write_stage(replace(stage.read_stage(), num_threads=num_threads))
    interrupt = Interrupt()
    interrupt.requested = True
    for _ in range(SETTINGS["num_steps"]):  # one step at a time
        assert run_in_folder(run_ppo, folder, interrupt) == EXIT_TERMINATED
    assert run(folder) == 0
    assert run(undisturbed) == 0
    assert_same_outcome(folder, undisturbed)
    assert all(row.get("ratio_error", 0.0) == 0.0 for row in folder.metrics().read())


def test_the_stage_stops_at_its_kl_budget_and_keeps_the_best_policy_within_it(ppo_folder, llama_folder):
    folder = ppo_folder(kl_budget=1e-4, learning_rate=0.1, value_warmup_steps=0, kl_coef=0.0)
    assert run(folder) == 0
    result = result_of(folder)
    assert "went over its budget" in result["stopped"]
    assert result["figures"]["num_steps"] < SETTINGS["num_steps"]
    assert (result["figures"]["best_step"], result["figures"]["held_out_kl"]) == (0, 0.0)
    start = load_file(llama_folder / "model.safetensors")
    assert all(torch.equal(tensor, start[name]) for name, tensor in weights(folder).items())


def test_the_stage_stops_when_the_held_out_reward_has_stopped_rising(ppo_folder, monkeypatch):
    monkeypatch.setattr("trainer.improvement.final_scores", lambda scores, *_: torch.zeros_like(scores))
    folder = ppo_folder(patience=1)
    assert run(folder) == 0
    assert result_of(folder)["stopped"] == "the held-out reward was last highest at step 0"
    assert result_of(folder)["figures"]["num_steps"] == 2


def good_words(model, prompts, completions, **_):
    """A reward model that is no model: the share of the word "good"."""
    return torch.tensor([ids.count(GOOD) / len(ids) for slate in completions for ids in slate])


def test_the_policy_learns_what_the_scores_ask_for(ppo_folder, monkeypatch):
    monkeypatch.setattr(trainer.reward_models, "score_completions", good_words)
    folder = ppo_folder(
        num_steps=24, batch_size=32, minibatch_size=16, evaluate_every_steps=8, kl_control="fixed", kl_coef=0.01
    )
    assert run(folder) == 0
    figures = result_of(folder)["figures"]
    assert figures["best_step"] > 0
    assert figures["held_out_score"] > figures["start_held_out_score"] + 0.3
    assert figures["held_out_kl"] > 0.1


def test_a_broken_reward_model_stops_the_stage_by_name_and_nothing_is_published(ppo_folder, reward_model):
    path = reward_model / "model.safetensors"
    save_file({name: tensor * math.nan for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
    folder = ppo_folder()
    assert run(folder) == EXIT_NAMED
    assert json.loads((folder.path / "error.json").read_text())["code"] == "not_finite"
    assert not folder.result.exists()


def test_an_update_that_diverges_stops_the_stage_and_the_last_checkpoint_stands(ppo_folder, monkeypatch):
    folder = ppo_folder(checkpoint_every_steps=1)
    estimate = trainer.ppo.estimate_advantages
    monkeypatch.setattr(
        trainer.ppo,
        "estimate_advantages",
        lambda *args, **kwargs: tuple(
            x * (math.nan if len(folder.metrics().read()) > 3 else 1) for x in estimate(*args, **kwargs)
        ),
    )
    assert run(folder) == EXIT_NAMED
    assert json.loads((folder.path / "error.json").read_text())["code"] == "not_finite"
    saved = sorted(folder.checkpoints.glob("step-*"))
    assert saved[-1].name == "step-00000003"
    assert all(tensor.isfinite().all() for tensor in load_file(saved[-1] / "tensors.safetensors").values())


def test_scores_that_do_not_spread_are_refused(ppo_folder, reward_model):
    (reward_model / "result.json").write_text(json.dumps({"score_std": 0.0}))
    folder = ppo_folder()
    assert run(folder) == EXIT_NAMED
    assert json.loads((folder.path / "error.json").read_text())["code"] == "flat_scores"


def test_prompts_too_long_for_the_context_are_counted_and_without_any_other_the_stage_is_refused(ppo_folder):
    folder = ppo_folder()
    rows = folder.read_prompts()
    folder.write_prompts([replace(row, prompt_ids=[5] * 59) if row.prompt_id < 3 else row for row in rows])
    assert run(folder) == 0
    assert result_of(folder)["figures"]["num_prompts_too_long"] == 3
    folder = ppo_folder()
    folder.write_prompts([replace(row, prompt_ids=[5] * 59) for row in rows])
    assert run(folder) == EXIT_NAMED
    assert json.loads((folder.path / "error.json").read_text())["code"] == "no_prompts"

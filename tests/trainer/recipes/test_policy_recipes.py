"""What holds for every recipe that improves a policy step by step: PPO and GRPO."""

import json
import math
import os
import random
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import trainer.reward_models
from tests.trainer.killing import run_until_killed
from tests.trainer.tiny import GOOD, save_tiny_ensemble, some_prompt
from trainer.models import load_policy, save_model
from trainer.recipes.grpo import run_grpo
from trainer.recipes.ppo import run_ppo
from trainer.recipes.program import EXIT_NAMED, EXIT_TERMINATED, Interrupt, run_in_folder
from trainer.round_folder import PretrainingRow, PromptRow
from trainer.settings import SAME_RESULT

RUN = {"ppo": run_ppo, "grpo": run_grpo}
SHARED = {
    "num_steps": 4,
    "batch_size": 8,
    "minibatch_size": 4,
    "samples_per_prompt": 2,
    "num_epochs": 2,
    "max_completion_tokens": 6,
    "learning_rate": 1e-2,
    "warmup_updates": 3,
    "kl_budget": 1000.0,
    "evaluate_every_steps": 2,
    "num_evaluation_prompts": 6,
    "patience": 50,
    "max_length_factor": 100.0,  # six tokens are soon one: rules on drift have tests of their own
    "max_length_share": 100.0,
    "max_eos_drop": 1.0,
    "checkpoint_every_steps": 2,
}
SETTINGS = {
    "ppo": {"value_learning_rate": 1e-2, "value_warmup_steps": 1, "kl_control": "adaptive"},
    "grpo": {},
}
# All that a checkpoint holds beside weights and optimisers.
EVERYTHING = {"ppo": {"ema_decay": 0.5, "ptx_coef": 0.5, "ptx_ratio": 1}, "grpo": {"ema_decay": 0.5}}


@pytest.fixture(params=RUN)
def recipe(request):
    return request.param


@pytest.fixture
def policy_stage(recipe, write_stage, llama_folder, reward_model):
    """Makes a round folder of the recipe with prompts of both splits and text to remember."""

    def make(models=None, **settings):
        ours = {"policy": str(llama_folder), "reward_model": str(reward_model), **(models or {})}
        folder = write_stage(recipe, SHARED | SETTINGS[recipe] | settings, ours)
        rng = random.Random(0)
        folder.write_prompts(
            PromptRow(prompt_id=i, split=split, prompt_ids=some_prompt(rng), text=f"prompt {i}")
            for i, split in enumerate(["train"] * 11 + ["validation"] * 8 + ["test"] * 2)
        )
        folder.write_pretraining(PretrainingRow(token_ids=[*some_prompt(rng), i]) for i in range(5, 12))
        return folder

    return make


def run(folder, interrupt=None):
    return run_in_folder(RUN[folder.read_stage().recipe], folder, interrupt or Interrupt())


def weights(folder):
    return load_file(folder.result / "model.safetensors")


def result_of(folder):
    return json.loads((folder.result / "result.json").read_text())


def error_of(folder):
    return json.loads((folder.path / "error.json").read_text())["code"]


def without_times(folder):
    """The metrics, except what a clock or the machine's memory says."""
    told = ("at", "memory_mb", "tokens_per_s", "episodes_per_s", "mfu")
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


def test_a_finished_stage_leaves_a_plain_policy_its_figures_and_a_metric_row_a_step(policy_stage, llama_folder):
    folder = policy_stage()
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
    assert rows[2]["ratio_error"] == 0.0
    assert rows[0]["held_out_kl"] == 0.0
    assert {sample["step"] for sample in folder.samples().read()} == {0, 2, 4}
    assert set(folder.samples().read()[0]) == {"step", "prompt", "completion", "score", "kl"}


def test_the_phases_of_a_step_add_up_to_it(policy_stage):
    folder = policy_stage()
    assert run(folder) == 0
    for row in folder.metrics().read()[1:]:
        phases = [row.get(f"{name}_s", 0.0) for name in ("sample", "score", "update", "evaluate", "save")]
        assert 0.8 * row["step_s"] < sum(phases) <= row["step_s"]


# A function that is called in each phase, and the call at which something happens: in the fourth step of four, or in
# the last evaluation or checkpoint, so that what came before must be found again.
PHASES = {
    "sample": ("trainer.improvement.sample_rollouts", {"ppo": 4, "grpo": 4}),
    "score": ("trainer.recipes.{recipe}.weigh", {"ppo": 4, "grpo": 4}),
    # 4 minibatches a step; the first step of PPO learns values only
    "update": ("trainer.recipes.{recipe}.update_policy", {"ppo": 6, "grpo": 10}),
    "evaluate": ("trainer.held_out.decode_completion", {"ppo": 15, "grpo": 15}),  # the sample table is half written
    "save": ("trainer.checkpoints.sync", {"ppo": 6, "grpo": 6}),  # everything is written, nothing renamed
}


@pytest.mark.parametrize("phase", PHASES)
def test_a_stage_killed_in_any_phase_and_resumed_ends_in_the_same_bits(policy_stage, recipe, phase):
    """Seen to fail with the running average, the KL coefficient or the count of updates left out of the checkpoint."""
    folder, undisturbed = policy_stage(**EVERYTHING[recipe]), policy_stage(**EVERYTHING[recipe])
    function, call = PHASES[phase]
    run_until_killed(
        f"trainer.recipes.{recipe}", f"run_{recipe}", folder.path, function.format(recipe=recipe), call[recipe]
    )
    assert not folder.is_finished
    assert [path.name for path in sorted(folder.checkpoints.glob("step-????????"))] == ["step-00000002"]
    assert run(folder) == 0
    assert run(undisturbed) == 0
    assert_same_outcome(folder, undisturbed)


@pytest.fixture
def listening():
    """An interrupt that SIGTERM asks; the handler from before is put back."""
    before = signal.getsignal(signal.SIGTERM)
    interrupt = Interrupt()
    interrupt.listen()
    yield interrupt
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("phase", PHASES)
def test_a_stage_told_to_stop_in_any_phase_saves_and_goes_on_in_the_same_bits(
    policy_stage, recipe, phase, listening, monkeypatch
):
    folder, undisturbed = policy_stage(**EVERYTHING[recipe]), policy_stage(**EVERYTHING[recipe])
    name, _ = PHASES[phase]
    home, function = name.format(recipe=recipe).rsplit(".", 1)
    with monkeypatch.context() as patch:
        original = getattr(__import__(home, fromlist=[function]), function)

        def asks_to_stop(*arguments, **keywords):
            os.kill(os.getpid(), signal.SIGTERM)
            return original(*arguments, **keywords)

        patch.setattr(f"{home}.{function}", asks_to_stop)
        assert run(folder, listening) == EXIT_TERMINATED
    # asked while it saved, it does one step more: what was asked is looked at between a step and its checkpoint
    assert 0 < len(list(folder.checkpoints.glob("step-????????"))) <= 2
    assert run(folder) == 0
    assert run(undisturbed) == 0
    assert_same_outcome(folder, undisturbed)


@pytest.fixture(params=[1, 2])
def num_threads(request):
    """With two, policy and value model learn at once; a stage sets the threads, so they are put back."""
    before = torch.get_num_threads()
    yield request.param
    torch.set_num_threads(before)


def test_a_stage_stopped_after_every_step_goes_on_in_the_same_bits(policy_stage, num_threads):
    folder, undisturbed = policy_stage(), policy_stage()
    for stage in (folder, undisturbed):
        stage.write_stage(replace(stage.read_stage(), num_threads=num_threads))
    interrupt = Interrupt()
    interrupt.requested = True
    for _ in range(SHARED["num_steps"]):  # one step at a time
        assert run(folder, interrupt) == EXIT_TERMINATED
    assert run(folder) == 0
    assert run(undisturbed) == 0
    assert_same_outcome(folder, undisturbed)
    assert all(row.get("ratio_error", 0.0) == 0.0 for row in folder.metrics().read())


def test_a_stage_goes_on_from_a_checkpoint_with_settings_that_change_only_how_it_computes(policy_stage):
    folder, undisturbed = policy_stage(), policy_stage()
    interrupt = Interrupt()
    interrupt.requested = True
    assert run(folder, interrupt) == EXIT_TERMINATED
    stage = folder.read_stage()
    others = {"micro_batch_tokens": 64, "gradient_checkpointing": True, "checkpoint_every_steps": 1}
    assert others.keys() == SAME_RESULT
    folder.write_stage(replace(stage, config=replace(stage.config, **others)))
    assert run(folder) == 0
    assert run(undisturbed) == 0
    assert [row["step"] for row in folder.metrics().read()] == [row["step"] for row in undisturbed.metrics().read()]
    for name, weight in weights(undisturbed).items():  # sums are taken in another order
        torch.testing.assert_close(weights(folder)[name], weight, rtol=1e-4, atol=1e-5)


def test_under_lora_a_stage_resumes_in_the_same_bits_and_leaves_a_plain_policy(policy_stage, llama_folder):
    folder, undisturbed = policy_stage(tuning="lora", ema_decay=0.5), policy_stage(tuning="lora", ema_decay=0.5)
    interrupt = Interrupt()
    interrupt.requested = True
    assert run(folder, interrupt) == EXIT_TERMINATED
    assert run(folder) == 0
    assert run(undisturbed) == 0
    assert_same_outcome(folder, undisturbed)
    assert weights(folder).keys() == load_file(llama_folder / "model.safetensors").keys()
    saved = load_file(sorted(folder.checkpoints.glob("step-*"))[-1] / "tensors.safetensors")
    assert all(".lora_" in name for name in saved if name.startswith("policy."))


@pytest.fixture
def ensemble(llama_folder, tmp_path):
    """The result of a reward stage with two members that score apart."""
    return str(save_tiny_ensemble(llama_folder, tmp_path / "ensemble"))


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_an_ensemble_scores_by_its_rule_and_says_how_far_it_disagrees(policy_stage, ensemble, tuning):
    found = {}
    for rule in ("mean", "worst"):
        folder = policy_stage({"reward_model": ensemble}, num_steps=2, tuning=tuning, ensemble_rule=rule)
        assert run(folder) == 0
        found[rule] = folder.metrics().read()[0]
    mean, worst = found["mean"], found["worst"]
    assert mean["held_out_disagreement"] == worst["held_out_disagreement"] > 0
    # of two members the worst is the mean less their deviation
    expected = mean["held_out_score"] - mean["held_out_disagreement"]
    assert worst["held_out_score"] == pytest.approx(expected, abs=1e-5)


def test_with_checkpointing_of_gradients_a_stage_ends_in_the_same_bits(policy_stage):
    folder, plain = policy_stage(gradient_checkpointing=True), policy_stage()
    assert run(folder) == 0
    assert run(plain) == 0
    assert_same_outcome(folder, plain)


def test_the_stage_stops_at_its_kl_budget_and_keeps_the_best_policy_within_it(policy_stage, recipe, llama_folder):
    settings = {"ppo": {"value_warmup_steps": 0}, "grpo": {}}[recipe]
    folder = policy_stage(kl_budget=1e-4, learning_rate=0.1, kl_coef=0.0, **settings)
    assert run(folder) == 0
    result = result_of(folder)
    assert "went over its budget" in result["stopped"]
    assert result["figures"]["num_steps"] < SHARED["num_steps"]
    assert (result["figures"]["best_step"], result["figures"]["held_out_kl"]) == (0, 0.0)
    start = load_file(llama_folder / "model.safetensors")
    assert all(torch.equal(tensor, start[name]) for name, tensor in weights(folder).items())


def test_the_stage_stops_when_the_held_out_reward_has_stopped_rising(policy_stage, monkeypatch):
    monkeypatch.setattr("trainer.improvement.final_scores", lambda scores, *_: torch.zeros_like(scores))
    folder = policy_stage(patience=1)
    assert run(folder) == 0
    assert result_of(folder)["stopped"] == "the held-out reward was last highest at step 0"
    assert result_of(folder)["figures"]["num_steps"] == 2


def good_words(model, prompts, completions, **_):
    """A reward model that is no model: the share of the word "good"."""
    return torch.tensor([ids.count(GOOD) / len(ids) for slate in completions for ids in slate])


LEARNING = {"num_steps": 24, "batch_size": 32, "minibatch_size": 16, "evaluate_every_steps": 8, "kl_coef": 0.01}
LEARNING_OF = {"ppo": {"kl_control": "fixed"}, "grpo": {"samples_per_prompt": 4}}


def test_the_policy_learns_what_the_scores_ask_for_and_is_stopped_before_it_follows_a_flaw_to_the_end(
    policy_stage, recipe, monkeypatch
):
    """The reward model loves one word, and its score rises for as long as it is followed. Only limits end that.

    Seen to fail without the limit on the KL of a step's completions.
    """
    monkeypatch.setattr(trainer.reward_models, "score_completions", good_words)
    settings = LEARNING | LEARNING_OF[recipe]
    followed, limited = (policy_stage(**settings, kl_budget=budget) for budget in (1000.0, 4.5))
    assert run(followed) == 0
    assert run(limited) == 0
    learned, stopped = (result_of(folder)["figures"] for folder in (followed, limited))
    assert learned["held_out_score"] > learned["start_held_out_score"] + 0.3
    assert learned["held_out_kl"] > 4.5
    assert "went over its budget of 4.5" in result_of(limited)["stopped"]
    assert stopped["num_steps"] < LEARNING["num_steps"]
    assert stopped["held_out_kl"] <= 4.5


def test_a_policy_may_start_elsewhere_and_is_held_near_the_reference(policy_stage, llama_folder, tmp_path):
    """Seen to fail with the reference opened from the policy's folder."""
    moved = load_policy(llama_folder)
    with torch.no_grad():
        for parameter in moved.model.parameters():
            parameter.mul_(1.05)
    save_model(moved.model, moved.tokenizer, tmp_path / "moved")
    models = {"policy": str(tmp_path / "moved"), "reference": str(llama_folder)}
    folder = policy_stage(models, num_steps=2)
    assert run(folder) == 0
    first, *_ = folder.metrics().read()
    assert first["held_out_kl"] > 0
    assert folder.metrics().read()[1]["kl"] != 0
    assert folder.metrics().read()[-1]["ratio_error"] == 0.0
    refused = policy_stage(models, kl_budget=first["held_out_kl"] / 2)
    assert run(refused) == EXIT_NAMED
    assert error_of(refused) == "over_kl_budget"


def test_a_broken_reward_model_stops_the_stage_by_name_and_nothing_is_published(policy_stage, reward_model):
    path = reward_model / "model.safetensors"
    save_file({name: tensor * math.nan for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
    folder = policy_stage()
    assert run(folder) == EXIT_NAMED
    assert error_of(folder) == "not_finite"
    assert not folder.result.exists()


def test_an_update_that_diverges_stops_the_stage_and_the_last_checkpoint_stands(policy_stage, recipe, monkeypatch):
    folder = policy_stage(checkpoint_every_steps=1)
    module = f"trainer.recipes.{recipe}"
    weigh = __import__(module, fromlist=["weigh"]).weigh

    def broken_in_the_fourth_step(*arguments):
        experience = weigh(*arguments)
        is_fourth = len(folder.metrics().read()) > 3
        return replace(experience, advantages=experience.advantages * (math.nan if is_fourth else 1))

    monkeypatch.setattr(f"{module}.weigh", broken_in_the_fourth_step)
    assert run(folder) == EXIT_NAMED
    assert error_of(folder) == "not_finite"
    saved = sorted(folder.checkpoints.glob("step-*"))
    assert saved[-1].name == "step-00000003"
    assert all(tensor.isfinite().all() for tensor in load_file(saved[-1] / "tensors.safetensors").values())


def test_scores_that_do_not_spread_are_refused(policy_stage, reward_model):
    (reward_model / "result.json").write_text(json.dumps({"score_std": 0.0}))
    folder = policy_stage()
    assert run(folder) == EXIT_NAMED
    assert error_of(folder) == "flat_scores"


def test_prompts_too_long_for_the_context_are_counted_and_without_any_other_the_stage_is_refused(policy_stage):
    folder = policy_stage(num_steps=2)
    rows = folder.read_prompts()
    folder.write_prompts([replace(row, prompt_ids=[5] * 59) if row.prompt_id < 3 else row for row in rows])
    assert run(folder) == 0
    assert result_of(folder)["figures"]["num_prompts_too_long"] == 3
    folder = policy_stage()
    folder.write_prompts([replace(row, prompt_ids=[5] * 59) for row in rows])
    assert run(folder) == EXIT_NAMED
    assert error_of(folder) == "no_prompts"

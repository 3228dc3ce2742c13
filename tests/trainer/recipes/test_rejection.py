import json
import random
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

import trainer.reward_models
from tests.trainer.killing import run_until_killed
from tests.trainer.tiny import EOS, some_prompt
from trainer.best_of_n import choose, read_chunk
from trainer.recipes.program import EXIT_NAMED, EXIT_TERMINATED, Interrupt, run_in_folder
from trainer.recipes.rejection import improve_by_rejection
from trainer.rollouts import Rollouts
from trainer.round_folder import PromptRow, read_result

SETTINGS = {
    "samples_per_prompt": 4,
    "prompts_per_chunk": 4,
    "max_completion_tokens": 12,
    "batch_size": 4,
    "num_epochs": 2,
    "learning_rate": 1e-3,
    "kl_budget": 1000.0,
    "num_evaluation_prompts": 6,
    "patience": 50,
    "checkpoint_every_steps": 2,
}


@pytest.fixture
def rejection_folder(write_stage, llama_folder, reward_model):
    """Makes a round folder of the rejection recipe with prompts of every split."""

    def make(models=None, num_train=11, **settings):
        ours = {"policy": str(llama_folder), "reward_model": str(reward_model), **(models or {})}
        folder = write_stage("rejection", SETTINGS | settings, ours)
        rng = random.Random(0)
        folder.write_prompts(
            PromptRow(prompt_id=i, split=split, prompt_ids=some_prompt(rng), text=f"prompt {i}")
            for i, split in enumerate(["validation"] * 8 + ["test"] * 2 + ["train"] * num_train)
        )
        return folder

    return make


def run(folder):
    return run_in_folder(improve_by_rejection, folder, Interrupt())


def error_of(folder):
    return json.loads((folder.path / "error.json").read_text())["code"]


def weights(folder):
    return load_file(folder.result / "model.safetensors")


def chosen_in(folder):
    return [best for path in sorted((folder.path / "chosen").iterdir()) for best in read_chunk(path).chosen]


def without_times(folder):
    return [
        {
            name: value
            for name, value in row.items()
            if not name.endswith("_s") and name not in ("at", "memory_mb", "mfu", "tokens_per_s")
        }
        for row in folder.metrics().read()
    ]


def assert_same_outcome(folder, undisturbed):
    ours, theirs = weights(folder), weights(undisturbed)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert read_result(folder.result) == read_result(undisturbed.result)
    assert without_times(folder) == without_times(undisturbed)
    assert folder.samples().read() == undisturbed.samples().read()


def rollouts_of(completions, finished):
    """Two prompts with the given completions of each."""
    lengths = torch.tensor([len(ids) for slate in completions for ids in slate])
    mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
    return Rollouts(
        prompts=[[5], [6]],
        completions=completions,
        is_finished=torch.tensor(finished),
        sampler_logprobs=torch.zeros(mask.shape),
        mask=mask,
    )


def test_the_best_finished_completion_of_each_prompt_is_chosen_and_of_equals_the_first():
    completions = [[[7, EOS], [8, EOS], [9, EOS]], [[10, 11], [12, EOS], [13, EOS]]]
    rollouts = rollouts_of(completions, [True, True, True, False, True, True])
    chunk = choose(rollouts, torch.tensor([1.0, 2.0, 2.0, 9.0, -1.0, -2.0]))
    assert [best.completion_ids for best in chunk.chosen] == [[8, EOS], [12, EOS]]  # 9.0 was cut off
    assert [best.score for best in chunk.chosen] == [2.0, -1.0]


def test_a_prompt_none_of_whose_completions_finished_teaches_nothing():
    completions = [[[7, 7], [8, 8]], [[9, EOS], [9, 9]]]
    chunk = choose(rollouts_of(completions, [False, False, True, False]), torch.tensor([5.0, 4.0, 0.0, 1.0]))
    assert ([best.prompt_ids for best in chunk.chosen], chunk.num_prompts, chunk.num_finished) == ([[6]], 2, 1)


def test_what_is_chosen_scores_highest_by_the_plain_reward_model_and_ends(rejection_folder, reward_model):
    folder = rejection_folder()
    assert run(folder) == 0
    plain = AutoModelForSequenceClassification.from_pretrained(reward_model).eval()
    chosen = chosen_in(folder)
    assert chosen
    with torch.no_grad():
        for best in chosen:
            hidden = plain.model(torch.tensor([best.prompt_ids + best.completion_ids])).last_hidden_state[0, -1]
            assert best.score == pytest.approx(plain.score(hidden).item() / 0.8, abs=1e-5)
    assert all(best.completion_ids[-1] == EOS and best.completion_ids.count(EOS) == 1 for best in chosen)


def brevity(model, prompts, completions, **_):
    """A reward model that is no model: it likes short completions."""
    return torch.tensor([1 - len(ids) / 12 for slate in completions for ids in slate])


def test_the_policy_learns_what_the_scores_ask_for(rejection_folder, monkeypatch):
    monkeypatch.setattr(trainer.reward_models, "score_completions", brevity)
    folder = rejection_folder(
        num_train=128,
        samples_per_prompt=16,
        prompts_per_chunk=64,
        batch_size=8,
        num_epochs=3,
        learning_rate=1e-2,
        evaluations_per_epoch=1,
    )
    assert run(folder) == 0
    result = read_result(folder.result)["figures"]
    assert result["chosen_score"] > result["sampled_score"] + 0.3
    assert result["held_out_score"] > result["start_held_out_score"] + 0.3
    assert result["held_out_kl"] > 0.1
    AutoModelForCausalLM.from_pretrained(folder.result)


def test_the_look_with_the_best_held_out_reward_is_kept_the_start_among_them(rejection_folder, llama_folder):
    folder = rejection_folder(learning_rate=0.5)  # ruins the policy at once
    assert run(folder) == 0
    looks = {row["step"]: row["held_out_reward"] for row in folder.metrics().read() if "held_out_reward" in row}
    figures = read_result(folder.result)["figures"]
    assert figures["best_step"] == max(looks, key=looks.__getitem__)
    assert figures["held_out_reward"] == max(looks.values())
    assert {sample["step"] for sample in folder.samples().read()} == set(looks)
    assert set(folder.samples().read()[0]) == {"step", "prompt", "completion", "score", "kl"}
    assert (looks.keys() >= {0, figures["num_steps"]}, figures["start_held_out_kl"]) == (True, 0.0)


def test_the_stage_stops_at_its_kl_budget_and_keeps_the_best_policy_within_it(rejection_folder, llama_folder):
    folder = rejection_folder(kl_budget=1e-6, learning_rate=0.1)
    assert run(folder) == 0
    result = read_result(folder.result)
    assert "went over its budget" in result["stopped"]
    assert (result["figures"]["best_step"], result["figures"]["held_out_kl"]) == (0, 0.0)
    start = load_file(llama_folder / "model.safetensors")
    assert all(torch.equal(tensor, start[name]) for name, tensor in weights(folder).items())


@pytest.mark.parametrize(
    ("function", "call"),
    [
        ("trainer.round_folder.sync", 3),  # saving the second chunk
        ("trainer.fitting.update", 4),  # between two checkpoints
        ("trainer.held_out.gather_rollouts", 3),  # a look on the way
        ("trainer.checkpoints.sync", 5),  # saving the second checkpoint
    ],
)
def test_a_stage_killed_in_any_phase_and_resumed_ends_in_the_same_bits(rejection_folder, function, call):
    folder, undisturbed = rejection_folder(), rejection_folder()
    run_until_killed("trainer.recipes.rejection", "improve_by_rejection", folder.path, function, call)
    assert not folder.is_finished
    assert run(folder) == 0
    assert run(undisturbed) == 0
    assert_same_outcome(folder, undisturbed)


def test_a_stage_asked_to_stop_keeps_each_chunk_and_each_step_and_goes_on_in_the_same_bits(rejection_folder):
    folder, undisturbed = rejection_folder(), rejection_folder()
    interrupt = Interrupt()
    interrupt.requested = True
    seen = []
    while run_in_folder(improve_by_rejection, folder, interrupt) == EXIT_TERMINATED:
        seen.append((len(list((folder.path / "chosen").iterdir())), len(list(folder.checkpoints.glob("step-*")))))
        if len(seen) == 5:
            interrupt.requested = False
    assert seen == [(1, 0), (2, 0), (3, 0), (3, 1), (3, 2)]
    assert run(undisturbed) == 0
    assert_same_outcome(folder, undisturbed)


def test_what_was_sampled_is_not_sampled_again(rejection_folder, monkeypatch):
    folder, undisturbed = rejection_folder(), rejection_folder()
    run_until_killed("trainer.recipes.rejection", "improve_by_rejection", folder.path, "trainer.best_of_n.choose", 3)
    sampled = []
    monkeypatch.setattr("trainer.best_of_n.choose", lambda *a: sampled.append(1) or choose(*a))
    assert run(folder) == 0
    assert len(sampled) == 1  # of three chunks
    assert run(undisturbed) == 0
    assert chosen_in(folder) == chosen_in(undisturbed)


def test_a_policy_that_never_stops_has_nothing_to_learn_and_the_stage_says_so(rejection_folder):
    folder = rejection_folder(max_completion_tokens=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.decoding.stop_token_ids", lambda *_: [10**6])
        assert run(folder) == EXIT_NAMED
    assert error_of(folder) == "nothing_chosen"


def test_going_on_from_another_policy_the_kl_is_measured_from_the_reference(
    rejection_folder, policy_folder, llama_folder, tmp_path
):
    moved = AutoModelForCausalLM.from_pretrained(llama_folder)
    with torch.no_grad():
        moved.model.layers[0].mlp.down_proj.weight.mul_(1.5)
    moved.save_pretrained(tmp_path / "current")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "current" / name).write_bytes((llama_folder / name).read_bytes())
    models = {"policy": str(tmp_path / "current"), "reference": str(llama_folder)}
    folder = rejection_folder(models)
    assert run(folder) == 0
    start_kl = read_result(folder.result)["figures"]["start_held_out_kl"]
    assert start_kl > 0
    refused = rejection_folder(models, kl_budget=start_kl / 2)
    assert run(refused) == EXIT_NAMED
    assert error_of(refused) == "over_kl_budget"
    assert not (refused.path / "chosen").exists()


def test_prompts_too_long_are_counted_and_without_any_other_the_stage_is_refused(rejection_folder):
    folder = rejection_folder()
    rows = folder.read_prompts()
    folder.write_prompts([replace(row, prompt_ids=[5] * 59) if row.prompt_id > 17 else row for row in rows])
    assert run(folder) == 0
    figures = read_result(folder.result)["figures"]
    assert (figures["num_prompts_too_long"], figures["num_completions"]) == (3, 8 * 4)
    folder = rejection_folder()
    folder.write_prompts([replace(row, prompt_ids=[5] * 59) for row in rows])
    assert run(folder) == EXIT_NAMED
    assert error_of(folder) == "no_prompts"


def test_a_reward_model_of_another_tokenizer_is_refused_before_anything_is_sampled(rejection_folder, reward_model):
    tokenizer = reward_model / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"w1"', '"v1"'))
    folder = rejection_folder()
    assert run(folder) == EXIT_NAMED
    assert error_of(folder) == "other_tokenizer"
    assert not (folder.path / "chosen").exists()


def test_an_adapter_learns_and_the_result_is_a_plain_policy(rejection_folder, llama_folder):
    folder = rejection_folder(tuning="lora", lora_rank=2, learning_rate=1e-2, gradient_checkpointing=True)
    assert run(folder) == 0
    figures = read_result(folder.result)["figures"]
    assert figures["start_held_out_kl"] == 0.0
    assert any(row.get("held_out_kl", 0.0) != 0.0 for row in folder.metrics().read())
    AutoModelForCausalLM.from_pretrained(folder.result)
    assert set(weights(folder)) == set(load_file(llama_folder / "model.safetensors"))

import dataclasses
import json
import random

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.trainer.killing import run_until_killed
from tests.trainer.tiny import EOS, GOOD, some_completion, some_demonstration, some_prompt
from trainer.imitation import Example, add_gradients, mean_loss
from trainer.models import load_policy
from trainer.recipes.program import Interrupt, run_in_folder
from trainer.recipes.sft import fine_tune
from trainer.round_folder import COLUMNS, DemonstrationRow, PromptRow, read_result, write_table


@pytest.fixture
def sft_folder(write_stage):
    def make(**settings):
        folder = write_stage("sft", {"learning_rate": 1e-2, "batch_size": 4, **settings})
        rng = random.Random(0)
        folder.write_demonstrations(
            some_demonstration(i, rng, split="validation" if i % 4 == 0 else "train") for i in range(16)
        )
        return folder

    return make


def run(folder):
    return run_in_folder(fine_tune, folder, Interrupt())


def weights_of(folder):
    return (folder.result / "model.safetensors").read_bytes()


def some_examples(rng, count):
    return [Example(prompt_ids=some_prompt(rng), completion_ids=some_completion(rng)) for _ in range(count)]


def test_the_policy_learns_to_write_the_demonstrations_and_to_stop(sft_folder):
    folder = sft_folder(num_epochs=10)
    assert run(folder) == 0
    figures = read_result(folder.result)["figures"]
    assert figures["validation_loss"] < 0.5
    plain = AutoModelForCausalLM.from_pretrained(folder.result).eval()
    written = plain.generate(
        torch.tensor([[5, 6, 7]]), attention_mask=torch.ones(1, 3), max_new_tokens=5, do_sample=False
    )
    assert written[0, 3:].tolist() == [GOOD, GOOD, EOS]


def test_the_loss_counts_completion_tokens_and_their_eos_alone(llama_folder):
    rng = random.Random(1)
    rows = some_examples(rng, 3)
    plain = AutoModelForCausalLM.from_pretrained(llama_folder).eval()
    nats, count = 0.0, 0
    for row in rows:
        logprobs = torch.log_softmax(plain(torch.tensor([row.prompt_ids + row.completion_ids])).logits[0], dim=-1)
        for position, token in enumerate(row.completion_ids, start=len(row.prompt_ids)):
            nats -= logprobs[position - 1, token].item()
            count += 1
    policy = load_policy(llama_folder).model
    assert mean_loss(policy, rows, 4096) == pytest.approx(nats / count, rel=1e-5)
    assert add_gradients(policy, rows, 4096)["loss"] == pytest.approx(nats / count, rel=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_the_gradient_of_a_step_does_not_depend_on_its_micro_batches(llama_folder, dtype, tolerance):
    rng = random.Random(2)
    rows = some_examples(rng, 40)

    def gradient(micro_batch_tokens):
        model = load_policy(llama_folder, dtype=dtype).model
        add_gradients(model, rows, micro_batch_tokens)
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    whole, parts = gradient(100_000), gradient(64)
    assert ((whole - parts).norm() / whole.norm()).item() < tolerance


def test_a_killed_run_goes_on_to_the_same_bits(sft_folder):
    undisturbed, killed = (sft_folder(num_epochs=3, checkpoint_every_steps=2) for _ in range(2))
    run(undisturbed)
    run_until_killed("trainer.recipes.sft", "fine_tune", killed.path, "trainer.fitting.update", 6)
    assert run(killed) == 0
    assert weights_of(killed) == weights_of(undisturbed)


def test_a_demonstration_longer_than_the_context_is_left_out_and_counted(sft_folder):
    folder = sft_folder(num_epochs=1)
    rows = folder.read_demonstrations()
    rows[1] = dataclasses.replace(rows[1], prompt_ids=[5] * 62)  # the context is 64
    folder.write_demonstrations(rows)
    assert run(folder) == 0
    figures = read_result(folder.result)["figures"]
    assert (figures["num_too_long"], figures["num_demonstrations"]) == (1, 11)


def test_without_demonstrations_the_stage_fails_by_name(sft_folder):
    folder = sft_folder()
    folder.write_demonstrations([])
    assert run(folder) == 3
    assert json.loads((folder.path / "error.json").read_text())["code"] == "no_demonstrations"


def conversation(number, rng, split="train"):
    """User, assistant "w0 w1 <eos>", user, and a demonstration."""
    start, earlier, after = some_prompt(rng), [5, 6, EOS], some_prompt(rng)
    return dataclasses.replace(
        some_demonstration(number, rng, split=split),
        prompt_ids=start + earlier + after,
        is_learned_in_prompt=[False] * len(start) + [True] * 3 + [False] * len(after),
    )


@pytest.mark.parametrize(("turns", "num_learned"), [("last", 3), ("all", 6)])
def test_of_a_conversation_the_last_turn_is_learned_or_every_one_with_its_eos(
    sft_folder, llama_folder, turns, num_learned
):
    rng = random.Random(4)
    folder = sft_folder(turns=turns, batch_size=1, num_epochs=1)
    rows = [conversation(0, rng)]
    folder.write_demonstrations(rows)
    assert run(folder) == 0
    [row] = folder.metrics().read()
    ids = rows[0].prompt_ids + rows[0].completion_ids
    plain = AutoModelForCausalLM.from_pretrained(llama_folder).eval()
    logprobs = torch.log_softmax(plain(torch.tensor([ids])).logits[0], dim=-1)
    learned = [*rows[0].is_learned_in_prompt, True, True, True]
    if turns == "last":
        learned[:-3] = [False] * (len(ids) - 3)
    nats = [-logprobs[i - 1, ids[i]].item() for i in range(1, len(ids)) if learned[i]]
    assert (len(nats), row["num_tokens"]) == (num_learned, num_learned)
    assert row["loss"] == pytest.approx(sum(nats) / num_learned, rel=1e-5)


def test_a_folder_written_before_earlier_turns_could_be_learned_opens(sft_folder):
    folder = sft_folder(num_epochs=1)
    path = folder.path / "data" / "demonstrations.parquet"
    columns = {name: kind for name, kind in COLUMNS[DemonstrationRow].items() if name != "is_learned_in_prompt"}
    rows = [{name: vars(row)[name] for name in columns} for row in folder.read_demonstrations()]
    write_table(path, columns, rows)
    assert run(folder) == 0


@pytest.fixture
def score_folder(sft_folder, llama_folder, reward_model):
    """A stage whose passes a reward model chooses among, and its validation prompts."""

    def make(**models):
        folder = sft_folder(select_by="score", num_epochs=3, max_completion_tokens=6)
        found = {"policy": str(llama_folder), "reward_model": str(reward_model), **models}
        folder.write_stage(dataclasses.replace(folder.read_stage(), models={k: v for k, v in found.items() if v}))
        rng = random.Random(5)
        folder.write_prompts(
            PromptRow(prompt_id=i, split="validation", prompt_ids=some_prompt(rng), text="") for i in range(6)
        )
        return folder

    return make


def test_the_pass_whose_completions_score_highest_is_kept_whatever_its_loss(score_folder, monkeypatch):
    held_out = iter([3.0, 1.0, 7.0, 2.0, 1.0, 1.0])  # of the looks, in order

    def scores(model, prompts, completions, **_):
        return torch.full((sum(map(len, completions)),), next(held_out))

    monkeypatch.setattr("trainer.reward_models.score_completions", scores)
    folder = score_folder()
    assert run(folder) == 0
    looks = [row for row in folder.metrics().read() if "held_out_score" in row]
    result = read_result(folder.result)
    best = looks[2]
    assert min(looks, key=lambda row: row["validation_loss"]) is not best
    assert result["figures"]["best_step"] == best["step"]
    assert result["figures"]["validation_loss"] == best["validation_loss"]
    assert {row["step"] for row in folder.samples().read()} == {row["step"] for row in looks}


def test_choosing_by_score_goes_on_to_the_same_bits_after_a_kill(score_folder):
    undisturbed, killed = score_folder(), score_folder()
    for folder in (undisturbed, killed):
        stage = folder.read_stage()
        config = dataclasses.replace(stage.config, checkpoint_every_steps=2)
        folder.write_stage(dataclasses.replace(stage, config=config))
    run(undisturbed)
    run_until_killed("trainer.recipes.sft", "fine_tune", killed.path, "trainer.held_out.gather_rollouts", 4)
    assert run(killed) == 0
    assert weights_of(killed) == weights_of(undisturbed)
    assert killed.samples().read() == undisturbed.samples().read()


def test_choosing_by_score_without_a_reward_model_is_refused_by_name(score_folder):
    folder = score_folder(reward_model=None)
    assert run(folder) == 3
    assert json.loads((folder.path / "error.json").read_text())["code"] == "no_reward_model"


def test_choosing_by_the_score_of_a_reward_model_of_another_tokenizer_is_refused_by_name(score_folder, reward_model):
    tokenizer = reward_model / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"w1"', '"v1"'))
    folder = score_folder()
    assert run(folder) == 3
    assert json.loads((folder.path / "error.json").read_text())["code"] == "other_tokenizer"


@pytest.mark.parametrize("settings", [{"tuning": "lora", "lora_rank": 2}, {"gradient_checkpointing": True}])
def test_adapters_and_recomputed_layers_learn_the_demonstrations_too(sft_folder, settings):
    folder = sft_folder(num_epochs=8, **settings)
    assert run(folder) == 0
    losses = [row["validation_loss"] for row in folder.metrics().read() if "validation_loss" in row]
    assert min(losses) < 0.7 * losses[0]
    AutoModelForCausalLM.from_pretrained(folder.result)

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
from trainer.round_folder import read_result


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

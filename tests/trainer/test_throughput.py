import time

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from tests.trainer.tiny import tiny_config
from trainer.adapters import LoRA, with_adapter
from trainer.throughput import learning_passes, matrix_rate, operations_of, throughput

CPU = torch.device("cpu")


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2", "opt"])
def test_a_forward_has_the_operations_that_torch_counts(family):
    """torch counts attention as if every query saw every key; ours counts what a token sees, half of it and a bit."""
    model = AutoModelForCausalLM.from_config(tiny_config(family), attn_implementation="eager")
    num_tokens = 24
    with FlopCounterMode(display=False) as counted:
        model(torch.zeros(1, num_tokens, dtype=torch.long))
    config = model.config.to_dict()
    layers, width = (2, 16) if family else (config["n_layer"], config["n_embd"])
    unseen = num_tokens**2 - num_tokens * (num_tokens + 1) // 2
    tokens, operations = operations_of(model, [[0] * 20], [[[0] * 4]])
    norms = 2 * num_tokens * layers * 2 * width  # vectors, which torch does not count
    assert tokens == num_tokens
    assert operations - norms + 4 * layers * width * unseen == pytest.approx(counted.get_total_flops(), rel=0.01)


def test_a_prompt_counts_once_for_all_its_completions():
    model = AutoModelForCausalLM.from_config(tiny_config("llama"))
    tokens, together = operations_of(model, [[0] * 30], [[[0] * 2] * 5])
    _, apart = operations_of(model, [[0] * 30] * 5, [[[0] * 2]] * 5)
    assert tokens == 40
    assert together < 0.3 * apart


def test_a_frozen_trunk_learns_without_gradients_of_its_weights():
    model = AutoModelForCausalLM.from_config(tiny_config("llama"))
    assert learning_passes(model) == 3
    assert learning_passes(with_adapter(model, LoRA(2, 4.0), seed=0)) == 2


def test_a_matrix_product_uses_the_machine_fully_by_definition():
    rate = matrix_rate("cpu", 1)
    speed = throughput(100, rate * 0.25, 0.5, CPU)
    assert speed["mfu"] == pytest.approx(0.5)
    assert speed["tokens_per_s"] == 200
    assert speed["memory_mb"] > 100


def test_the_rate_is_measured_once_and_quickly():
    matrix_rate.cache_clear()
    started = time.process_time()
    first = matrix_rate("cpu", 1)
    assert time.process_time() - started < 0.3
    assert matrix_rate("cpu", 1) is first

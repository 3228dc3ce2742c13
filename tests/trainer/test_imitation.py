import random

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.trainer.tiny import EOS, some_completion, some_prompt
from trainer.imitation import Example, add_gradients, mean_loss
from trainer.models import load_policy


def gradients(model):
    return torch.cat([p.grad.flatten() for _, p in sorted(model.named_parameters()) if p.grad is not None])


def plain_loss(model, example):
    """Nats of an example's learned tokens, by plain Transformers, alone in its row."""
    ids = torch.tensor([example.prompt_ids + example.completion_ids])
    logprobs = torch.log_softmax(model(ids).logits[0, :-1], dim=-1).gather(1, ids[0, 1:, None])[:, 0]
    learned = example.is_learned or [True] * len(example.completion_ids)
    return -logprobs[len(example.prompt_ids) - 1 :][torch.tensor(learned)].sum()


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2", "opt"])
def test_a_packed_row_teaches_what_its_examples_teach_alone(policy_folder, family):
    """Seen to fail with examples that attend to the one before them in the row: packing that does not isolate."""
    rng = random.Random(3)
    examples = [Example(prompt_ids=some_prompt(rng), completion_ids=some_completion(rng)) for _ in range(5)]
    examples.append(Example(prompt_ids=[5], completion_ids=[6, 7, EOS, 8], is_learned=[True, False, True, True]))
    plain = AutoModelForCausalLM.from_pretrained(policy_folder(family)).eval()
    num_learned = sum(len(example.completion_ids) for example in examples) - 1
    expected = sum(plain_loss(plain, example) for example in examples) / num_learned
    expected.backward()
    model = load_policy(policy_folder(family)).model
    loss = add_gradients(model, examples, micro_batch_tokens=10_000)["loss"]
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert mean_loss(model, examples, micro_batch_tokens=10_000) == pytest.approx(expected.item(), rel=1e-5)
    ours, theirs = gradients(model), gradients(plain)
    assert ((ours - theirs).norm() / theirs.norm()).item() < 1e-5


def test_tokens_that_are_not_learned_have_no_part_in_the_loss(llama_folder):
    model = load_policy(llama_folder).model
    some = Example(prompt_ids=[5, 6], completion_ids=[7, 8, 9, EOS], is_learned=[True, True, False, False])
    alone = Example(prompt_ids=[5, 6], completion_ids=[7, 8])
    assert mean_loss(model, [some], 64) == pytest.approx(mean_loss(model, [alone], 64), rel=1e-5)
    assert add_gradients(model, [some], 64)["num_tokens"] == 2

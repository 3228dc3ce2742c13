from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from trainer.models import load_policy
from trainer.pretraining import NoPretrainingText, examples_of, read_pretraining_mix
from trainer.round_folder import PretrainingRow
from trainer.settings import PPOConfig

TEXTS = [[5, 6, 7, 8, 9], [10, 11], [12, 13, 14], [20, 21, 22, 23]]
CONFIG = PPOConfig(ptx_coef=27.8, ptx_ratio=2, micro_batch_tokens=64)


@pytest.fixture
def folder(write_stage):
    folder = write_stage("ppo")
    folder.write_pretraining(PretrainingRow(token_ids=ids) for ids in TEXTS)
    return folder


def gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_an_update_adds_the_weighted_mean_gradient_of_its_texts(folder, llama_folder):
    """The expected one is that of plain Transformers, a text at a time. Two episodes, two texts each: all four."""
    policy = load_policy(llama_folder).model
    mix = read_pretraining_mix(folder, policy, CONFIG, seed=3)
    assert mix is not None
    values = mix.add_gradients(policy, num_episodes=2, update=0)
    plain = AutoModelForCausalLM.from_pretrained(llama_folder)
    losses = []
    for ids in TEXTS:
        logprobs = torch.log_softmax(plain(torch.tensor([ids])).logits[0, :-1], dim=-1)
        losses.append(-logprobs.gather(1, torch.tensor(ids[1:])[:, None]).sum())
    mean = sum(losses) / sum(len(ids) - 1 for ids in TEXTS)
    (27.8 * mean).backward()
    assert values["ptx_loss"] == pytest.approx(mean.item(), rel=1e-5)
    expected = gradients(plain)
    scale = max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in gradients(policy).items():
        assert (gradient - expected[name]).abs().max() <= 1e-5 * scale, name


def test_the_gradient_does_not_depend_on_how_many_tokens_are_computed_at_once(folder, llama_folder):
    """Seen to fail with a mean over the means of micro-batches."""
    policy = load_policy(llama_folder).model.double()
    found = []
    for tokens in (64, 256, 16384):
        policy.zero_grad()
        mix = read_pretraining_mix(folder, policy, replace(CONFIG, micro_batch_tokens=tokens, ptx_ratio=9), seed=3)
        assert mix is not None
        mix.add_gradients(policy, num_episodes=5, update=0)
        found.append({name: gradient.clone() for name, gradient in gradients(policy).items()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(gradient, found[2][name], rtol=1e-10, atol=1e-10)


def test_updates_go_through_the_texts_in_order_of_passes(folder, llama_folder):
    """Which texts an update learns is a function of its number and the seed: nothing of it is saved."""
    policy = load_policy(llama_folder).model
    mix = read_pretraining_mix(folder, policy, CONFIG, seed=3)
    assert mix is not None
    losses = [mix.add_gradients(policy, num_episodes=1, update=n)["ptx_loss"] for n in (0, 1, 2, 3, 0)]
    assert losses[4] == losses[0]
    assert len(set(losses)) > 1


def test_a_text_longer_than_the_context_comes_in_pieces_and_single_tokens_teach_nothing():
    rows = [PretrainingRow(token_ids=ids) for ids in ([5], [], [1, 2, 3, 4, 5, 6, 7], [8, 9])]
    pieces = [example.prompt_ids + example.completion_ids for example in examples_of(rows, context=3)]
    assert pieces == [[1, 2, 3], [4, 5, 6], [8, 9]]


def test_a_stage_that_asks_for_text_and_has_none_is_refused(write_stage, llama_folder):
    policy = load_policy(llama_folder).model
    folder = write_stage("ppo")
    assert read_pretraining_mix(folder, policy, replace(CONFIG, ptx_coef=0.0), seed=3) is None
    with pytest.raises(NoPretrainingText, match=r"ppo\.ptx_coef=27\.8"):
        read_pretraining_mix(folder, policy, CONFIG, seed=3)
    folder.write_pretraining([PretrainingRow(token_ids=[5])])
    with pytest.raises(NoPretrainingText):
        read_pretraining_mix(folder, policy, CONFIG, seed=3)

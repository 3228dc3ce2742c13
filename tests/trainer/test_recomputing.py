import pytest
import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from trainer.decoding import LocalEngine, SampleRequest
from trainer.models import load_policy
from trainer.recomputing import CannotRecompute, checkpointing
from trainer.scoring import packed_logprobs
from trainer.shared_prompt import pack

FAMILIES = ["llama", "gpt2", "qwen2", "opt"]
PROMPTS = [[5, 6, 7, 8, 9], [11, 12], [13]]
COMPLETIONS = [[[20, 21, 1], [23, 24], [25, 26, 27, 1]], [[6, 7, 1], [1]], [[8, 9]]]


def gradients_and_saved_bytes(model):
    """The gradients of a loss over completions of several prompts, and what autograd kept for them beside weights."""
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    kept = {}

    def pack_tensor(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    model.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(pack_tensor, lambda tensor: tensor):
        loss = packed_logprobs(model, pack(PROMPTS, COMPLETIONS)).sum()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}, sum(kept.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradients_are_the_same_to_the_bit_and_less_is_kept(policy_folder, family):
    model = load_policy(policy_folder(family)).model
    plain, bytes_plain = gradients_and_saved_bytes(model)
    checkpointing(model, on=True)
    recomputed, bytes_recomputed = gradients_and_saved_bytes(model)
    assert recomputed.keys() == plain.keys()
    for name, gradient in recomputed.items():
        assert torch.equal(gradient, plain[name]), name
    assert bytes_recomputed < 0.5 * bytes_plain
    checkpointing(model, on=False)
    assert gradients_and_saved_bytes(model)[1] == bytes_plain


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_recomputes_samples_what_it_sampled_before(policy_folder, family):
    policy = load_policy(policy_folder(family))
    engine = LocalEngine(policy.model, policy.tokenizer)
    requests = [SampleRequest(prompt_ids=prompt, seeds=[1, 2], max_completion_tokens=6) for prompt in PROMPTS]
    before = engine.sample(requests)
    checkpointing(policy.model, on=True)
    assert engine.sample(requests) == before
    assert policy.model.training


def test_a_model_whose_layers_cannot_be_computed_again_is_refused():
    class Bare(nn.Module):
        pass

    assert not any(isinstance(module, GradientCheckpointingLayer) for module in Bare().modules())
    checkpointing(Bare(), on=False)
    with pytest.raises(CannotRecompute, match="Bare"):
        checkpointing(Bare(), on=True)

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from tests.trainer.tiny import EOS
from trainer.adapters import LoRA, with_adapter
from trainer.models import load_policy
from trainer.recomputing import checkpointing
from trainer.scoring import packed_logprobs
from trainer.shared_prompt import pack, packed_hidden_states

PROMPTS = [[5, 6, 7, 8, 9], [11], [12, 13, 14, 15, 16, 17, 18]]
COMPLETIONS = [[[20, 21, EOS], [23, 24], [25, 26, 27, EOS]], [[6, 7, EOS], [EOS]], [[30, 9, 10, 11]]]
FAMILIES = ["llama", "gpt2", "qwen2", "opt"]


def upstream(num_tokens, width=16):
    return torch.randn(num_tokens, width, generator=torch.Generator().manual_seed(0))


def gradients_of(model):
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def assert_same_gradients(model, other):
    found, expected = gradients_of(model), gradients_of(other)
    assert found.keys() == expected.keys()
    scale = max(gradient.abs().max().item() for gradient in expected.values())
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-5 * scale, msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_states_that_are_read_and_their_gradients_are_those_of_each_completion_alone(policy_folder, family):
    model = load_policy(policy_folder(family)).model
    plain = AutoModelForCausalLM.from_pretrained(policy_folder(family), attn_implementation="eager").eval()
    packed = pack(PROMPTS, COMPLETIONS)
    states = packed_hidden_states(model, packed, rows=packed.read_index)[packed.previous_index]
    alone = torch.cat(
        [
            plain.base_model(input_ids=torch.tensor([prompt + ids])).last_hidden_state[0, len(prompt) - 1 : -1]
            for prompt, own in zip(PROMPTS, COMPLETIONS, strict=True)
            for ids in own
        ]
    )
    torch.testing.assert_close(states, alone, rtol=1e-5, atol=1e-5)
    (states * upstream(len(states))).sum().backward()
    (alone * upstream(len(alone))).sum().backward()
    assert_same_gradients(model, plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_layer_computes_the_rows_that_are_read_and_the_others_all(policy_folder, family):
    model = load_policy(policy_folder(family)).model
    packed, seen = pack(PROMPTS, COMPLETIONS), []
    inner = {"gpt2": "mlp.c_fc", "opt": "fc1"}.get(family, "mlp.gate_proj")
    layers = [module for name, module in model.named_modules() if name.endswith(inner)]
    for layer in layers:
        computed = type(layer).forward

        def count(states, layer=layer, computed=computed):
            seen.append(states.shape[-2])
            return computed(layer, states)

        if "forward" in vars(layer):  # OPT's own: it picks the rows itself
            layer.register_forward_hook(lambda *call: seen.append(int((call[2] != 0).any(dim=-1).sum())))
        else:
            layer.forward = count
    with torch.no_grad():
        packed_hidden_states(model, packed, rows=packed.read_index)
        assert seen == [packed.input_ids.shape[1], len(packed.read_index)]
        seen.clear()
        packed_hidden_states(model, packed)
        assert seen == [packed.input_ids.shape[1]] * 2


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_computed_next_by_the_same_model_is_whole(policy_folder, family):
    model = load_policy(policy_folder(family)).model
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(policy_folder(family)).eval()(ids).logits
        packed_logprobs(model, pack(PROMPTS, COMPLETIONS))
        torch.testing.assert_close(model(ids).logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("recomputes", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_and_recomputed_layers_learn_the_same_from_what_is_read(policy_folder, family, recomputes):
    """Beside the trunk, which reads through the same leaves."""
    trunk = load_policy(policy_folder(family)).model
    models = [with_adapter(trunk, LoRA(rank=2, alpha=4), seed=1) for _ in range(2)]
    packed = pack(PROMPTS, COMPLETIONS)
    for model, rows in zip(models, (packed.read_index, None), strict=True):
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, generator=torch.Generator().manual_seed(2))
        checkpointing(model, recomputes)
        states = packed_hidden_states(model, packed, rows=rows)[packed.previous_index]
        packed_hidden_states(trunk, packed)  # between a forward pass and its backward pass
        (states * upstream(len(states))).sum().backward()
    assert_same_gradients(*models)
    assert any(".lora_" in name for name in gradients_of(models[0]))

import pytest
import torch
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from trainer.fused_norms import RMSNorm, fuse_norms

WIDTH, EPS = 16, 1e-6


def numbers(*shape, seed, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_the_norm_and_its_gradients_are_those_of_the_formula():
    states, weight = (numbers(*shape, seed=n, dtype=torch.float64) for n, shape in enumerate([(3, 5, WIDTH), (WIDTH,)]))
    states[0, 0] = 0.0  # where eps alone keeps it finite
    leaves = [values.requires_grad_() for values in (states, weight)]
    formula = states / (states.square().mean(dim=-1, keepdim=True) + 0.1).sqrt() * weight
    normalised = RMSNorm.apply(states, weight, 0.1)
    torch.testing.assert_close(normalised, formula, rtol=1e-12, atol=1e-12)
    upstream = numbers(3, 5, WIDTH, seed=2, dtype=torch.float64)
    found, expected = (torch.autograd.grad((values * upstream).sum(), leaves) for values in (normalised, formula))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", [LlamaRMSNorm, Qwen2RMSNorm])
def test_a_models_norm_gives_what_it_gave_in_fp32_and_the_same_bits_in_bf16(kind):
    norm, fused = kind(WIDTH, EPS), kind(WIDTH, EPS)
    with torch.no_grad():
        norm.weight.copy_(numbers(WIDTH, seed=1))
    fused.load_state_dict(norm.state_dict())
    fuse_norms(fused)
    states = numbers(2, 7, WIDTH, seed=0)
    torch.testing.assert_close(fused(states), norm(states), rtol=1e-6, atol=1e-6)
    assert type(fused(states).grad_fn).__name__ == "RMSNormBackward"
    assert torch.equal(fused(states.bfloat16()), norm(states.bfloat16()))  # weights in fp32, as under autocast
    norm.bfloat16(), fused.bfloat16()
    assert torch.equal(fused(states.bfloat16()), norm(states.bfloat16()))


def test_a_norm_that_computes_something_else_is_left_alone():
    norm = GemmaRMSNorm(WIDTH, EPS)  # multiplies by 1 + weight
    fuse_norms(norm)
    assert "forward" not in vars(norm)

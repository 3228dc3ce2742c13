import pytest
import torch
from transformers.models.cohere.modeling_cohere import apply_rotary_pos_emb as rotate_neighbours
from transformers.models.gpt_neox.modeling_gpt_neox import apply_rotary_pos_emb as rotate_a_part
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from trainer.fused_rotation import NAME, own_rotation, rotates_halves
from trainer.models import load_policy

B, H, G, N, D = 2, 4, 2, 5, 8


def inputs(dtype):
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(B, N, n, D, generator=generator, dtype=dtype).transpose(1, 2) for n in (H, G))
    angles = torch.randn(B, N, D // 2, generator=generator, dtype=dtype).repeat(1, 1, 2)
    return query.requires_grad_(), key.requires_grad_(), angles.cos(), angles.sin()


def test_the_rotation_and_its_gradients_are_those_of_transformers():
    query, key, cos, sin = inputs(torch.float64)
    own, theirs = (
        rotate(query, key, cos, sin) for rotate in (own_rotation(apply_rotary_pos_emb), apply_rotary_pos_emb)
    )
    torch.testing.assert_close(own, theirs, rtol=1e-12, atol=1e-12)
    upstream = [torch.randn(states.shape, generator=torch.Generator().manual_seed(1)).double() for states in own]
    found, expected = (torch.autograd.grad(rotated, (query, key), upstream) for rotated in (own, theirs))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtypes", [(torch.bfloat16, torch.bfloat16), (torch.bfloat16, torch.float32)])
def test_in_bf16_every_bit_is_that_of_transformers(dtypes):
    query, key, cos, sin = (values.to(dtypes[n > 1]) for n, values in enumerate(inputs(torch.float32)))
    own, theirs = (
        rotate(query, key, cos, sin) for rotate in (own_rotation(apply_rotary_pos_emb), apply_rotary_pos_emb)
    )
    assert all(torch.equal(*pair) for pair in zip(own, theirs, strict=True))


def test_a_rotation_of_neighbours_is_left_alone():
    assert rotates_halves(apply_rotary_pos_emb)
    assert not rotates_halves(rotate_neighbours)


def test_where_a_part_of_each_vector_is_rotated_the_library_does_it():
    query, key, cos, sin = inputs(torch.float32)
    part = cos[..., : D // 2], sin[..., : D // 2]
    own, theirs = (rotate(query, key, *part) for rotate in (own_rotation(rotate_a_part), rotate_a_part))
    assert all(torch.equal(*pair) for pair in zip(own, theirs, strict=True))


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_models_own_attention_rotates_so_and_the_librarys_stays(policy_folder, family):
    model = load_policy(policy_folder(family)).model
    attention = model.model.layers[0].self_attn
    assert attention.forward.__func__.__globals__[NAME].__module__ == "trainer.fused_rotation"
    assert type(attention).forward.__globals__[NAME].__module__.startswith("transformers.")

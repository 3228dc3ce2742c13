import math

import pytest
import torch

from trainer.packed_attention import PackedAttention, Slate, attend_together, groups_of_like_shape

SLATES = (Slate(5, (3, 2, 4)), Slate(1, (2, 1)), Slate(7, (4,)), Slate(4, (3, 3)), Slate(6, (3, 2, 2)), Slate(2, (1,)))
HEADS, WIDTH = 2, 8


def naive(query, key, value, slates, scale):
    """Softmax over everything, with a mask written from the definition."""
    num_tokens = query.shape[2]
    visible = torch.zeros(num_tokens, num_tokens, dtype=torch.bool)
    start = 0
    for slate in slates:
        prompt = range(start, start + slate.prompt_length)
        for token in prompt:
            visible[token, start : token + 1] = True
        own = prompt.stop
        for length in slate.completion_lengths:
            for token in range(own, own + length):
                visible[token, prompt.start : prompt.stop] = True
                visible[token, own : token + 1] = True
            own += length
        start = own
    weights = (query @ key.transpose(-1, -2) * scale).masked_fill(~visible, -math.inf).softmax(dim=-1)
    return (weights @ value).transpose(1, 2)


def leaves(slates, dtype=torch.float64):
    num_tokens = sum(sum(slate.spans) for slate in slates)
    generator = torch.Generator().manual_seed(0)
    return [
        (2 * torch.randn(1, HEADS, num_tokens, WIDTH, generator=generator, dtype=dtype)).requires_grad_()
        for _ in range(3)
    ]


@pytest.mark.parametrize("way", [PackedAttention.apply, attend_together])
@pytest.mark.parametrize(
    "slates", [SLATES, (Slate(5, (3, 3, 3)), Slate(4, (2, 2, 2))), (Slate(3, (2,)),), (Slate(2, (5, 1)),)]
)
def test_both_ways_equal_the_naive_one_with_gradients(way, slates):
    own = leaves(slates)
    attended, expected = way(*own, slates, 0.3), naive(*own, slates, 0.3)
    torch.testing.assert_close(attended, expected, rtol=1e-10, atol=1e-10)
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients = torch.autograd.grad((attended * upstream).sum(), own)
    torch.testing.assert_close(gradients, torch.autograd.grad((expected * upstream).sum(), own), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("slates", [SLATES, (Slate(3, (2,)),), (Slate(1, (1,)), Slate(2, (5, 1)))])
def test_prompts_that_are_not_read_cost_nothing_and_change_nothing(slates):
    own = leaves(slates)
    read = torch.zeros(sum(sum(slate.spans) for slate in slates), dtype=torch.bool)
    start = 0
    for slate in slates:
        end = start + sum(slate.spans)
        read[start + slate.prompt_length - 1 : end] = True
        start = end
    attended, expected = PackedAttention.apply(*own, slates, 0.3, True), naive(*own, slates, 0.3)
    torch.testing.assert_close(attended[:, read], expected[:, read], rtol=1e-10, atol=1e-10)
    assert not attended[:, ~read].any()
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    upstream[:, ~read] = 0.0
    gradients = torch.autograd.grad((attended * upstream).sum(), own)
    torch.testing.assert_close(gradients, torch.autograd.grad((expected * upstream).sum(), own), rtol=1e-10, atol=1e-10)


def test_large_scores_do_not_overflow_where_the_parts_are_put_together():
    own = [(values * 40).detach() for values in leaves(SLATES, torch.float32)]
    attended = PackedAttention.apply(*own, SLATES, 1.0)
    torch.testing.assert_close(attended, naive(*own, SLATES, 1.0), rtol=1e-4, atol=1e-4)


def test_the_way_of_the_cpu_keeps_no_copy_of_a_prompt_for_each_completion():
    slates = (Slate(50, (2,) * 20),)
    own, kept = leaves(slates), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        PackedAttention.apply(*own, slates, 0.3)
    num_tokens = 50 + 40
    assert sum(kept) == num_tokens * HEADS * (4 * WIDTH + 1)  # query, key, value, output, normaliser


def test_slates_of_like_shape_are_computed_together_and_no_others():
    long, short = Slate(100, (50, 50)), Slate(10, (5, 5))
    slates = (long, short, Slate(95, (48, 50)), Slate(11, (5, 5)), Slate(100, (50, 50, 50)))
    groups = sorted(sorted(group) for group in groups_of_like_shape(slates))
    assert groups == [[0, 2], [1, 3], [4]]

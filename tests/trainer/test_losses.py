import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainer import losses
from trainer.losses import kwise_loss, token_logprobs


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


@pytest.mark.parametrize("k", [4, 9])
def test_loss_is_log_2_when_the_reward_model_cannot_tell_completions_apart(k):
    loss = kwise_loss(scores=torch.zeros(1, k), ranks=torch.arange(1, k + 1)[None])
    torch.testing.assert_close(loss, torch.tensor(math.log(2)))


def test_loss_of_three_completions_follows_the_paper():
    # ranking B > A > C with scores A 1, B 0.5, C -2: comparisons (B, A), (B, C), (A, C)
    expected = -(log_sigmoid(0.5 - 1) + log_sigmoid(0.5 + 2) + log_sigmoid(1 + 2)) / 3
    loss = kwise_loss(torch.tensor([[1.0, 0.5, -2.0]]), torch.tensor([[2, 1, 3]]))
    torch.testing.assert_close(loss, torch.tensor(expected))


def test_each_ranking_weighs_the_same_whatever_its_k():
    scores = torch.tensor([[1.0, 0.0, float("nan"), float("nan")], [0.0, 0.0, 0.0, 0.0]])
    ranks = torch.tensor([[2, 1, 0, 0], [1, 2, 3, 4]])
    expected = (-log_sigmoid(-1.0) + math.log(2)) / 2
    torch.testing.assert_close(kwise_loss(scores, ranks), torch.tensor(expected))


@given(
    st.lists(st.integers(1, 4), min_size=2, max_size=6).filter(lambda ranks: len(set(ranks)) > 1), st.integers(0, 99)
)
@settings(max_examples=25, deadline=None)
def test_loss_equals_a_loop_over_pairs_with_ties_left_out(ranks, seed):
    scores = torch.randn(len(ranks), generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    pairs = [(i, j) for i, j in itertools.permutations(range(len(ranks)), 2) if ranks[i] < ranks[j]]
    expected = -sum(log_sigmoid(float(scores[i] - scores[j])) for i, j in pairs) / len(pairs)
    torch.testing.assert_close(kwise_loss(scores[None], torch.tensor([ranks])).item(), expected)


def test_half_ties_count_half_a_comparison_each_way():
    scores, ranks = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[1, 1, 2]])
    tie = 0.5 * log_sigmoid(2.0) + 0.5 * log_sigmoid(-2.0)
    expected = -(tie + log_sigmoid(3.0) + log_sigmoid(1.0)) / 3
    torch.testing.assert_close(kwise_loss(scores, ranks, ties="half"), torch.tensor(expected))


def test_what_a_pick_leaves_uncompared_is_no_tie():
    scores, ranks = torch.tensor([[2.0, 0.5, -1.0], [2.0, 0.5, -1.0]]), torch.tensor([[1, 2, 2], [1, 2, 2]])
    picked = -(log_sigmoid(1.5) + log_sigmoid(3.0)) / 2
    tie = 0.5 * log_sigmoid(1.5) + 0.5 * log_sigmoid(-1.5)
    ranked = -(log_sigmoid(1.5) + log_sigmoid(3.0) + tie) / 3
    loss = kwise_loss(scores, ranks, ties="half", picks=torch.tensor([True, False]))
    torch.testing.assert_close(loss, torch.tensor((picked + ranked) / 2))


def test_a_margin_is_taken_off_the_lead_of_the_better_completion():
    loss = kwise_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[1, 2]]), margins=torch.tensor([0.75]))
    torch.testing.assert_close(loss, torch.tensor(-log_sigmoid(0.25)))


def test_a_tie_has_no_strength():
    tie = 0.5 * log_sigmoid(2.0) + 0.5 * log_sigmoid(-2.0)
    expected = -(tie + log_sigmoid(3.0 - 0.75) + log_sigmoid(1.0 - 0.75)) / 3
    loss = kwise_loss(
        torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[1, 1, 2]]), margins=torch.tensor([0.75]), ties="half"
    )
    torch.testing.assert_close(loss, torch.tensor(expected))


def test_a_ranking_of_weight_three_counts_as_three_rankings():
    scores, ranks = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1, 2], [1, 2]])
    weighted = kwise_loss(scores, ranks, label_weights=torch.tensor([3.0, 1.0]))
    repeated = kwise_loss(scores[[0, 0, 0, 1]], ranks[[0, 0, 0, 1]])
    torch.testing.assert_close(weighted, repeated)


def test_micro_batches_of_one_step_add_up_to_its_loss():
    scores, ranks, weights = (
        torch.tensor([[1.0, 0.0], [0.0, 2.0]]),
        torch.tensor([[1, 2], [1, 2]]),
        torch.tensor([3.0, 1.0]),
    )
    parts = [
        kwise_loss(scores[i : i + 1], ranks[i : i + 1], label_weights=weights[i : i + 1], total_weight=4.0)
        for i in range(2)
    ]
    torch.testing.assert_close(sum(parts), kwise_loss(scores, ranks, label_weights=weights))


@pytest.mark.parametrize("ranks", [[1, 1, 1], [1, 0, 0]])
def test_a_ranking_without_a_comparison_is_refused(ranks):
    with pytest.raises(ValueError, match="above another"):
        kwise_loss(torch.zeros(1, 3), torch.tensor([ranks]))


def test_nan_in_padding_reaches_neither_loss_nor_gradient():
    """Broken by masking after the sigmoid: NaN * 0 is NaN."""
    scores = torch.tensor([[1.0, 0.0, float("nan")]], requires_grad=True)
    kwise_loss(scores, torch.tensor([[1, 2, 0]])).backward()
    slope = 1 / (1 + math.e)  # sigma(-1)
    torch.testing.assert_close(scores.grad, torch.tensor([[-slope, slope, 0.0]]))


def test_loss_stays_finite_where_the_exponential_overflows():
    """Broken by log(1 + exp(-lead)) in place of logsigmoid."""
    loss = kwise_loss(torch.tensor([[-1e4, 1e4]]), torch.tensor([[1, 2]]))
    torch.testing.assert_close(loss, torch.tensor(2e4))


def naive_logprobs(hidden, weight, bias, ids, temperature):
    return torch.log_softmax((hidden @ weight.T + bias) / temperature, dim=-1)[torch.arange(len(ids)), ids]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("chunk_elements", [40, 4_194_304])
def test_chunked_logprobs_and_their_gradients_equal_the_naive_ones(monkeypatch, chunk_elements, dtype, tolerance):
    monkeypatch.setattr(losses, "CHUNK_ELEMENTS", chunk_elements)
    monkeypatch.setattr(losses, "VOCABULARY_STEP", 8)
    generator = torch.Generator().manual_seed(0)
    leaves = [
        torch.randn(*shape, generator=generator, dtype=dtype, requires_grad=True) for shape in [(13, 6), (30, 6), (30,)]
    ]
    ids = torch.randint(0, 30, (13,), generator=generator)
    upstream = torch.randn(13, generator=generator, dtype=dtype)
    ours = token_logprobs(leaves[0], leaves[1], ids, output_bias=leaves[2], temperature=0.7)
    naive = naive_logprobs(*leaves, ids, 0.7)
    torch.testing.assert_close(ours, naive, rtol=tolerance, atol=tolerance)
    for own, expected in zip(
        torch.autograd.grad(ours @ upstream, leaves), torch.autograd.grad(naive @ upstream, leaves), strict=True
    ):
        torch.testing.assert_close(own, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("learns", [(True, False, False), (False, True, False), (False, False, True)])
def test_only_what_learns_gets_a_gradient(learns):
    leaves = [
        torch.randn(*shape).requires_grad_(own) for shape, own in zip([(5, 6), (9, 6), (9,)], learns, strict=True)
    ]
    ids = torch.arange(5)
    token_logprobs(leaves[0], leaves[1], ids, output_bias=leaves[2]).sum().backward()
    [wanted] = [leaf for leaf in leaves if leaf.requires_grad]
    [expected] = torch.autograd.grad(naive_logprobs(*leaves, ids, 1.0).sum(), [wanted])
    torch.testing.assert_close(wanted.grad, expected, rtol=1e-5, atol=1e-5)
    assert [leaf.grad is not None for leaf in leaves] == list(learns)


def test_logprobs_of_bf16_states_are_accumulated_in_fp32():
    hidden, weight = (torch.randn(5, 16).mul(4).bfloat16(), torch.randn(40, 16).bfloat16())
    ids = torch.arange(5)
    exact = naive_logprobs(hidden.double(), weight.double(), 0.0, ids, 1.0)
    ours = token_logprobs(hidden, weight, ids)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-5)


def test_a_bf16_output_weight_gets_the_gradient_of_all_tokens_summed_in_fp32():
    """Summed in bf16, 256 equal shares would stop growing long before the end."""
    hidden = torch.full((4096, 4), 0.5).bfloat16()
    weight = torch.zeros(2, 4).bfloat16().requires_grad_()
    token_logprobs(hidden, weight, torch.zeros(4096, dtype=torch.long)).sum().backward()
    expected = torch.tensor([[1.0], [-1.0]]).expand(2, 4) * 4096 * 0.5 * 0.5
    assert weight.grad.dtype == torch.bfloat16
    torch.testing.assert_close(weight.grad.float(), expected)


def test_autocast_rounds_the_factors_and_not_the_logits():
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(7, 64, generator=generator) * 3, torch.randn(50, 64, generator=generator))
    ids = torch.arange(7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = token_logprobs(hidden, weight, ids)
    rounded = naive_logprobs(hidden.bfloat16().double(), weight.bfloat16().double(), 0.0, ids, 1.0)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), rounded, rtol=1e-5, atol=1e-5)


class LargestTensor(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        given = {
            tensor.untyped_storage().data_ptr() for tensor in tree_leaves(args) if isinstance(tensor, torch.Tensor)
        }
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in given:
                self.numel = max(self.numel, tensor.numel())
        return made


def largest_tensor(vocabulary, *, weight_learns):
    hidden = torch.randn(100, 4, requires_grad=True)
    weight, bias = torch.randn(vocabulary, 4), torch.randn(vocabulary)
    if weight_learns:
        weight.requires_grad_()
    with LargestTensor() as made:
        token_logprobs(hidden, weight, torch.randint(0, vocabulary, (100,)), output_bias=bias).sum().backward()
    return made.numel


def test_memory_does_not_grow_with_the_vocabulary_where_the_output_layer_is_frozen(monkeypatch):
    """Broken by a gradient buffer of (V, D) for a weight without requires_grad, and by logits of (T, V)."""
    monkeypatch.setattr(losses, "CHUNK_ELEMENTS", 1_000)
    monkeypatch.setattr(losses, "VOCABULARY_STEP", 100)
    assert largest_tensor(1_000, weight_learns=False) == 1_000
    assert largest_tensor(50_000, weight_learns=False) == 1_000
    assert largest_tensor(50_000, weight_learns=True) == 50_000 * 4  # its gradient, and nothing larger


def largest_block(num_tokens: int, vocabulary: int, device: str) -> int:
    return max(
        (tokens.stop - tokens.start) * (part.stop - part.start)
        for part, slices in losses.chunks(num_tokens, vocabulary, torch.device(device))
        for tokens in slices
    )


@pytest.mark.parametrize("vocabulary", [100, 8_192, 152_064])
def test_no_block_of_logits_grows_with_the_vocabulary(vocabulary):
    assert largest_block(100_000, vocabulary, "cpu") <= losses.CHUNK_ELEMENTS
    assert largest_block(100_000, vocabulary, "cuda") <= losses.GPU_CHUNK_ELEMENTS

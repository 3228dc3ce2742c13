import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.advantages import estimate_advantages, group_advantages, penalise_missing_eos, shape_rewards, whiten

LENGTHS = (5, 3, 1)


def mask_of(lengths=LENGTHS, width=5):
    return torch.arange(width)[None, :] < torch.tensor(lengths)[:, None]


def random_rows(seed, lengths=LENGTHS, width=5):
    return torch.randn(len(lengths), width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(deadline=None)
@given(gamma=st.floats(0, 1), gae_lambda=st.floats(0, 1), seed=st.integers(0, 100))
def test_advantages_are_the_discounted_sum_of_surprises(gamma, gae_lambda, seed):
    rewards, values = random_rows(seed), random_rows(seed + 1)
    advantages, returns = estimate_advantages(rewards, values, mask_of(), gamma=gamma, gae_lambda=gae_lambda)
    for row, length in enumerate(LENGTHS):
        for t in range(length):
            expected = 0.0  # eq. 16 of the paper, term by term
            for later in range(t, length):
                next_value = values[row, later + 1].item() if later + 1 < length else 0.0
                surprise = rewards[row, later].item() + gamma * next_value - values[row, later].item()
                expected += (gamma * gae_lambda) ** (later - t) * surprise
            assert advantages[row, t].item() == pytest.approx(expected, abs=1e-12)
            assert returns[row, t].item() == pytest.approx(expected + values[row, t].item(), abs=1e-12)


def test_with_lambda_1_the_return_is_the_sum_of_later_rewards():
    rewards = torch.tensor([[1.0, 2.0, 4.0]])
    values = torch.tensor([[0.3, -0.7, 0.9]])
    _, returns = estimate_advantages(rewards, values, mask_of((3,), 3), gamma=1.0, gae_lambda=1.0)
    torch.testing.assert_close(returns, torch.tensor([[7.0, 6.0, 4.0]]))


def test_nothing_outside_the_mask_reaches_an_advantage():
    """Seen to fail without the masks of rewards and values."""
    mask = mask_of()
    rewards, values = random_rows(1), random_rows(2)
    clean = estimate_advantages(rewards, values, mask, gamma=0.9, gae_lambda=0.95)
    holed = estimate_advantages(
        rewards.masked_fill(~mask, math.nan), values.masked_fill(~mask, math.nan), mask, gamma=0.9, gae_lambda=0.95
    )
    torch.testing.assert_close(holed, clean)
    assert (holed[0][~mask] == 0).all()


def test_whitened_values_have_mean_0_and_variance_1_over_the_counted_tokens_of_the_whole_batch():
    """✗ torchtune keeps the mean, trlX counts padding. Seen to fail with each of the two."""
    mask = mask_of()
    whitened = whiten((random_rows(3) * 7 + 4).masked_fill(~mask, math.nan), mask)
    counted = whitened[mask].tolist()
    mean = sum(counted) / len(counted)
    assert mean == pytest.approx(0, abs=1e-12)
    assert sum((value - mean) ** 2 for value in counted) / (len(counted) - 1) == pytest.approx(1)
    assert (whitened[~mask] == 0).all()


def test_a_single_token_cannot_be_whitened():
    with pytest.raises(ValueError, match="two tokens"):
        whiten(torch.ones(1, 3), mask_of((1,), 3))


def test_the_score_is_added_at_the_last_token_and_not_after_it():
    """✗ TRL paid it one past EOS. Seen to fail with last + 1."""
    mask = mask_of((3, 1), 4)
    zeros = torch.zeros(2, 4)
    rewards = shape_rewards(torch.tensor([2.0, -1.0]), zeros, zeros, mask, kl_coef=0.5)
    torch.testing.assert_close(rewards, torch.tensor([[0.0, 0.0, 2.0, 0.0], [-1.0, 0.0, 0.0, 0.0]]))


def test_every_token_pays_for_its_distance_from_the_reference_and_is_paid_for_its_return():
    """✗ alpaca_farm clamps the KL at 0. Seen to fail with clamp(min=0) and with abs."""
    logprobs = torch.tensor([[-1.0, -2.0, math.nan]])
    reference = torch.tensor([[-1.5, -1.0, math.nan]])
    rewards = shape_rewards(torch.tensor([3.0]), logprobs, reference, mask_of((2,), 3), kl_coef=0.1)
    # 0.1 * (-1.0 + 1.5) = 0.05 is paid; 0.1 * (-2.0 + 1.0) = -0.1 is received: signed, not clamped
    torch.testing.assert_close(rewards, torch.tensor([[-0.05, 0.1 + 3.0, 0.0]]))


def test_a_completion_without_tokens_has_no_place_for_its_score():
    zeros = torch.zeros(1, 3)
    with pytest.raises(ValueError, match="at least one token"):
        shape_rewards(torch.ones(1), zeros, zeros, mask_of((0,), 3), kl_coef=0.1)


def test_a_cut_off_completion_scores_1_below_its_score_or_the_mean_whichever_is_lower():
    scores = torch.tensor([4.0, 2.0, -3.0, 1.0])  # mean 1
    is_finished = torch.tensor([True, False, False, True])
    torch.testing.assert_close(penalise_missing_eos(scores, is_finished), torch.tensor([4.0, 0.0, -4.0, 1.0]))


@settings(deadline=None)
@given(scores=st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=8), cut_off=st.integers(0, 7))
def test_being_cut_off_never_raises_a_score(scores, cut_off):
    before = torch.tensor(scores)
    is_finished = torch.arange(len(scores)) != cut_off % len(scores)
    after = penalise_missing_eos(before, is_finished)
    assert (after <= before).all()
    torch.testing.assert_close(after[is_finished], before[is_finished])


def test_a_completion_is_as_good_as_it_is_better_than_the_others_of_its_prompt():
    scores = torch.tensor([1.0, 3.0, 5.0, 10.0, 10.0, 4.0], dtype=torch.float64)
    plain = group_advantages(scores, 3, divide_by_std=False)
    torch.testing.assert_close(plain, torch.tensor([-2.0, 0.0, 2.0, 2.0, 2.0, -4.0], dtype=torch.float64))
    divided = group_advantages(scores, 3, divide_by_std=True)
    spreads = [statistics.stdev([1, 3, 5])] * 3 + [statistics.stdev([10, 10, 4])] * 3
    torch.testing.assert_close(divided, plain / torch.tensor(spreads, dtype=torch.float64), rtol=1e-4, atol=0)


@pytest.mark.parametrize("divide_by_std", [True, False])
def test_a_group_of_equal_scores_has_nothing_to_teach(divide_by_std):
    """✗ 0 / 0. Seen to fail without the mask: NaN where nothing is added to the deviation, else the mean's rounding."""
    scores = torch.tensor([0.1] * 7 + [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    advantages = group_advantages(scores, 7, divide_by_std=divide_by_std)
    assert advantages[:7].tolist() == [0.0] * 7
    assert (advantages[7:] != 0).sum() == 6

import math

import pytest
import torch

from trainer.kl import KLController, k1, k3, sequence_kl


def test_both_estimators_average_to_the_divergence_over_all_tokens_of_the_policy():
    policy = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    reference = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    divergence = 0.5 * math.log(0.5 / 0.2) + 0.3 * math.log(0.3 / 0.3) + 0.2 * math.log(0.2 / 0.5)
    for estimator in (k1, k3):
        assert (policy * estimator(policy.log(), reference.log())).sum().item() == pytest.approx(divergence)


def test_k1_keeps_its_sign_and_k3_is_never_negative():
    """✗ alpaca_farm clamps k1 at 0. Seen to fail with clamp(min=0) and with abs."""
    logprobs, reference = torch.tensor([-1.0, -2.0]), torch.tensor([-2.0, -1.0])
    torch.testing.assert_close(k1(logprobs, reference), torch.tensor([1.0, -1.0]))
    assert (k3(logprobs, reference) > 0).all()
    assert k3(logprobs, logprobs).tolist() == [0.0, 0.0]


def test_the_kl_of_a_sequence_is_the_sum_over_its_tokens():
    """✗ OpenRLHF and verl control a mean over tokens. Seen to fail with a mean, and without the mask."""
    mask = torch.tensor([[True, True, False], [True, False, False]])
    tokens = torch.tensor([[0.5, 0.25, math.nan], [2.0, math.nan, math.nan]])
    torch.testing.assert_close(sequence_kl(tokens, mask), torch.tensor([0.75, 2.0]))


def test_a_fixed_coefficient_stays():
    controller = KLController("fixed", coef=0.02, target=6.0)
    controller.update(100.0)
    assert controller.coef == 0.02


@pytest.mark.parametrize(
    ("kl", "factor"),
    [(6.0, 1.0), (6.6, 1.01), (60.0, 1.02), (0.0, 0.98)],  # 0.1 times the relative error, which is clipped at 0.2
)
def test_an_adaptive_coefficient_moves_by_the_clipped_relative_error_of_the_sequence_kl(kl, factor):
    controller = KLController("adaptive", coef=0.5, target=6.0)
    controller.update(kl)
    assert controller.coef == pytest.approx(0.5 * factor)


def test_a_restored_controller_goes_on_where_it_was():
    controller = KLController("adaptive", coef=0.5, target=6.0)
    controller.update(10.0)
    restored = KLController("adaptive", coef=0.5, target=6.0)
    restored.load_state_dict(controller.state_dict())
    controller.update(10.0)
    restored.update(10.0)
    assert restored.coef == controller.coef != 0.5

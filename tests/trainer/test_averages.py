import pytest
import torch

from trainer.averages import WeightAverage
from trainer.policy_updates import Learner


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return torch.nn.Linear(3, 2)


def test_the_average_weighs_earlier_weights_by_powers_of_its_decay(layer):
    seen = [layer.weight.detach().clone()]
    learner = Learner(layer, 0.1, warmup_updates=0, max_gradient_norm=1.0, average=WeightAverage(layer, 0.9))
    for _ in range(3):
        layer(torch.ones(1, 3)).square().sum().backward()
        learner.update()
        seen.append(layer.weight.detach().clone())
    expected = 0.9**3 * seen[0] + 0.1 * (0.9**2 * seen[1] + 0.9 * seen[2] + seen[3])
    torch.testing.assert_close(learner.average.tensors["average.weight"], expected)


def test_an_update_that_was_not_made_does_not_move_the_average(layer):
    average = WeightAverage(layer, 0.5)
    learner = Learner(layer, 0.1, warmup_updates=0, max_gradient_norm=1.0, average=average)
    before = {name: tensor.clone() for name, tensor in average.tensors.items()}
    (layer(torch.ones(1, 3)).sum() * torch.nan).backward()
    learner.update()
    assert all(torch.equal(average.tensors[name], tensor) for name, tensor in before.items())


def test_the_model_has_the_average_for_a_while_and_then_its_own_weights_to_the_bit(layer):
    average = WeightAverage(layer, 0.5)
    start = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.add_(0.123)
    own = layer.weight.detach().clone()
    with average.in_place():
        assert torch.equal(layer.weight, start)
    assert torch.equal(layer.weight, own)
    with pytest.raises(ZeroDivisionError), average.in_place():
        raise ZeroDivisionError
    assert torch.equal(layer.weight, own)


def test_a_restored_average_lies_where_the_model_does(layer):
    """Broken by taking the tensors as they were read, which is on the CPU."""
    average = WeightAverage(layer, 0.5)
    own = dict(average.tensors)
    saved = {name: tensor + 1 for name, tensor in own.items()}
    average.restore(saved)
    for name, tensor in average.tensors.items():
        assert tensor is own[name]
        assert torch.equal(tensor, saved[name])


def test_what_is_frozen_has_no_average(layer):
    layer.weight.requires_grad_(False)
    assert list(WeightAverage(layer, 0.5).tensors) == ["average.bias"]

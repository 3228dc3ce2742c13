import torch

from trainer import fitting


def test_a_step_within_autocast_is_seen_by_the_next_forward(monkeypatch):
    """Broken by autocast's own cache: PPO samples, learns and samples again within one autocast."""
    context = fitting.autocast(torch.device("cpu"))
    monkeypatch.setattr(context, "_enabled", True)  # as it is on a GPU
    layer, inputs = torch.nn.Linear(4, 4, bias=False), torch.ones(2, 4)
    with context:
        assert layer(inputs).abs().sum() > 0
        with torch.no_grad():
            layer.weight.zero_()
        assert layer(inputs).abs().sum() == 0
        assert layer(inputs).dtype == torch.bfloat16

import numpy as np
import pytest
import torch

from trainer.held_out import length_slope


def test_the_slope_is_that_of_a_line_fitted_to_score_and_log_length():
    lengths, scores = torch.tensor([3, 8, 20, 21, 40]), torch.tensor([-1.0, 0.5, 0.2, 1.5, 1.1])
    expected = np.polyfit(np.log(lengths.numpy()), scores.numpy(), 1)[0]
    assert length_slope(scores, lengths) == pytest.approx(expected, rel=1e-5)


def test_completions_of_one_length_have_no_slope():
    assert length_slope(torch.tensor([1.0, 2.0]), torch.tensor([7, 7])) == 0.0

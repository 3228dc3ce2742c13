from types import SimpleNamespace

import numpy as np
import pytest
import torch

from trainer.decoding import SampledCompletion
from trainer.held_out import HeldOut, by_length
from trainer.reward_models import Scored
from trainer.rollouts import gather_rollouts
from trainer.round_folder import JsonLines
from trainer.stopping import length_share


def test_the_slope_is_that_of_a_line_fitted_to_score_and_log_length():
    lengths, scores = torch.tensor([3, 8, 20, 21, 40]), torch.tensor([-1.0, 0.5, 0.2, 1.5, 1.1])
    expected = np.polyfit(np.log(lengths.numpy()), scores.numpy(), 1)[0]
    assert by_length(scores, lengths)["held_out_length_slope"] == pytest.approx(expected, rel=1e-5)


def test_completions_of_one_length_have_no_slope():
    assert by_length(torch.tensor([1.0, 2.0]), torch.tensor([7, 7]))["held_out_length_slope"] == 0.0


def test_where_hardly_any_completion_ended_nothing_is_told_of_length():
    assert by_length(torch.tensor([1.0]), torch.tensor([7])) == {}


def test_completions_that_became_longer_along_the_line_and_no_better_gained_by_length_alone():
    def look(factor):
        lengths = factor * torch.arange(10, 40)
        return by_length(2.0 * lengths.log(), lengths)

    assert length_share(look(3), look(1)) == pytest.approx(1.0, rel=1e-4)


def test_completions_that_became_better_at_every_length_did_not_gain_by_it():
    lengths = torch.arange(10, 40)
    better, start = by_length(2.0 * lengths.log() + 1.0, lengths), by_length(2.0 * lengths.log(), lengths)
    assert length_share(better, start) == pytest.approx(0.0, abs=1e-6)


def test_a_policy_that_learns_to_finish_gained_nothing_by_length(monkeypatch, tmp_path):
    """Cut-off completions are the longest and score low. Seen to fail with a line through all of them."""
    rng = np.random.default_rng(0)

    def look(share_finished):
        is_finished = [place < 200 * share_finished for place in range(200)]
        lengths = [int(rng.integers(10, 40)) if finished else 48 for finished in is_finished]
        scores = torch.tensor([rng.normal() - 2.0 * (not finished) for finished in is_finished])
        completions = [
            SampledCompletion(token_ids=[1] * length, logprobs=[0.0] * length, finish_reason=reason, seed=0)
            for length, reason in zip(lengths, ["stop" if own else "length" for own in is_finished], strict=True)
        ]
        rollouts = gather_rollouts([[1]] * 200, [[completion] for completion in completions])
        monkeypatch.setattr(HeldOut, "sample", lambda self, policy: rollouts)
        scorer = SimpleNamespace(members=[0], measure=lambda *_, **__: Scored(scores, torch.zeros(200)))
        held_out = HeldOut(
            prompts=[], scorer=scorer, reference=None, seed=0, max_completion_tokens=48, micro_batch_tokens=64
        )
        policy = SimpleNamespace(model=SimpleNamespace(device=torch.device("cpu")))
        return held_out.look(policy, JsonLines(tmp_path / "samples.jsonl"), 0)

    start, end = look(0.4), look(0.95)
    assert end["held_out_score"] - start["held_out_score"] > 0.8
    assert (length_share(end, start) or 0.0) < 0.2

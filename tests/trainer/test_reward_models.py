import pytest
import torch

from trainer.models import reward_model_from_policy
from trainer.reward_models import Scorer, combine
from trainer.scoring import score_completions

PROMPTS = [[5, 6, 7], [8, 9]]
COMPLETIONS = [[[10, 11, 1], [12]], [[13, 14, 15, 1]]]


@pytest.fixture
def members(llama_folder):
    return [reward_model_from_policy(llama_folder, seed=seed).model for seed in (1, 2, 3)]


def test_a_members_scores_are_counted_in_units_of_their_own_spread(members):
    measured = Scorer(members, [0.5, 2.0, 4.0]).member_scores(PROMPTS, COMPLETIONS)
    for member, unit, row in zip(members, [0.5, 2.0, 4.0], measured, strict=True):
        torch.testing.assert_close(row, score_completions(member, PROMPTS, COMPLETIONS) / unit)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("mean", [2.0, 0.0]), ("worst", [1.0, -3.0]), ("variance", [2.0 - 0.5 * 2 / 3, 0.0 - 0.5 * 6.0])],
)
def test_an_ensemble_scores_by_its_rule(rule, expected):
    scores = torch.tensor([[1.0, 3.0], [2.0, 0.0], [3.0, -3.0]])  # variances 2/3 and 6
    torch.testing.assert_close(combine(scores, rule, variance_penalty=0.5), torch.tensor(expected))


def test_disagreement_is_the_spread_over_the_members_and_0_for_one_alone(members):
    scored = Scorer(members, [1.0, 1.0, 1.0]).measure(PROMPTS, COMPLETIONS)
    scores = torch.stack([score_completions(member, PROMPTS, COMPLETIONS) for member in members])
    expected = [torch.tensor([*column]).sub(column.mean()).square().mean().sqrt() for column in scores.T]
    torch.testing.assert_close(scored.disagreement, torch.stack(expected))
    assert Scorer(members[:1], [1.0]).measure(PROMPTS, COMPLETIONS).disagreement.eq(0).all()

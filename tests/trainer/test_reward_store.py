import json

import pytest
import torch

from trainer.adapters import AdapterMismatch, LoRA, adapted, with_adapter
from trainer.models import classifier_on, load_policy, reward_model_from_policy, save_model
from trainer.reward_store import FlatScores, Members, load_scorer, open_reward_models, save_members
from trainer.scoring import score_completions

PROMPTS, COMPLETIONS = [[5, 6, 7], [8, 9]], [[[10, 11, 1], [12]], [[13, 14, 15, 1]]]
STDS = [0.5, 2.0, 4.0]


def shaken(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in adapted(model):
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture
def saved(llama_folder, tmp_path):
    """Saves an ensemble on the tiny policy; returns its folder and its members' own scores."""

    def save(num_members):
        policy = load_policy(llama_folder)
        base = classifier_on(policy)
        models = [shaken(with_adapter(base, LoRA(4, 8), seed=n), seed=n) for n in range(num_members)]
        members, folder = Members(models, policy.tokenizer, trunk=policy), tmp_path / "reward"
        save_members(members, folder, source=str(llama_folder))
        described = members.description(str(llama_folder), STDS[:num_members])
        (folder / "result.json").write_text(json.dumps({"score_std": STDS[0], **described}))
        return folder, torch.stack([score_completions(model, PROMPTS, COMPLETIONS) for model in models])

    return save


def num_weights(models):
    return sum({id(p): p.numel() for model in models for p in model.parameters()}.values())


@pytest.mark.parametrize("is_trunk_open", [True, False])
def test_an_ensemble_scores_after_it_was_saved_as_before(saved, llama_folder, is_trunk_open):
    folder, scores = saved(3)
    trunk = load_policy(llama_folder) if is_trunk_open else None
    measured = load_scorer(folder, trunk=trunk).member_scores(PROMPTS, COMPLETIONS)
    torch.testing.assert_close(measured, scores / torch.tensor(STDS)[:, None])


def test_members_sit_on_the_trunk_that_is_open_already(saved, llama_folder):
    folder, _ = saved(3)
    policy = load_policy(llama_folder)
    members = load_scorer(folder, trunk=policy).members
    own = sum(parameter.numel() for model in members for _, parameter in adapted(model))
    assert num_weights([policy.model, *members]) == num_weights([policy.model]) + own


def test_one_member_on_another_trunk_is_opened_as_the_plain_model_that_it_also_is(saved, policy_folder):
    folder, scores = saved(1)
    measured = load_scorer(folder, trunk=load_policy(policy_folder("gpt2"))).member_scores(PROMPTS, COMPLETIONS)
    torch.testing.assert_close(measured, scores / STDS[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("num_members", [1, 2])
@pytest.mark.parametrize("is_trunk_open", [True, False])
def test_a_value_model_starts_as_the_first_member_and_learns_apart_from_it(
    saved, llama_folder, num_members, is_trunk_open
):
    folder, scores = saved(num_members)
    opened = open_reward_models(folder, trunk=load_policy(llama_folder) if is_trunk_open else None)
    value = opened.start_value_model(LoRA(4, 8), seed=9)
    torch.testing.assert_close(score_completions(value, PROMPTS, COMPLETIONS), scores[0], atol=1e-5, rtol=1e-4)
    learning = [parameter for parameter in value.parameters() if parameter.requires_grad]
    assert learning
    with torch.no_grad():
        for parameter in learning:
            parameter.add_(0.1)
    torch.testing.assert_close(
        opened.scorer.member_scores(PROMPTS, COMPLETIONS)[0], scores[0] / STDS[0], atol=1e-5, rtol=1e-4
    )


def test_an_ensemble_whose_trunk_has_other_weights_by_now_is_refused_by_name(saved, llama_folder, tmp_path):
    folder, _ = saved(2)
    policy = load_policy(llama_folder)
    with torch.no_grad():
        next(policy.model.parameters())[0, 0] += 1.0
    save_model(policy.model, policy.tokenizer, tmp_path / "moved")
    described = json.loads((folder / "result.json").read_text())
    described["trunk"]["source"] = str(tmp_path / "moved")
    (folder / "result.json").write_text(json.dumps(described))
    with pytest.raises(AdapterMismatch, match="other weights by now"):
        load_scorer(folder)


def test_a_reward_model_from_elsewhere_is_taken_as_it_is(llama_folder, tmp_path):
    reward = reward_model_from_policy(llama_folder, seed=3)
    save_model(reward.model, reward.tokenizer, tmp_path / "reward")
    measured = load_scorer(tmp_path / "reward").member_scores(PROMPTS, COMPLETIONS)
    torch.testing.assert_close(measured[0], score_completions(reward.model, PROMPTS, COMPLETIONS))


@pytest.mark.parametrize("num_members", [1, 2])
def test_a_reward_model_that_scores_everything_alike_is_refused_by_name(saved, num_members):
    folder, _ = saved(num_members)
    described = json.loads((folder / "result.json").read_text())
    described["score_std"] = described["members"][0]["score_std"] = 0.0
    (folder / "result.json").write_text(json.dumps(described))
    with pytest.raises(FlatScores):
        load_scorer(folder)

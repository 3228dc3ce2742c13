import math
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from trainer.decoding import LocalEngine
from trainer.grpo import Models, update_policy, weigh
from trainer.models import load_policy, load_reward_model, reward_model_from_policy, save_model
from trainer.policy_updates import Learner, plan_epoch, sample_rollouts
from trainer.reward_models import Scored, Scorer
from trainer.settings import GRPOConfig

PROMPTS = [[5, 6], [7, 8, 9, 10, 11], [12], [13, 14, 15]]
WHOLE = [list(range(len(PROMPTS)))]


def grpo_config(**settings):
    base = {"batch_size": 12, "minibatch_size": 12, "samples_per_prompt": 3, "max_completion_tokens": 7}
    return GRPOConfig(**base | {"micro_batch_tokens": 64, "kl_coef": 0.3} | settings)


@pytest.fixture(params=["llama", "gpt2"])
def policy_path(request, policy_folder):
    return policy_folder(request.param)


def moved(model, by, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture
def models(policy_path, tmp_path):
    """The policy has moved a little from its reference, as after some steps."""
    reward = reward_model_from_policy(policy_path, seed=3)
    save_model(reward.model, reward.tokenizer, tmp_path / "reward")
    return Models(
        policy=moved(load_policy(policy_path).model, 0.02, seed=5),
        reference=load_policy(policy_path).model,
        scorer=Scorer([load_reward_model(tmp_path / "reward").model], [0.5]),
    )


@pytest.fixture
def rollouts(models, policy_path):
    engine = LocalEngine(models.policy, load_policy(policy_path).tokenizer)
    return sample_rollouts(engine, PROMPTS, grpo_config(), seed=1, step=1)


def weighed(models, rollouts, **settings):
    config = grpo_config(**settings)
    return weigh(models, rollouts, plan_epoch(rollouts, config, 1, 1, 0), config)


class Gathering(Learner):
    """A learner that keeps its gradients and moves nowhere."""

    def update(self):
        return 0.0

    def gradients(self):
        return {name: parameter.grad.clone() for name, parameter in self.model.named_parameters()}


def gradients_of(models, experience, minibatch, config):
    models.policy.zero_grad()
    learner = Gathering(models.policy, 1e-3, 0, 1.0)
    values = update_policy(learner, experience, minibatch, config)
    return learner.gradients(), values


def assert_alike(ours, expected, tolerance):
    scale = max(gradient.abs().max().item() for gradient in expected.values())
    for name, gradient in ours.items():
        assert (gradient - expected[name]).abs().max().item() <= tolerance * scale, name


@pytest.mark.parametrize("loss_mean", ["tokens", "sequences"])
def test_an_update_follows_the_papers_objective(models, policy_path, rollouts, tmp_path, loss_mean):
    """Equations 3 and 4 on plain Transformers, a completion at a time; the policy has moved since it sampled."""
    config = grpo_config(loss_mean=loss_mean, clip=0.05)
    experience = weighed(models, rollouts)
    moved(models.policy, 0.01, seed=6)
    ours, values = gradients_of(models, experience, [[2], [0, 3], [1]], config)
    models.policy.save_pretrained(tmp_path / "policy")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "policy").eval()
    reference = AutoModelForCausalLM.from_pretrained(policy_path).eval()
    objectives = []
    for row, (g, k) in enumerate((g, k) for g in range(len(PROMPTS)) for k in range(3)):
        prompt, completion = rollouts.prompts[g], rollouts.completions[g][k]
        new, ref = (
            torch.log_softmax(model(torch.tensor([prompt + completion])).logits[0], dim=-1)[
                range(len(prompt) - 1, len(prompt) + len(completion) - 1), completion
            ]
            for model in (plain, reference)
        )
        ratio = torch.exp(new - experience.logprobs[row, : len(completion)])
        advantage = experience.advantages[row, 0]
        clipped = torch.minimum(ratio * advantage, torch.clamp(ratio, 0.95, 1.05) * advantage)
        kl = torch.exp(ref.detach() - new) - (ref.detach() - new) - 1
        objectives.append(clipped - 0.3 * kl)
    mean = torch.cat(objectives).mean() if loss_mean == "tokens" else torch.stack([o.mean() for o in objectives]).mean()
    (-mean).backward()
    assert values["policy_loss"] == pytest.approx(-mean.item(), abs=1e-5)
    assert 0 < values["clip_fraction"] < 1
    assert_alike(ours, {name: parameter.grad for name, parameter in plain.named_parameters()}, 1e-4)


@pytest.mark.parametrize("loss_mean", ["tokens", "sequences"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_the_gradient_does_not_depend_on_how_an_update_is_cut_up(models, rollouts, loss_mean, dtype, tolerance):
    """✗ Means of micro-batches' means weigh tokens 0.5 to 13 times. Seen to fail with a mean over the part's own."""
    experience = weighed(models, rollouts)
    models.policy.to(dtype), models.reference.to(dtype)
    config = grpo_config(loss_mean=loss_mean)
    whole, _ = gradients_of(models, experience, WHOLE, config)
    for cut_up in ([[p] for p in WHOLE[0]], [[3, 1], [0, 2]]):
        assert_alike(gradients_of(models, experience, cut_up, config)[0], whole, tolerance)


def test_nothing_outside_the_mask_reaches_an_update(models, rollouts):
    """Seen to fail with a mean over whole rows, padding among them."""
    experience = weighed(models, rollouts)
    outside = ~rollouts.mask
    names = ("logprobs", "reference_logprobs", "advantages")
    holed = replace(experience, **{name: getattr(experience, name).masked_fill(outside, math.nan) for name in names})
    clean, _ = gradients_of(models, experience, WHOLE, grpo_config())
    with_holes, _ = gradients_of(models, holed, WHOLE, grpo_config())
    assert all(torch.equal(with_holes[name], gradient) for name, gradient in clean.items())


def test_every_token_of_a_completion_has_the_completions_advantage(models, rollouts):
    experience = weighed(models, rollouts, divide_by_std=False, missing_eos="replace", missing_eos_score=-2.0)
    paid = torch.where(rollouts.is_finished, experience.scores, -2.0).view(len(PROMPTS), 3)
    expected = (paid - paid.mean(dim=1, keepdim=True)).view(-1)
    for row, length in enumerate(rollouts.lengths.tolist()):
        torch.testing.assert_close(experience.advantages[row, :length], expected[row].expand(length))
        assert experience.advantages[row, length:].eq(0).all()


def test_where_all_completions_score_alike_only_the_kl_moves_the_policy(models, rollouts, monkeypatch):
    """✗ 0 / 0. Seen to fail (NaN) with nothing added to the deviation and no mask of equal groups."""
    scored = Scored(torch.full((12,), 0.7), torch.zeros(12))
    monkeypatch.setattr(Scorer, "measure", lambda *_, **__: scored)
    alike = replace(rollouts, is_finished=torch.ones(12, dtype=torch.bool))
    experience = weighed(models, alike)
    assert experience.advantages.eq(0).all()
    still, _ = gradients_of(models, experience, WHOLE, grpo_config(kl_coef=0.0))
    assert all(gradient.eq(0).all() for gradient in still.values())
    pulled, _ = gradients_of(models, experience, WHOLE, grpo_config(kl_coef=0.04))
    assert any(gradient.ne(0).any() for gradient in pulled.values())
    assert all(gradient.isfinite().all() for gradient in pulled.values())

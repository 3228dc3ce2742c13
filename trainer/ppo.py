"""One step of PPO: completions are weighed by the four models, and the policy and the value model learn from them.

Knows no files and no schedule of steps: trainer.recipes.ppo is the program. Sources of the details: Ziegler et al. 2019
(arXiv:1909.08593), InstructGPT (arXiv:2203.02155), Huang et al. 2024 (arXiv:2403.17031), and docs where we deviate.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainer import team
from trainer.advantages import estimate_advantages, shape_rewards, whiten
from trainer.losses import accumulation_dtype
from trainer.models import score_weight
from trainer.policy_updates import (
    Experience,
    Learner,
    Minibatch,
    add_policy_gradients,
    by_token,
    clipped_policy_losses,
    final_scores,
    policy_logprobs,
)
from trainer.reward_models import Scorer
from trainer.rollouts import Part, Rollouts
from trainer.settings import PPOConfig
from trainer.sharding import with_whole_weights
from trainer.shared_prompt import PackedSlates, packed_hidden_states
from trainer.side_by_side import side_by_side


@dataclass(frozen=True)
class Models:
    """The four models of PPO."""

    policy: PreTrainedModel
    reference: PreTrainedModel  # frozen: the SFT policy
    scorer: Scorer  # the reward models, frozen
    value: PreTrainedModel  # started from the reward model
    score_std: float  # of the reward model that the value model started from: one unit of score


@dataclass(frozen=True, kw_only=True)
class PPOExperience(Experience):
    """With what the value model said; the advantages are whitened."""

    values: Tensor
    returns: Tensor

    def describe(self) -> dict[str, float]:
        returns = self.returns[self.rollouts.mask]
        error = returns - self.values[self.rollouts.mask]
        return super().describe() | {"explained_variance": 1 - (error.var() / returns.var().clamp(min=1e-8)).item()}


def weigh(
    models: Models, rollouts: Rollouts, plan: Sequence[Minibatch], config: PPOConfig, kl_coef: float
) -> PPOExperience:
    """Scores, probabilities and values of the rollouts, and the advantages that follow from them.

    plan: the first epoch's. Old logprobs and values come from the very forward passes of its updates, micro-batch by
    micro-batch, so that before the first update the ratio is 1 and what differs later is learning.
    """
    (logprobs, reference), (values, scored) = side_by_side(
        models.policy.device,
        lambda: (
            by_token(rollouts, plan, lambda part: policy_logprobs(models.policy, part, config.temperature)),
            by_token(rollouts, plan, lambda part: policy_logprobs(models.reference, part, config.temperature)),
        ),
        lambda: (
            by_token(rollouts, plan, lambda part: token_values(models, part)),
            models.scorer.measure(rollouts.prompts, rollouts.completions, max_tokens=config.micro_batch_tokens),
        ),
    )
    final = final_scores(scored.scores, rollouts.is_finished, config)
    rewards = shape_rewards(final, logprobs, reference, rollouts.mask, kl_coef)
    advantages, returns = estimate_advantages(
        rewards, values, rollouts.mask, gamma=config.gamma, gae_lambda=config.gae_lambda
    )
    return PPOExperience(
        rollouts=rollouts,
        scores=scored.scores,
        disagreement=scored.disagreement,
        logprobs=logprobs,
        reference_logprobs=reference,
        values=values,
        advantages=whiten(advantages, rollouts.mask),
        returns=returns,
    )


def token_values(models: Models, part: Part) -> Tensor:
    """(tokens,) fp32 value before each completion token, in units of score_std as rewards are. With gradients."""
    return packed_values(models.value, part.packed(models.value.device)) / models.score_std


@with_whole_weights
def packed_values(value: PreTrainedModel, packed: PackedSlates) -> Tensor:
    """(tokens,) the value before each completion token, in the model's own units."""
    hidden = packed_hidden_states(value, packed, rows=packed.read_index)[packed.previous_index]
    dtype = accumulation_dtype(hidden.dtype)
    with torch.autocast(hidden.device.type, enabled=False):  # it would round the values to bf16
        return hidden.to(dtype) @ score_weight(value)[0].to(dtype)


def clipped_value_losses(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Half the squared error of each token's value; moving it further than clip from the old one gains nothing."""
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns).square(), (clipped - returns).square())


def update_policy(
    learner: Learner,
    experience: Experience,
    minibatch: Minibatch,
    config: PPOConfig,
    add_other_gradients: Callable[[], dict[str, float]] = dict,
) -> dict[str, float]:
    """One update of the policy. Its loss is a mean over all tokens of the minibatch, however that is cut up.

    add_other_gradients: of what is learned in the same update (PPO-ptx); returns its metrics.
    """
    parts = [experience.rollouts.part(micro_batch) for micro_batch in minibatch]
    num_tokens = sum(part.num_tokens for part in parts)

    def token_losses(part: Part, logprobs: Tensor) -> Tensor:
        old = part.flat(experience.logprobs).to(logprobs.device)
        advantages = part.flat(experience.advantages).to(logprobs.device)
        return clipped_policy_losses(logprobs, old, advantages, config.clip) / num_tokens

    values = add_policy_gradients(learner.model, experience, parts, token_losses, config)
    return values | add_other_gradients() | {"policy_gradient_norm": learner.update()}


def update_value(
    learner: Learner, models: Models, experience: PPOExperience, minibatch: Minibatch, config: PPOConfig
) -> dict[str, float]:
    """One update of the value model, its loss a mean over all tokens of the minibatch."""
    parts = [experience.rollouts.part(micro_batch) for micro_batch in minibatch]
    num_tokens = sum(part.num_tokens for part in parts)
    loss = 0.0
    for part, is_own in team.turns(parts):
        values = token_values(models, part)
        old = part.flat(experience.values).to(values.device)
        returns = part.flat(experience.returns).to(values.device)
        share = is_own * clipped_value_losses(values, old, returns, config.value_clip).sum() / num_tokens
        share.backward()  # type: ignore[no-untyped-call]
        loss += share.item()
    return {"value_loss": team.add_numbers(loss)[0], "value_gradient_norm": learner.update()}

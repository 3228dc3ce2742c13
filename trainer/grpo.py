"""One step of GRPO: a completion is as good as it is better than the others of its prompt (arXiv:2402.03300).

There is no value model, and the KL to the reference policy is in the loss and not in the reward. Knows no files and no
schedule of steps: trainer.recipes.grpo is the program.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainer.advantages import group_advantages
from trainer.kl import k3
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
from trainer.settings import GRPOConfig
from trainer.side_by_side import side_by_side


@dataclass(frozen=True)
class Models:
    """The models of GRPO."""

    policy: PreTrainedModel
    reference: PreTrainedModel  # frozen: the SFT policy
    scorer: Scorer  # the reward models, frozen


def weigh(models: Models, rollouts: Rollouts, plan: Sequence[Minibatch], config: GRPOConfig) -> Experience:
    """Scores and probabilities of the rollouts; each token has its completion's advantage.

    plan: the first epoch's. Old logprobs come from the very forward passes of its updates, micro-batch by micro-batch,
    so that before the first update the ratio is 1.
    """
    logprobs, (reference, scored) = side_by_side(
        models.policy.device,
        lambda: by_token(rollouts, plan, lambda part: policy_logprobs(models.policy, part, config.temperature)),
        lambda: (
            by_token(rollouts, plan, lambda part: policy_logprobs(models.reference, part, config.temperature)),
            models.scorer.measure(rollouts.prompts, rollouts.completions, max_tokens=config.micro_batch_tokens),
        ),
    )
    final = final_scores(scored.scores, rollouts.is_finished, config)
    advantages = group_advantages(final, rollouts.num_samples, divide_by_std=config.divide_by_std)
    return Experience(
        rollouts=rollouts,
        scores=scored.scores,
        disagreement=scored.disagreement,
        logprobs=logprobs,
        reference_logprobs=reference,
        advantages=advantages[:, None] * rollouts.mask,
    )


def update_policy(
    learner: Learner, experience: Experience, minibatch: Minibatch, config: GRPOConfig
) -> dict[str, float]:
    """One update: the clipped objective and kl_coef times the KL to the reference, k3 (arXiv:2402.03300, eq. 3 and 4).

    The loss is a mean over all tokens of the minibatch, or over its completions, however it is cut up.
    """
    parts = [experience.rollouts.part(micro_batch) for micro_batch in minibatch]

    def token_losses(part: Part, logprobs: Tensor) -> Tensor:
        of_token = (experience.logprobs, experience.reference_logprobs, experience.advantages)
        old, reference, advantages = (part.flat(values).to(logprobs.device) for values in of_token)
        losses = clipped_policy_losses(logprobs, old, advantages, config.clip)
        return (losses + config.kl_coef * k3(logprobs, reference)) * token_weights(part, parts, config).to(losses)

    values = add_policy_gradients(learner.model, experience, parts, token_losses, config)
    return values | {"policy_gradient_norm": learner.update()}


def token_weights(part: Part, parts: Sequence[Part], config: GRPOConfig) -> Tensor:
    """(tokens,) what each token of a part counts for in the mean over all parts of a minibatch."""
    if config.loss_mean == "tokens":
        return torch.full((part.num_tokens,), 1 / sum(each.num_tokens for each in parts))
    lengths = part.mask.sum(dim=1)
    return (1 / lengths / sum(len(each.rows) for each in parts)).repeat_interleave(lengths)

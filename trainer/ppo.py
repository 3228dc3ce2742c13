"""One step of PPO: completions are weighed by the four models, and the policy and the value model learn from them.

Knows no files and no schedule of steps: trainer.recipes.ppo is the program. Sources of the details: Ziegler et al. 2019
(arXiv:1909.08593), InstructGPT (arXiv:2203.02155), Huang et al. 2024 (arXiv:2403.17031), and docs where we deviate.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainer.advantages import estimate_advantages, penalise_missing_eos, shape_rewards, whiten
from trainer.decoding import LocalEngine, SampleRequest
from trainer.errors import StageError
from trainer.kl import k3
from trainer.models import score_weight
from trainer.reward_models import Scorer
from trainer.rollouts import Part, Rollouts, gather_rollouts
from trainer.scoring import micro_batches, packed_logprobs
from trainer.settings import PPOConfig
from trainer.shared_prompt import packed_hidden_states
from trainer.side_by_side import side_by_side

ADAM_BETAS, ADAM_EPS = (0.9, 0.95), 1e-5  # InstructGPT, C.4; eps: arXiv:2403.17031
RATIO_TOLERANCE = {
    torch.float32: 1e-5,
    torch.bfloat16: 1e-2,
}  # of the epoch-0 identity, by what the forward computes in

Minibatch = list[list[int]]  # micro-batches of prompts


class RatioNotOne(StageError):
    """Before a step's first update the policy is the old one, yet probabilities differ: it would learn from noise."""

    code = "ratio_not_one"

    def __init__(self, error: float) -> None:
        super().__init__(
            f"before the first update of a step the probability ratio is off 1 by {error:.2g}",
            advice="report this with the stage's folder: the same completions were read in two ways",
        )


@dataclass(frozen=True)
class Models:
    """The four models of PPO."""

    policy: PreTrainedModel
    reference: PreTrainedModel  # frozen: where the policy started
    scorer: Scorer  # the reward models, frozen
    value: PreTrainedModel  # started from the reward model
    score_std: float  # of the reward model that the value model started from: one unit of score


@dataclass(frozen=True)
class Experience:
    """What a step learns from: its rollouts and, a token each, (B, T) fp32 numbers that updates leave as they are."""

    rollouts: Rollouts
    scores: Tensor  # (B,) in units of score_std, before the rule on missing EOS
    logprobs: Tensor
    reference_logprobs: Tensor
    values: Tensor
    advantages: Tensor  # whitened
    returns: Tensor


@dataclass
class Learner:
    """A model and its optimiser; the learning rate rises from 0 and stays."""

    model: PreTrainedModel
    learning_rate: float
    warmup_updates: int
    max_gradient_norm: float
    num_updates: int = 0
    optimizer: torch.optim.AdamW = field(init=False)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), betas=ADAM_BETAS, eps=ADAM_EPS, weight_decay=0.0, fused=True
        )

    def update(self) -> float:
        """One step from the gathered gradients. Returns their norm before clipping; one not finite changes nothing."""
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.max_gradient_norm)
        if bool(torch.isfinite(norm)):
            self.num_updates += 1
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate * min(1.0, self.num_updates / max(1, self.warmup_updates))
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(norm)


def draw_seed(*key: str | int) -> int:
    """The seed of one draw, 0 to 2^63 - 1: a hash of what the draw is for, so that nothing needs to be remembered."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8]) >> 1


def shuffled(count: int, *key: str | int) -> list[int]:
    """0 to count - 1 in the order drawn for the key."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(draw_seed(*key))).tolist()


def sample_rollouts(
    engine: LocalEngine, prompts: Sequence[list[int]], config: PPOConfig, seed: int, step: int
) -> Rollouts:
    """The step's completions, n of each prompt: a function of the policy, the stage's seed and the step."""
    requests = [
        SampleRequest(
            prompt_ids=prompt,
            seeds=[draw_seed("rollout", seed, step, number, k) for k in range(config.samples_per_prompt)],
            temperature=config.temperature,
            top_p=config.top_p,
            max_completion_tokens=config.max_completion_tokens,
        )
        for number, prompt in enumerate(prompts)
    ]
    return gather_rollouts(prompts, engine.sample(requests))


def plan_epoch(rollouts: Rollouts, config: PPOConfig, seed: int, step: int, epoch: int) -> list[Minibatch]:
    """The minibatches of one pass over the rollouts, in an order drawn for it; a prompt's completions stay together."""
    order = shuffled(len(rollouts.prompts), "minibatches", seed, step, epoch)
    costs = rollouts.num_tokens_of_prompts()
    size = config.minibatch_size // config.samples_per_prompt
    minibatches = [order[start : start + size] for start in range(0, len(order), size)]
    return [
        [[prompts[i] for i in run] for run in micro_batches([costs[p] for p in prompts], config.micro_batch_tokens)]
        for prompts in minibatches
    ]


def weigh(
    models: Models, rollouts: Rollouts, plan: Sequence[Minibatch], config: PPOConfig, kl_coef: float
) -> Experience:
    """Scores, probabilities and values of the rollouts, and the advantages that follow from them.

    plan: the first epoch's. Old logprobs and values come from the very forward passes of its updates, micro-batch by
    micro-batch, so that before the first update the ratio is 1 and what differs later is learning.
    """
    (logprobs, reference), (values, scores) = side_by_side(
        models.policy.device,
        lambda: (
            by_token(rollouts, plan, lambda part: policy_logprobs(models.policy, part, config.temperature)),
            by_token(rollouts, plan, lambda part: policy_logprobs(models.reference, part, config.temperature)),
        ),
        lambda: (
            by_token(rollouts, plan, lambda part: token_values(models, part)),
            score_rollouts(models, rollouts, config),
        ),
    )
    final = final_scores(scores, rollouts.is_finished, config)
    rewards = shape_rewards(final, logprobs, reference, rollouts.mask, kl_coef)
    advantages, returns = estimate_advantages(
        rewards, values, rollouts.mask, gamma=config.gamma, gae_lambda=config.gae_lambda
    )
    return Experience(
        rollouts=rollouts,
        scores=scores,
        logprobs=logprobs,
        reference_logprobs=reference,
        values=values,
        advantages=whiten(advantages, rollouts.mask),
        returns=returns,
    )


@torch.no_grad()
def by_token(rollouts: Rollouts, plan: Sequence[Minibatch], measure: Callable[[Part], Tensor]) -> Tensor:
    """(B, T) fp32 of what `measure` gives for each part of the plan, (tokens,); 0 outside the mask."""
    result = torch.zeros(rollouts.mask.shape)
    for minibatch in plan:
        for micro_batch in minibatch:
            part = rollouts.part(micro_batch)
            rows = torch.zeros(part.mask.shape)
            result[part.rows] = rows.masked_scatter(part.mask, measure(part).float().cpu())
    return result


def policy_logprobs(policy: PreTrainedModel, part: Part, temperature: float) -> Tensor:
    """(tokens,) fp32 nats of each completion token at the sampling temperature. With gradients."""
    return packed_logprobs(policy, part.packed(policy.device), temperature=temperature)


def token_values(models: Models, part: Part) -> Tensor:
    """(tokens,) fp32 value before each completion token, in units of score_std as rewards are. With gradients."""
    packed = part.packed(models.value.device)
    hidden = packed_hidden_states(models.value, packed)[packed.previous_index]
    values = hidden @ score_weight(models.value)[0]
    return (values.float() if values.dtype == torch.bfloat16 else values) / models.score_std


def score_rollouts(models: Models, rollouts: Rollouts, config: PPOConfig) -> Tensor:
    """(B,) score of each completion, in units of its spread on the reference policy's completions."""
    return models.scorer.measure(rollouts.prompts, rollouts.completions, max_tokens=config.micro_batch_tokens).scores


def final_scores(scores: Tensor, is_finished: Tensor, config: PPOConfig) -> Tensor:
    """(B,) what is paid at the last token: the scores after the rule on completions that were cut off."""
    if config.missing_eos == "replace":
        return torch.where(is_finished, scores, config.missing_eos_score)
    return penalise_missing_eos(scores, is_finished)


def clipped_policy_losses(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """Loss of each token (arXiv:1707.06347, eq. 7). Any shape."""
    ratio = torch.exp(logprobs - old_logprobs)
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def clipped_value_losses(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Half the squared error of each token's value; moving it further than clip from the old one gains nothing."""
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns).square(), (clipped - returns).square())


def update_policy(
    learner: Learner, experience: Experience, minibatch: Minibatch, config: PPOConfig
) -> dict[str, float]:
    """One update of the policy. Its loss is a mean over all tokens of the minibatch, however that is cut up."""
    parts = [experience.rollouts.part(micro_batch) for micro_batch in minibatch]
    num_tokens = sum(part.num_tokens for part in parts)
    loss, clipped, moved, largest = 0.0, 0.0, 0.0, 0.0
    for part in parts:
        logprobs = policy_logprobs(learner.model, part, config.temperature)
        old = part.flat(experience.logprobs).to(logprobs.device)
        advantages = part.flat(experience.advantages).to(logprobs.device)
        share = clipped_policy_losses(logprobs, old, advantages, config.clip).sum() / num_tokens
        share.backward()  # type: ignore[no-untyped-call]
        new = logprobs.detach()
        distance = (torch.exp(new - old) - 1).abs()  # of the ratio from 1
        loss += share.item()
        clipped += (distance > config.clip).sum().item() / num_tokens
        moved += k3(old, new).sum().item() / num_tokens
        largest = max(largest, distance.max().item())
    return {
        "policy_loss": loss,
        "clip_fraction": clipped,
        "approx_kl": moved,
        "ratio_error": largest,
        "policy_gradient_norm": learner.update(),
    }


def update_value(
    learner: Learner, models: Models, experience: Experience, minibatch: Minibatch, config: PPOConfig
) -> dict[str, float]:
    """One update of the value model, its loss a mean over all tokens of the minibatch."""
    parts = [experience.rollouts.part(micro_batch) for micro_batch in minibatch]
    num_tokens = sum(part.num_tokens for part in parts)
    loss = 0.0
    for part in parts:
        values = token_values(models, part)
        old = part.flat(experience.values).to(values.device)
        returns = part.flat(experience.returns).to(values.device)
        share = clipped_value_losses(values, old, returns, config.value_clip).sum() / num_tokens
        share.backward()  # type: ignore[no-untyped-call]
        loss += share.item()
    return {"value_loss": loss, "value_gradient_norm": learner.update()}

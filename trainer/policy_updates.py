"""What every policy gradient here shares: rollouts drawn and read, the clipped objective, one update of a learner.

Knows no files, no schedule of steps, and not where advantages come from: trainer.ppo and trainer.grpo do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainer import team
from trainer.advantages import penalise_missing_eos
from trainer.averages import WeightAverage
from trainer.checkpoints import learned_parameters, require_finite
from trainer.decoding import Engine, SampleRequest, sample_together
from trainer.draws import draw_seed, shuffled
from trainer.errors import StageError
from trainer.kl import k1, k3, sequence_kl
from trainer.parts import clip_gradients
from trainer.rollouts import Part, Rollouts, gather_rollouts
from trainer.scoring import micro_batches, packed_logprobs
from trainer.settings import PolicyConfig

ADAM_BETAS, ADAM_EPS = (0.9, 0.95), 1e-5  # InstructGPT, C.4; eps: arXiv:2403.17031
RATIO_TOLERANCE = {
    torch.float32: 1e-5,
    torch.bfloat16: 1e-2,
}  # of the epoch-0 identity, by what the forward computes in

Minibatch = list[list[int]]  # micro-batches of prompts
TokenLosses = Callable[[Part, Tensor], Tensor]  # (part, its logprobs) -> (tokens,); a minibatch's sum is its loss


class RatioNotOne(StageError):
    """Before a step's first update the policy is the old one, yet probabilities differ: it would learn from noise."""

    code = "ratio_not_one"

    def __init__(self, error: float) -> None:
        super().__init__(
            f"before the first update of a step the probability ratio is off 1 by {error:.2g}",
            advice="report this with the stage's folder: the same completions were read in two ways",
        )


@dataclass(frozen=True, kw_only=True)
class Experience:
    """What a step learns from: its rollouts and, a token each, (B, T) fp32 numbers that updates leave as they are."""

    rollouts: Rollouts
    scores: Tensor  # (B,) in units of the reference policy's spread, before the rule on missing EOS
    disagreement: Tensor  # (B,) standard deviation over the reward models; 0 for one alone
    logprobs: Tensor
    reference_logprobs: Tensor
    advantages: Tensor

    def describe(self) -> dict[str, float]:
        """The step's figures, over its completions (score, kl, length, …) or over all their tokens."""
        rollouts, mask = self.rollouts, self.rollouts.mask
        gaps = (rollouts.sampler_logprobs - self.logprobs)[mask].abs()
        gaps = gaps[~gaps.isnan()]  # of those that the sampler told
        return {
            "score": self.scores.mean().item(),
            **({"disagreement": self.disagreement.mean().item()} if self.disagreement.any() else {}),
            "kl": sequence_kl(k1(self.logprobs, self.reference_logprobs), mask).mean().item(),
            "kl_k3": sequence_kl(k3(self.logprobs, self.reference_logprobs), mask).mean().item(),
            "entropy": -self.logprobs[mask].mean().item(),  # estimated by the tokens drawn
            "completion_tokens": rollouts.lengths.float().mean().item(),
            "eos_rate": rollouts.is_finished.float().mean().item(),
            **({"sampler_gap": gaps.mean().item()} if len(gaps) else {}),
        }


@dataclass
class Learner:
    """A model and its optimiser; the learning rate rises from 0 and stays."""

    model: PreTrainedModel
    learning_rate: float
    warmup_updates: int
    max_gradient_norm: float
    average: WeightAverage | None = None  # of the model's weights
    num_updates: int = 0
    optimizer: torch.optim.AdamW = field(init=False)

    def __post_init__(self) -> None:
        self.parameters = [parameter for _, parameter in learned_parameters(self.model)]
        self.optimizer = torch.optim.AdamW(
            self.parameters, betas=ADAM_BETAS, eps=ADAM_EPS, weight_decay=0.0, fused=True
        )

    def update(self) -> float:
        """One step from the gathered gradients. Returns their norm before clipping; one not finite changes nothing."""
        team.add_gradients(self.parameters)
        norm = clip_gradients(self.parameters, self.max_gradient_norm)
        if bool(torch.isfinite(norm)):
            self.num_updates += 1
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate * min(1.0, self.num_updates / max(1, self.warmup_updates))
            self.optimizer.step()
            if self.average is not None:
                self.average.update()
        self.optimizer.zero_grad(set_to_none=True)
        return float(norm)


def sample_rollouts(
    engine: Engine, prompts: Sequence[list[int]], config: PolicyConfig, seed: int, step: int
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
    return gather_rollouts(prompts, sample_together(engine, requests))


def plan_epoch(rollouts: Rollouts, config: PolicyConfig, seed: int, step: int, epoch: int) -> list[Minibatch]:
    """The minibatches of one pass over the rollouts, in an order drawn for it; a prompt's completions stay together."""
    order = shuffled(len(rollouts.prompts), "minibatches", seed, step, epoch)
    costs = rollouts.num_tokens_of_prompts()
    size = config.minibatch_size // config.samples_per_prompt
    minibatches = [order[start : start + size] for start in range(0, len(order), size)]
    return [
        [[prompts[i] for i in run] for run in micro_batches([costs[p] for p in prompts], config.micro_batch_tokens)]
        for prompts in minibatches
    ]


@torch.no_grad()
def by_token(rollouts: Rollouts, plan: Sequence[Minibatch], measure: Callable[[Part], Tensor]) -> Tensor:
    """(B, T) fp32 of what `measure` gives for each part of the plan, (tokens,); 0 outside the mask."""
    result = torch.zeros(rollouts.mask.shape)
    parts = parts_of(rollouts, plan)
    measured = team.each(parts, lambda part: measure(part).float().cpu())
    for part, values in zip(parts, measured, strict=True):
        result[part.rows] = torch.zeros(part.mask.shape).masked_scatter(part.mask, values)
    return result


def parts_of(rollouts: Rollouts, plan: Sequence[Minibatch]) -> list[Part]:
    return [rollouts.part(micro_batch) for minibatch in plan for micro_batch in minibatch]


def policy_logprobs(policy: PreTrainedModel, part: Part, temperature: float) -> Tensor:
    """(tokens,) fp32 nats of each completion token at the sampling temperature. With gradients."""
    return packed_logprobs(policy, part.packed(policy.device), temperature=temperature)


def final_scores(scores: Tensor, is_finished: Tensor, config: PolicyConfig) -> Tensor:
    """(B,) what is paid for each completion: the scores after the rule on completions that were cut off."""
    if config.missing_eos == "replace":
        return torch.where(is_finished, scores, config.missing_eos_score)
    return penalise_missing_eos(scores, is_finished)


def clipped_policy_losses(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """Loss of each token (arXiv:1707.06347, eq. 7). Any shape."""
    ratio = torch.exp(logprobs - old_logprobs)
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def add_policy_gradients(
    policy: PreTrainedModel,
    experience: Experience,
    parts: Sequence[Part],
    token_losses: TokenLosses,
    config: PolicyConfig,
) -> dict[str, float]:
    """Add the gradient of one minibatch's loss to the policy's. parts: the minibatch, as it is computed.

    Returns policy_loss, clip_fraction, approx_kl (nats a token, k3 to the policy that sampled) and ratio_error, the
    largest distance of a probability ratio from 1.
    """
    num_tokens = sum(part.num_tokens for part in parts)
    sums = torch.zeros(3, dtype=torch.float64, device=policy.device)  # read once an update: a GPU would wait each time
    farthest = torch.zeros((), dtype=torch.float64, device=policy.device)
    for part, is_own in team.turns(parts):
        logprobs = policy_logprobs(policy, part, config.temperature)
        share = is_own * token_losses(part, logprobs).sum()
        share.backward()  # type: ignore[no-untyped-call]
        new, old = logprobs.detach(), part.flat(experience.logprobs).to(logprobs.device)
        distance = (torch.exp(new - old) - 1).abs()
        sums += is_own * torch.stack([share.detach(), (distance > config.clip).sum(), k3(old, new).sum()])
        farthest = torch.maximum(farthest, distance.max())
    loss, clipped, moved = team.add_numbers(*sums.tolist())
    largest = max(team.collect([farthest.item()]))
    return {
        "policy_loss": loss,
        "clip_fraction": clipped / num_tokens,
        "approx_kl": moved / num_tokens,
        "ratio_error": largest,
    }


def learn_policy(
    learner: Learner,
    experience: Experience,
    plans: Sequence[Sequence[Minibatch]],
    update: Callable[[Minibatch, int], dict[str, float]],
    config: PolicyConfig,
    *,
    step: int,
    checks_whole_batch: bool,
) -> dict[str, float]:
    """All updates of the policy in one step: their mean metrics, and ratio_error before the first, where it must be 0.

    plans: of each epoch.  update: (minibatch, its number in the step) -> the update's metrics.
    checks_whole_batch: the first minibatch is checked in every step, by the forward pass of its own update. The others
    are updated after it, so their check is a forward pass more, about a tenth of a step's work: not for every step.
    Raises RatioNotOne, NotFinite.
    """
    device, ratio_error = learner.model.device, 0.0
    if checks_whole_batch:
        ratio_error = largest_ratio_error(learner.model, experience, plans[0], config)
        check_ratio(ratio_error, device)
    seen: list[dict[str, float]] = []
    for number, minibatch in enumerate(minibatch for plan in plans for minibatch in plan):
        seen.append(update(minibatch, number))
        if number == 0:
            ratio_error = max(ratio_error, seen[0]["ratio_error"])
            check_ratio(ratio_error, device)
        require_finite(step, **seen[-1])
    return mean_metrics(seen) | {"ratio_error": ratio_error}


def mean_metrics(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each metric over updates."""
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def largest_ratio_error(
    policy: PreTrainedModel, experience: Experience, plan: Sequence[Minibatch], config: PolicyConfig
) -> float:
    """How far any token's probability ratio is from 1, over the whole batch; with gradients on, as an update reads it.

    Before a step's first update it must be 0. Then no ratio is clipped and the approximate KL is 0 too.
    """

    def error(part: Part) -> float:
        new = policy_logprobs(policy, part, config.temperature).detach()
        old = part.flat(experience.logprobs).to(new.device)
        return (torch.exp(new - old) - 1).abs().max().item()

    return max(team.each(parts_of(experience.rollouts, plan), error))


def check_ratio(error: float, device: torch.device) -> None:
    """Raises RatioNotOne: before the first update of a step the new policy must give the old one's probabilities."""
    computes_in = torch.bfloat16 if device.type == "cuda" else torch.float32
    if error > RATIO_TOLERANCE[computes_in]:  # a NaN is not: require_finite names it
        raise RatioNotOne(error)

"""From scores to what PPO learns from: rewards, advantages, returns. Pure functions of tensors; knows no model.

Everything is (B, T): B completions, T completion tokens, padded on the right. A mask is True where a token counts, and
what stands outside it (it may be NaN) reaches no result. A completion is one episode, each of its tokens an action.
"""

import torch
from torch import Tensor


def penalise_missing_eos(scores: Tensor, is_finished: Tensor) -> Tensor:
    """The scores, where a completion that was cut off gets min(its score, the batch's mean score) - 1.

    scores: (B,) float.  is_finished: (B,) bool, the completion ended with a stop token.
    Truncation never raises a score. InstructGPT's successors replace it by -1 (arXiv:2403.17031), which rewards
    cutting off a bad answer.
    """
    return torch.where(is_finished, scores, torch.minimum(scores, scores.mean()) - 1.0)


def shape_rewards(scores: Tensor, logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """Reward of each token: minus the KL penalty, plus the score on the last token (Ziegler et al. 2019, eq. 2).

    scores: (B,).  logprobs, reference_logprobs: (B, T).  mask: (B, T), at least one True a row.
    The KL estimate is k1, log pi - log pi_ref, signed: taking its absolute value or clamping it biases the objective.
    The last token is the completion's EOS where it finished, and not the position after it.
    """
    log_ratio = (logprobs - reference_logprobs).masked_fill(~mask, 0.0)
    rewards = -kl_coef * log_ratio
    last = last_token_index(mask)
    return rewards.scatter_add(1, last[:, None], scores.to(rewards.dtype)[:, None])


def last_token_index(mask: Tensor) -> Tensor:
    """Index of each row's last counted token. mask: (B, T). Returns (B,) int. Raises ValueError for an empty row."""
    if not bool(mask.any(dim=1).all()):
        raise ValueError("every completion must have at least one token")
    positions = torch.arange(mask.shape[1], device=mask.device)
    return torch.where(mask, positions, -1).amax(dim=1)


def estimate_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates (arXiv:1506.02438, eq. 16) and the returns they imply: (B, T), 0 off the mask.

    rewards, values: (B, T); values[t] is the value of the state *before* token t.
    The episode ends at the last token, cut off or not: nothing is bootstrapped from beyond the limit.
    """
    rewards = rewards.masked_fill(~mask, 0.0)
    values = values.masked_fill(~mask, 0.0)
    advantages = torch.zeros_like(rewards)
    next_value = torch.zeros_like(rewards[:, 0])
    running = torch.zeros_like(next_value)
    for t in range(rewards.shape[1] - 1, -1, -1):
        surprise = rewards[:, t] + gamma * next_value - values[:, t]
        running = torch.where(mask[:, t], surprise + gamma * gae_lambda * running, 0.0)
        next_value = values[:, t]
        advantages[:, t] = running
    return advantages, advantages + values


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """The values shifted and scaled to mean 0 and variance 1 over all counted tokens of the batch, 0 outside the mask.

    The variance is the unbiased one. Raises ValueError with fewer than two counted tokens, where it does not exist.
    """
    count = mask.sum()
    if count < 2:
        raise ValueError("whitening needs at least two tokens")
    values = values.masked_fill(~mask, 0.0)
    mean = values.sum() / count
    centred = (values - mean).masked_fill(~mask, 0.0)
    variance = centred.square().sum() / (count - 1)
    return centred * torch.rsqrt(variance + 1e-8)


def group_advantages(scores: Tensor, group_size: int, *, divide_by_std: bool) -> Tensor:
    """(B,) how much better each completion is than the others of its prompt (GRPO, arXiv:2402.03300, 4.1.2).

    scores: (B,), a prompt's completions side by side, group_size of them.
    The score minus its group's mean, divided by the group's standard deviation (unbiased) where asked for. A group of
    equal scores has nothing to teach: its advantages are 0, not the rounding error of its mean, and not 0 / 0.
    """
    groups = scores.view(-1, group_size)
    advantages = groups - groups.mean(dim=1, keepdim=True)
    if divide_by_std:
        advantages = advantages / (groups.std(dim=1, keepdim=True) + 1e-4)  # scores that hardly differ are noise
    is_equal = groups.amax(dim=1, keepdim=True) == groups.amin(dim=1, keepdim=True)
    return advantages.masked_fill(is_equal, 0.0).view(-1)

"""How far the policy has moved from the reference, and the coefficient that holds it. Pure; knows no model.

Everything is in nats. A policy's KL is per *sequence*: summed over a completion's tokens, averaged over completions.
Estimators by John Schulman (joschu.net/blog/kl-approx.html): with r = pi_ref / pi, k1 = -log r, k3 = r - 1 - log r.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


def k1(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """log pi - log pi_ref of each sampled token: unbiased, signed, never clamped. Any shape."""
    return logprobs - reference_logprobs


def k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """r - 1 - log r of each sampled token: unbiased, never negative, less noisy near the reference. Any shape."""
    log_ratio = reference_logprobs - logprobs
    return torch.expm1(log_ratio) - log_ratio


def sequence_kl(token_kl: Tensor, mask: Tensor) -> Tensor:
    """Sum of the token estimates over each completion, in nats. token_kl, mask: (B, T). Returns (B,)."""
    return token_kl.masked_fill(~mask, 0.0).sum(dim=1)


@dataclass
class KLController:
    """The KL coefficient: fixed, or adapted towards a target (Ziegler et al. 2019, arXiv:1909.08593, section 2.2).

    target is in nats per sequence. After each PPO step: coef *= 1 + 0.1 * clip(kl / target - 1, -0.2, 0.2).
    """

    kind: Literal["fixed", "adaptive"]
    coef: float
    target: float

    def update(self, mean_sequence_kl: float) -> None:
        if self.kind == "adaptive":
            error = min(max(mean_sequence_kl / self.target - 1.0, -0.2), 0.2)
            self.coef *= 1.0 + 0.1 * error

    def state_dict(self) -> dict[str, float]:
        return {"coef": self.coef}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.coef = state["coef"]

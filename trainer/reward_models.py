"""Reward models that judge together: one, or an ensemble of adapters on one trunk (arXiv:2310.02743).

A member's scores are in units of their spread on the reference policy's completions, as the reward stage measured it,
so that members count alike whatever their scale. Knows no recipe.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainer.scoring import MICRO_BATCH_TOKENS, Completions, Prompts, score_completions

EnsembleRule = Literal["mean", "worst", "variance"]


@dataclass(frozen=True)
class Scored:
    """What the members make of M completions, in the order prompt, completion; fp32, on the CPU."""

    scores: Tensor  # (M,) what counts, by the ensemble's rule
    disagreement: Tensor  # (M,) standard deviation over the members; 0 for one alone


@dataclass(frozen=True)
class Scorer:
    """One or several reward models and the rule by which they become one score."""

    members: Sequence[PreTrainedModel]
    score_stds: Sequence[float]  # of each member: one unit of its scores
    rule: EnsembleRule = "mean"
    variance_penalty: float = 0.0  # of the rule "variance"

    def measure(self, prompts: Prompts, completions: Completions, *, max_tokens: int = MICRO_BATCH_TOKENS) -> Scored:
        """prompts: token ids.  completions: for each prompt its completions' ids.  max_tokens: computed at once."""
        members = self.member_scores(prompts, completions, max_tokens=max_tokens)
        return Scored(combine(members, self.rule, self.variance_penalty), members.var(dim=0, correction=0).sqrt())

    def member_scores(
        self, prompts: Prompts, completions: Completions, *, max_tokens: int = MICRO_BATCH_TOKENS
    ) -> Tensor:
        """(members, M) fp32 on the CPU: each member's scores, in units of its own spread."""
        rows = [
            score_completions(member, prompts, completions, max_tokens=max_tokens).float().cpu() / score_std
            for member, score_std in zip(self.members, self.score_stds, strict=True)
        ]
        return torch.stack(rows)


def combine(scores: Tensor, rule: EnsembleRule, variance_penalty: float = 0.0) -> Tensor:
    """(M,) the members' mean, the worst, or mean - penalty * variance (arXiv:2310.02743, section 3).

    scores: (members, M). The variance is over the members, divided by their number.
    """
    if rule == "worst":
        return scores.amin(dim=0)
    if rule == "variance":
        return scores.mean(dim=0) - variance_penalty * scores.var(dim=0, correction=0)
    return scores.mean(dim=0)

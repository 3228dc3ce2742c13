"""What to ask next: of the slates that were sampled, those on whose order an ensemble of reward models disagrees.

Christiano et al. 2017 (arXiv:1706.03741, 2.2.4) ask about the pairs whose predicted preference varies most over the
ensemble. Their own ablation found it worse in some tasks: a share is therefore drawn at random and marked as such, so
that what asking does to the labels can be measured. Pure; knows no model and no database.
"""

import random
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

AskedBy = Literal["disagreement", "random"]


def disagreement(scores: Tensor) -> float:
    """Mean over the pairs of a slate of the variance, over members, of P(i is better than j) = sigma(s_i - s_j).

    scores: (members, K) in the scale they were fitted in.  From 0, all members agree, to 1/4.
    """
    first, second = torch.triu_indices(scores.shape[1], scores.shape[1], offset=1)
    preferred = torch.sigmoid(scores[:, first] - scores[:, second])  # (members, pairs)
    return preferred.var(dim=0, correction=0).mean().item()


def choose(
    disagreements: Sequence[float], count: int, *, disagreement_share: float, rng: random.Random
) -> dict[int, AskedBy]:
    """Which of the candidates to ask, and why each: index -> how it was chosen.

    Each of the `count` places is given by disagreement with that probability, else at random. The random ones are
    drawn first, from all candidates, so that they are a fair sample of what could have been asked.
    """
    by: list[AskedBy] = ["disagreement" if rng.random() < disagreement_share else "random" for _ in range(count)]
    drawn = rng.sample(range(len(disagreements)), by.count("random"))
    rest = sorted(set(range(len(disagreements))) - set(drawn), key=lambda i: (-disagreements[i], i))
    chosen: dict[int, AskedBy] = dict.fromkeys(drawn, "random")
    return chosen | dict.fromkeys(rest[: by.count("disagreement")], "disagreement")

"""The choice of a token: read off the inverse of the cumulative distribution, by a number drawn for it beforehand.

So a completion depends on its own numbers alone, whatever is decoded beside it. Pure functions of tensors.
"""

import torch
from torch import Tensor


def draws_of(seed: int, count: int) -> Tensor:
    """(count,) float64 in [0, 1), one completion's, one a token. From the CPU, so that every device samples alike."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, generator=generator, dtype=torch.float64)


def choose_tokens(
    logits: Tensor,
    draws: Tensor,
    temperature: Tensor,
    top_p: Tensor,
    *,
    any_greedy: bool = True,
    any_cut: bool = True,
) -> tuple[Tensor, Tensor]:
    """The token that each row's draw falls on, and its logprob at the row's temperature before the top-p cut.

    logits: (R, V).  draws: (R,) float64, uniform in [0, 1).  temperature: (R,), 0 is greedy.  top_p: (R,) in (0, 1].
    any_greedy, any_cut: False where it is known that no temperature is 0, or no top_p below 1, which saves the work.
    The draw is laid over the cumulative distribution in the vocabulary's order, in float64: two runs whose logits
    differ in the last bit part only where a draw falls into that bit.
    """
    is_greedy = temperature == 0
    logprobs = torch.log_softmax(logits.float() / torch.where(is_greedy, 1.0, temperature)[:, None], dim=-1)
    probabilities = logprobs.exp()
    if any_cut:
        probabilities = torch.where(nucleus(probabilities, top_p), probabilities, 0.0)
    cumulative = probabilities.cumsum(dim=-1, dtype=torch.float64)
    total = cumulative[:, -1]
    target = torch.minimum(draws * total, torch.nextafter(total, torch.zeros_like(total)))
    chosen = torch.searchsorted(cumulative, target[:, None], right=True)[:, 0].clamp(max=logits.shape[1] - 1)
    if any_greedy:
        chosen = torch.where(is_greedy, logits.argmax(dim=-1), chosen)
    return chosen, logprobs.gather(1, chosen[:, None])[:, 0]


def nucleus(probabilities: Tensor, top_p: Tensor) -> Tensor:
    """True for the fewest most probable tokens whose mass reaches top_p (arXiv:1904.09751). (R, V) bool."""
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    mass_before = ordered.cumsum(dim=-1) - ordered
    kept = mass_before < top_p[:, None]
    kept |= (top_p >= 1)[:, None]  # rounding must not cut the tail of a row that asked for all of it
    return torch.zeros_like(kept).scatter(1, order, kept)

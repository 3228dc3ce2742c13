"""The losses and what they are made of: pure functions of tensors. Knows no model, no file, no database.

Token losses are sums over tokens divided by the optimiser step's *global* token count, so that a step's gradient is the
same however it is cut into micro-batches.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

VOCABULARY_STEP = 8_192
CHUNK_ELEMENTS = 4_194_304  # logits held at once, 16 MB in fp32: larger chunks were not faster on two CPU cores


def kwise_loss(
    scores: Tensor,
    ranks: Tensor,
    *,
    margins: Tensor | None = None,
    label_weights: Tensor | None = None,
    total_weight: float | None = None,
    ties: Literal["skip", "half"] = "skip",
    picks: Tensor | None = None,
) -> Tensor:
    """Mean negative log likelihood of the comparisons implied by each ranking, in nats.

    scores: (B, K) float.  ranks: (B, K) int, 1 is best, equal ranks are ties, 0 is padding.
    margins: (B,) by how much the better completion should win (Llama 2, arXiv:2307.09288, 3.2.2).
    label_weights: (B,) what each ranking counts for, 1 if None.  total_weight: of the whole optimiser step, when this
    is one micro-batch of it.  ties: "half" counts a tie as half a comparison each way; "skip" leaves it out.
    picks: (B,) bool, where one was picked and the others, of equal rank, were not compared: those are no ties.
    Each ranking weighs the same whatever its K (InstructGPT, arXiv:2203.02155, eq. 1).
    Raises ValueError if a ranking implies no comparison: its mean would be 0/0.
    """
    counted = ranks > 0  # (B, K)
    both = counted[:, :, None] & counted[:, None, :]  # (B, K, K)
    better = both & (ranks[:, :, None] < ranks[:, None, :])
    shares = better.to(scores.dtype)
    if ties == "half":
        tied = both & (ranks[:, :, None] == ranks[:, None, :]) & ~torch.eye(ranks.shape[1], dtype=torch.bool).to(both)
        if picks is not None:
            tied = tied & ~picks[:, None, None]
        shares = shares + 0.5 * tied
    num_comparisons = shares.sum(dim=(1, 2))  # (B,)
    if (num_comparisons == 0).any():
        raise ValueError("every ranking must place at least one completion above another")
    scores = scores.masked_fill(~counted, 0.0)  # before any arithmetic: padding may hold NaN, and NaN * 0 is NaN
    leads = scores[:, :, None] - scores[:, None, :]  # (B, K, K): by how much row beats column
    if margins is not None:
        leads = leads - margins[:, None, None] * better  # a tie has no strength
    losses = (-F.logsigmoid(leads) * shares).sum(dim=(1, 2)) / num_comparisons  # (B,)
    weights = torch.ones_like(losses) if label_weights is None else label_weights
    return (losses * weights).sum() / (weights.sum() if total_weight is None else total_weight)


def token_logprobs(
    hidden: Tensor,
    output_weight: Tensor,
    token_ids: Tensor,
    *,
    output_bias: Tensor | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """(T,) fp32 log probability of each token, in nats, without ever holding (T, V) logits.

    hidden: (T, D) the state that writes each token.  output_weight: (V, D).  output_bias: (V,).  token_ids: (T,) int64.
    temperature divides the logits. Memory does not grow with V; gradients flow to hidden, weight and bias.
    """
    if output_bias is None:
        output_bias = output_weight.new_zeros(output_weight.shape[0])
    with torch.autocast(hidden.device.type, enabled=False):  # it would round the logits to bf16
        logprobs: Tensor = ChunkedLogprobs.apply(hidden, output_weight, output_bias, token_ids, temperature)  # type: ignore[no-untyped-call]
    return logprobs


class ChunkedLogprobs(torch.autograd.Function):
    """Log-softmax and gather over chunks of tokens and of vocabulary; the backward pass computes the logits again."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, token_ids: Tensor, temperature: float
    ) -> Tensor:
        logprobs = torch.empty(hidden.shape[0], dtype=accumulation_dtype(hidden), device=hidden.device)
        normalisers = torch.empty_like(logprobs)  # log of the sum over the vocabulary
        for tokens, vocabulary_slices in chunks(hidden.shape[0], weight.shape[0]):
            rows = hidden[tokens]
            normaliser = torch.full_like(logprobs[tokens], -torch.inf)
            chosen = torch.zeros_like(normaliser)
            for vocabulary in vocabulary_slices:
                logits = logits_of(rows, weight[vocabulary], bias[vocabulary], temperature)  # (t, v)
                normaliser = torch.logaddexp(normaliser, logits.logsumexp(dim=1))
                local, inside = local_ids(token_ids[tokens], vocabulary)
                chosen += logits.gather(1, local[:, None])[:, 0].masked_fill(~inside, 0.0)
            normalisers[tokens] = normaliser
            logprobs[tokens] = chosen - normaliser
        ctx.save_for_backward(hidden, weight, bias, token_ids, normalisers)
        ctx.temperature = temperature
        return logprobs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        hidden, weight, bias, token_ids, normalisers = ctx.saved_tensors
        outer = (gradients[0] / ctx.temperature)[:, None]  # (T, 1)
        grad_hidden = torch.zeros_like(hidden, dtype=normalisers.dtype)
        grad_weight = torch.zeros_like(weight, dtype=normalisers.dtype)
        grad_bias = torch.zeros_like(bias, dtype=normalisers.dtype)
        for tokens, vocabulary_slices in chunks(hidden.shape[0], weight.shape[0]):
            rows = hidden[tokens].to(normalisers.dtype)
            for vocabulary in vocabulary_slices:
                matrix = weight[vocabulary].to(normalisers.dtype)
                logits = logits_of(rows, matrix, bias[vocabulary], ctx.temperature)
                # d logprob / d logits = onehot(token) - softmax
                grad_logits = logits.sub_(normalisers[tokens, None]).exp_().neg_()
                local, inside = local_ids(token_ids[tokens], vocabulary)
                grad_logits.scatter_add_(1, local[:, None], inside[:, None].to(grad_logits.dtype))
                grad_logits.mul_(outer[tokens])
                grad_hidden[tokens] += grad_logits @ matrix
                grad_weight[vocabulary] += grad_logits.T @ rows
                grad_bias[vocabulary] += grad_logits.sum(dim=0)
        return grad_hidden.to(hidden.dtype), grad_weight.to(weight.dtype), grad_bias.to(bias.dtype), None, None


def accumulation_dtype(values: Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)


def chunks(num_tokens: int, vocabulary_size: int) -> list[tuple[slice, list[slice]]]:
    """Slices of tokens, each with the slices of the vocabulary, such that no block exceeds CHUNK_ELEMENTS."""
    vocabulary_step = min(vocabulary_size, VOCABULARY_STEP)
    token_step = CHUNK_ELEMENTS // vocabulary_step
    vocabulary = [
        slice(v, min(v + vocabulary_step, vocabulary_size)) for v in range(0, vocabulary_size, vocabulary_step)
    ]
    return [(slice(t, min(t + token_step, num_tokens)), vocabulary) for t in range(0, num_tokens, token_step)]


def logits_of(rows: Tensor, weight: Tensor, bias: Tensor, temperature: float) -> Tensor:
    """(t, v) logits in at least fp32: in bf16 they would be rounded to steps of 0.06 near 10."""
    dtype = accumulation_dtype(rows)
    return torch.addmm(bias.to(dtype), rows.to(dtype), weight.to(dtype).T).div_(temperature)


def local_ids(token_ids: Tensor, vocabulary: slice) -> tuple[Tensor, Tensor]:
    """Token ids relative to a slice of the vocabulary (clamped into it), and whether they lie inside."""
    inside = (token_ids >= vocabulary.start) & (token_ids < vocabulary.stop)
    return (token_ids - vocabulary.start).clamp(0, vocabulary.stop - vocabulary.start - 1), inside

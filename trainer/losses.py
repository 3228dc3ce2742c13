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
GPU_VOCABULARY_STEP = 32_768
GPU_CHUNK_ELEMENTS = 67_108_864  # 256 MB: small products would leave a GPU waiting for its launches


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
    temperature divides the logits. Memory does not grow with V, but for the gradient of an output weight that learns.
    Under autocast the factors of matrix products are rounded to its type; the logits themselves stay in fp32.
    """
    device = hidden.device.type
    factors = torch.promote_types(hidden.dtype, output_weight.dtype)
    if torch.is_autocast_enabled(device):
        factors = torch.get_autocast_dtype(device)
    with torch.autocast(device, enabled=False):  # it would round the logits to bf16
        logprobs: Tensor = ChunkedLogprobs.apply(  # type: ignore[no-untyped-call]
            hidden, output_weight, output_bias, token_ids, temperature, factors
        )
    return logprobs


class ChunkedLogprobs(torch.autograd.Function):
    """Log-softmax and gather over chunks of tokens and of vocabulary; the backward pass computes the logits again.

    Gradients that nobody asks for (a frozen output layer, as under LoRA) are neither computed nor given room.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        token_ids: Tensor,
        temperature: float,
        factors: torch.dtype,
    ) -> Tensor:
        logprobs = torch.zeros(hidden.shape[0], dtype=accumulation_dtype(factors), device=hidden.device)
        normalisers = torch.full_like(logprobs, -torch.inf)  # log of the sum over the vocabulary
        for vocabulary, token_slices in chunks(hidden.shape[0], weight.shape[0], hidden.device):
            matrix, offset = weight[vocabulary].to(factors), part_of(bias, vocabulary)
            for tokens in token_slices:
                logits = logits_of(hidden[tokens].to(factors), matrix, offset, temperature)  # (t, v)
                normalisers[tokens] = torch.logaddexp(normalisers[tokens], logits.logsumexp(dim=1))
                local, inside = local_ids(token_ids[tokens], vocabulary)
                logprobs[tokens] += logits.gather(1, local[:, None])[:, 0].masked_fill(~inside, 0.0)
        logprobs -= normalisers
        ctx.save_for_backward(hidden, weight, bias, token_ids, normalisers)
        ctx.temperature, ctx.factors = temperature, factors
        return logprobs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, token_ids, normalisers = ctx.saved_tensors
        for_hidden, for_weight, for_bias = ctx.needs_input_grad[:3]
        outer = (gradients[0] / ctx.temperature)[:, None]  # (T, 1)
        grad_hidden = torch.zeros_like(hidden, dtype=normalisers.dtype) if for_hidden else None
        grad_weight = torch.empty_like(weight) if for_weight else None
        grad_bias = torch.empty_like(bias) if for_bias else None
        for vocabulary, token_slices in chunks(hidden.shape[0], weight.shape[0], hidden.device):
            matrix, offset = weight[vocabulary].to(ctx.factors), part_of(bias, vocabulary)
            weight_part = torch.zeros_like(matrix, dtype=normalisers.dtype) if for_weight else None
            bias_part = torch.zeros_like(matrix[:, 0], dtype=normalisers.dtype) if for_bias else None
            for tokens in token_slices:
                rows = hidden[tokens].to(ctx.factors)
                # d logprob / d logits = onehot(token) - softmax
                logits = logits_of(rows, matrix, offset, ctx.temperature)
                grad_logits = logits.sub_(normalisers[tokens, None]).exp_().neg_()
                local, inside = local_ids(token_ids[tokens], vocabulary)
                grad_logits.scatter_add_(1, local[:, None], inside[:, None].to(grad_logits.dtype))
                grad_logits.mul_(outer[tokens])
                if bias_part is not None:
                    bias_part += grad_logits.sum(dim=0)
                grad_logits = grad_logits.to(ctx.factors)
                if grad_hidden is not None:
                    grad_hidden[tokens] += product(grad_logits, matrix)
                if weight_part is not None:
                    weight_part += product(grad_logits.T, rows)
            if grad_weight is not None and weight_part is not None:
                grad_weight[vocabulary] = weight_part
            if grad_bias is not None and bias_part is not None:
                grad_bias[vocabulary] = bias_part
        in_type = None if grad_hidden is None else grad_hidden.to(hidden.dtype)
        return in_type, grad_weight, grad_bias, None, None, None


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def chunks(num_tokens: int, vocabulary_size: int, device: torch.device) -> list[tuple[slice, list[slice]]]:
    """Slices of the vocabulary, each with the slices of tokens, such that no block exceeds the device's limit."""
    is_cpu = device.type == "cpu"
    vocabulary_step = min(vocabulary_size, VOCABULARY_STEP if is_cpu else GPU_VOCABULARY_STEP)
    token_step = max(1, (CHUNK_ELEMENTS if is_cpu else GPU_CHUNK_ELEMENTS) // vocabulary_step)
    tokens = [slice(t, min(t + token_step, num_tokens)) for t in range(0, num_tokens, token_step)]
    starts = range(0, vocabulary_size, vocabulary_step)
    return [(slice(v, min(v + vocabulary_step, vocabulary_size)), tokens) for v in starts]


def part_of(bias: Tensor | None, vocabulary: slice) -> Tensor | None:
    return None if bias is None else bias[vocabulary]


def logits_of(rows: Tensor, matrix: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    """(t, v) logits in at least fp32: in bf16 they would be rounded to steps of 0.06 near 10."""
    logits = product(rows, matrix.T)
    if bias is not None:
        logits += bias
    return logits if temperature == 1.0 else logits.div_(temperature)


def product(left: Tensor, right: Tensor) -> Tensor:
    """The matrix product in at least fp32, whatever its factors are stored in. A GPU's bf16 units sum in fp32 too."""
    wide = accumulation_dtype(left.dtype)
    if left.dtype == wide:
        return left @ right
    if left.is_cuda:
        return torch.mm(left, right, out_dtype=wide)
    return left.to(wide) @ right.to(wide)


def local_ids(token_ids: Tensor, vocabulary: slice) -> tuple[Tensor, Tensor]:
    """Token ids relative to a slice of the vocabulary (clamped into it), and whether they lie inside."""
    inside = (token_ids >= vocabulary.start) & (token_ids < vocabulary.stop)
    return (token_ids - vocabulary.start).clamp(0, vocabulary.stop - vocabulary.start - 1), inside

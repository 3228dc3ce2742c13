"""RMS norms of Llama, Qwen and their kin on a CPU: a few passes over memory where Transformers' own take a dozen.

The gradient is that of layer norm about a mean of zero, for which torch has one kernel, and a correction of rank one:
layer norm also takes the mean off its gradient. What is kept for it are the states, which the layer keeps anyway, and
one number a token. Knows no model but by its norms.
"""

from functools import lru_cache
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn


class RMSNorm(torch.autograd.Function):
    """x / sqrt(mean(x²) + eps) * weight, over the last dimension (arXiv:1910.07467, eq. 4)."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, eps: float) -> Tensor:
        """states: (..., D) in fp32 or fp64.  weight: (D,) of the same type."""
        normalised, scale = normalised_by_size(states, weight, eps)
        ctx.save_for_backward(states, weight, scale)
        return normalised

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        states, weight, scale = ctx.saved_tensors
        upstream, width = gradients[0], states.shape[-1]
        mask = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], False]
        for_states, for_weight, _ = torch.ops.aten.native_layer_norm_backward(
            upstream, states, [width], torch.zeros_like(scale), scale, weight, None, mask
        )
        if for_states is not None:
            for_states.add_(scale * (upstream @ weight)[..., None], alpha=1 / width)
        return for_states, for_weight, None


def normalised_by_size(states: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """What the norm computes, and (..., 1) by what it multiplies the states for that."""
    norm = torch.linalg.vector_norm(states, dim=-1, keepdim=True)
    scale = norm.square_().div_(states.shape[-1]).add_(eps).rsqrt_()
    return (states * scale).mul_(weight), scale


def fuse_norms(model: nn.Module) -> None:
    """From now on the model's RMS norms are computed so, where that is what they compute."""
    for module in model.modules():
        kind: Any = type(module)
        if kind.__name__.endswith("RMSNorm") and is_plain(kind):
            module.forward = MethodType(normalise, module)


@lru_cache
def is_plain(kind: Any) -> bool:
    """Whether such norms multiply by their weight and nothing else: Gemma's, for one, multiply by 1 + weight."""
    try:
        norm: Any = kind(4, eps=0.5)
        norm.weight.data = torch.tensor([1.0, 2.0, 3.0, 4.0])
        found = norm(torch.tensor([1.0, -1.0, 3.0, 1.0]))  # whose squares have mean 3
        return norm.variance_epsilon == 0.5 and torch.allclose(found, torch.tensor([1.0, -2.0, 9.0, 4.0]) / 3.5**0.5)
    except (TypeError, AttributeError):  # made in another way, or of other parts
        return False


def normalise(norm: Any, states: Tensor) -> Tensor:
    """What the norm computes. In other types than fp32 and fp64, and on a GPU, it casts and computes as it did."""
    weight: Tensor = norm.weight
    if (
        states.device.type != "cpu"
        or states.dtype != weight.dtype
        or states.dtype not in (torch.float32, torch.float64)
    ):
        unchanged: Tensor = type(norm).forward(norm, states)
        return unchanged
    if not torch.is_grad_enabled():  # decoding calls it for a row or two, where recording costs as much as computing
        return normalised_by_size(states, weight, norm.variance_epsilon)[0]
    normalised: Tensor = RMSNorm.apply(states, weight, norm.variance_epsilon)  # type: ignore[no-untyped-call]
    return normalised

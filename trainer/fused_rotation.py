"""Rotary positions of Llama, Qwen and their kin on a CPU: two passes over memory where Transformers' own take five.

Attention finds the function that rotates among its module's names. A model's attention is given a forward of the same
code that finds ours there; the library's own, and every other model, stay as they are.
"""

from collections.abc import Callable
from functools import lru_cache
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

NAME = "apply_rotary_pos_emb"  # in Transformers
Rotate = Callable[..., tuple[Tensor, Tensor]]  # (query, key, cos, sin, unsqueeze_dim) -> both, rotated


class Rotation(torch.autograd.Function):
    """Each pair (x_i, x_{i + D/2}) turned by its token's angle (arXiv:2104.09864, eq. 34; halves for neighbours)."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """states: (..., D).  cos, sin: the same number of dimensions, broadcast; the angles of both halves."""
        ctx.save_for_backward(cos, sin)
        return turned(states, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return turned(gradients[0], cos, sin, -1), None, None


def turned(states: Tensor, cos: Tensor, sin: Tensor, direction: int) -> Tensor:
    """direction: 1, or -1 for the way back, which is the gradient's."""
    first, second = states.chunk(2, dim=-1)
    rotated = states * cos
    of_first, of_second = rotated.chunk(2, dim=-1)
    sin_first, sin_second = sin.chunk(2, dim=-1)
    of_first.addcmul_(second, sin_first, value=-direction)
    of_second.addcmul_(first, sin_second, value=direction)
    return rotated


def fuse_rotation(model: nn.Module) -> None:
    """From now on the model's attention rotates so, where that is what its own function computes."""
    for module in model.modules():
        forward: Any = type(module).forward
        if NAME in getattr(forward, "__globals__", {}) and NAME in forward.__code__.co_names:
            theirs = forward.__globals__[NAME]
            if rotates_halves(theirs):
                module.forward = MethodType(with_own_rotation(forward), module)


@lru_cache
def with_own_rotation(forward: Any) -> FunctionType:
    """The same code, which finds our function under the name of the library's."""
    names = {**forward.__globals__, NAME: own_rotation(forward.__globals__[NAME])}
    own = FunctionType(forward.__code__, names, forward.__name__, forward.__defaults__, forward.__closure__)
    own.__kwdefaults__ = forward.__kwdefaults__
    return own


def own_rotation(theirs: Rotate) -> Rotate:
    def rotate(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> tuple[Tensor, Tensor]:
        is_whole = cos.shape[-1] == query.shape[-1]  # some models turn a part of each vector
        is_exact = query.dtype == cos.dtype and query.dtype in (torch.float32, torch.float64)  # bf16 rounds in between
        if query.device.type != "cpu" or not is_whole or not is_exact:
            return theirs(query, key, cos, sin, unsqueeze_dim)
        cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
        if not torch.is_grad_enabled():  # as in decoding, where recording costs as much as computing
            return turned(query, cos, sin, 1), turned(key, cos, sin, 1)
        rotated: Any = [Rotation.apply(states, cos, sin) for states in (query, key)]  # type: ignore[no-untyped-call]
        return rotated[0], rotated[1]

    return rotate


@lru_cache
def rotates_halves(theirs: Rotate) -> bool:
    """Whether the library's function turns the first half of a vector against its second; others turn neighbours."""
    query = torch.arange(1.0, 9.0).reshape(1, 1, 1, 8)
    angles = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.1, 0.2, 0.3, 0.4]).reshape(1, 1, 8)
    expected = query * angles.cos() + torch.cat([-query[..., 4:], query[..., :4]], dim=-1) * angles.sin()
    try:
        found = theirs(query, 2 * query, angles.cos(), angles.sin())
        return torch.allclose(found[0], expected) and torch.allclose(found[1], 2 * expected)
    except (TypeError, RuntimeError, AttributeError):  # takes other arguments or shapes
        return False

"""Tensors of which each process holds a part (torch's DTensor), and whole ones: from one to the other.

What is no such part passes through untouched, so the same code serves models that are sharded and models that are not.
Where parts are read whole, all processes do it together. Knows no model (trainer.sharding does).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


def is_part(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")  # DTensor's own; its package is imported only where there are parts


def whole(tensor: Tensor) -> Tensor:
    """All of it, in every process, on its device."""
    all_of_it: Tensor = tensor.full_tensor() if is_part(tensor) else tensor  # type: ignore[attr-defined]
    return all_of_it


def divided_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """A whole tensor, of which each process keeps the part that it has of the parameter; on the parameter's device."""
    if not is_part(parameter) or is_part(tensor):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = parameter.device_mesh, parameter.placements  # type: ignore[attr-defined]
    return distribute_tensor(tensor.to(parameter.device), mesh, placements, src_data_rank=None)  # all have the same


def gathered(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """All of them whole; parts are brought to the host's memory, one after another. keep: False where nobody asks."""
    result = {}
    for name, tensor in tensors.items():
        all_of_it = whole(tensor.detach())
        if keep:
            result[name] = all_of_it.cpu() if is_part(tensor) else all_of_it
    return result


def clip_gradients(parameters: Sequence[nn.Parameter], max_norm: float) -> Tensor:
    """Scale the gradients down to a norm over all of them, wherever they are. Returns what it was."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = whole(torch.nn.utils.get_total_norm(gradients))
    torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm

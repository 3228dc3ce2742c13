"""Weights divided over the processes of a stage: torch's FSDP2 (`torch.distributed.fsdp.fully_shard`).

Each process holds a part of every tensor that is sharded, of its gradient, and so of its optimiser state and of every
copy. The weights of a layer are gathered when it is computed and let go after; gradients are added up as they come, and
each process keeps its part. All processes compute a sharded model together, equally often (trainer.team.turns).
"""

import copy
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from trainer import team
from trainer.errors import StageError
from trainer.parts import whole

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Model = TypeVar("Model", bound=PreTrainedModel)

COMPUTE = "compute_with_whole_weights"  # the method of a sharded model that FSDP takes for its forward

_skeletons: WeakKeyDictionary[nn.Module, PreTrainedModel] = WeakKeyDictionary()  # without weights
_twins: WeakKeyDictionary[nn.Module, PreTrainedModel] = WeakKeyDictionary()


class CannotShard(StageError):
    """Nobody knows which of the model's modules are its layers, so it would be gathered whole."""

    code = "cannot_shard"

    def __init__(self, architecture: str) -> None:
        super().__init__(
            f"the weights of {architecture} cannot be divided: Transformers does not say what its layers are",
            advice="set shard_weights=false, which holds all weights in each process",
        )


def shard(model: Model, device: str) -> Model:
    """The model itself, each process keeping its part of it on the device; wherever it was before. Raises CannotShard.

    The layers are gathered one by one; embedding, output layer and head are together, for as long as the pass lasts.
    """
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise CannotShard(type(model).__name__)
    _skeletons[model] = without_weights(model)
    for module in (*layers, model):
        fully_shard(module, mesh=mesh_of_all(device), reshard_after_forward=True)
        assert isinstance(module, FSDPModule)
        module.set_force_sum_reduction_for_comms(True)
        module.set_gradient_divide_factor(1.0)  # a sum and no mean: each process has its share of one batch's loss

    def compute(function: Callable[..., Result], *arguments: Any, **keywords: Any) -> Result:
        return function(model, *arguments, **keywords)

    setattr(model, COMPUTE, compute)
    register_fsdp_forward_method(model, COMPUTE)
    return model


@cache
def mesh_of_all(device: str) -> Any:
    """All processes in one row."""
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh(device, (team.size(),))


def is_sharded(model: nn.Module) -> bool:
    return model in _skeletons


def with_whole_weights(
    function: Callable[Concatenate[PreTrainedModel, Arguments], Result],
) -> Callable[Concatenate[PreTrainedModel, Arguments], Result]:
    """Marks a function of a model that computes something from it: of a sharded one all weights it reads are gathered.

    What it returns must be a tensor or hold tensors in tuples, lists or dictionaries: gradients start there.
    """

    @wraps(function)
    def computed(model: PreTrainedModel, /, *arguments: Arguments.args, **keywords: Arguments.kwargs) -> Result:
        if not is_sharded(model):
            return function(model, *arguments, **keywords)
        result: Result = getattr(model, COMPUTE)(function, *arguments, **keywords)
        return result

    return computed


def without_weights(model: Model) -> Model:
    """A copy of the model whose parameters have shapes and no content; buffers are copied."""
    empty = {
        id(parameter): nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
        for parameter in model.parameters()
    }
    return copy.deepcopy(model, empty)


@torch.no_grad()
def whole_twin(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """A sharded model's copy with all weights, as they are now: what each process decodes from at its own pace.

    dtype: of what the model holds in fp32. Of each model there is one, which is written anew at every call.
    All processes call it together.
    """
    if model not in _twins:
        skeleton = _skeletons[model]
        rounds = model.dtype == torch.float32
        real = {
            id(parameter): nn.Parameter(
                torch.empty_like(parameter, device=model.device, dtype=dtype if rounds else parameter.dtype),
                requires_grad=False,
            )
            for parameter in skeleton.parameters()
        }
        _twins[model] = copy.deepcopy(skeleton, real).to(model.device)
    twin = _twins[model]
    for copied, parameter in zip(twin.parameters(), model.parameters(), strict=True):
        copied.copy_(whole(parameter))
    return twin

"""The last layer, computed only for the tokens whose states are read.

Nobody reads what a prompt's tokens become in the last layer: losses read the states before completion tokens, scores
those at their ends. Of the others only keys and values matter there. So the last layer's output matrix of attention
and its feed-forward part are computed for the rows that are read and are zero elsewhere, forward and backward. With
prompts four times as long as completions that saves a tenth of the work of a model of six layers.
"""

import threading
from types import MethodType
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

# What works row by row after attention: in Llama, Qwen and their kin; GPT-2; OPT. Of other families all is computed.
AFTER_ATTENTION = (("self_attn.o_proj", "mlp"), ("attn.c_proj", "mlp"), ("self_attn.out_proj", "fc1", "fc2"))


class Reading(threading.local):
    """Which rows are read of what this thread computes. Attention says it, and what comes after it in a layer asks.

    A thread's own, because models that share their leaves learn side by side; said in each layer, because gradient
    checkpointing computes a layer again when its forward pass is long over.
    """

    rows: Tensor | None = None  # (R,) int64, each once; None: all


reading = Reading()


def is_last_layer(attention: nn.Module) -> bool:
    config: Any = attention.config
    return bool(attention.layer_idx == config.num_hidden_layers - 1)


def compute_what_is_read(model: PreTrainedModel) -> None:
    """From now on the model's last layer asks which rows are read. Says nothing twice."""
    layer = last_layer(model)
    for names in AFTER_ATTENTION:
        parts = [part_of(layer, name) for name in names]
        if None in parts:
            continue
        for part in parts:
            assert part is not None
            part.forward = MethodType(last_for_read_rows if part is parts[-1] else for_read_rows, part)
        return


def last_layer(model: PreTrainedModel) -> nn.Module | None:
    num_layers = model.config.num_hidden_layers
    lists = (module for module in model.base_model.modules() if isinstance(module, nn.ModuleList))
    return next((modules[-1] for modules in lists if len(modules) == num_layers), None)


def part_of(layer: nn.Module | None, name: str) -> nn.Module | None:
    part = layer
    for attribute in name.split("."):
        part = getattr(part, attribute, None)
    return part


def for_read_rows(module: nn.Module, states: Tensor) -> Tensor:
    """What the module makes of the rows that are read, and zeros in the place of others. states: (..., N, D)."""
    compute, rows = type(module).forward, reading.rows
    if rows is None:
        computed: Tensor = compute(module, states)
        return computed
    computed = compute(module, states.index_select(-2, rows))
    spread = computed.new_zeros(*states.shape[:-1], computed.shape[-1])
    return spread.index_copy(-2, rows, computed)


def last_for_read_rows(module: nn.Module, states: Tensor) -> Tensor:
    """The same, and the layer is done: what this thread computes next is another row."""
    try:
        return for_read_rows(module, states)
    finally:
        reading.rows = None

"""How fast a step was: tokens a second, memory, and the share of what the machine can multiply (MFU).

The operations counted are those that the algorithm needs, whatever was computed beside them: recomputed layers, padding
and masked attention count nothing (PaLM, arXiv:2204.02311, appendix B). A prompt counts once for all its completions.
"""

import time
from collections.abc import Sequence
from functools import lru_cache

import torch
from transformers import PreTrainedModel

from trainer import team
from trainer.adapters import has_adapter
from trainer.memory import ModelShape, shape_of
from trainer.resident import peak_resident_mb

MATRIX_SIDE = {"cpu": 512, "cuda": 8192}  # of the product that measures the rate: some milliseconds
NUM_PRODUCTS = 5


def operations_of(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[Sequence[int]]]
) -> tuple[int, float]:
    """Tokens that one forward pass over prompts with their completions reads, and its floating-point operations."""
    tokens, pairs = 0, 0
    for prompt, own in zip(prompts, completions, strict=True):
        tokens += len(prompt) + sum(len(completion) for completion in own)
        pairs += len(prompt) * (len(prompt) + 1) // 2
        pairs += sum(len(ids) * len(prompt) + len(ids) * (len(ids) + 1) // 2 for ids in own)
    return tokens, forward_operations(shape_of(model.config.get_text_config()), tokens, pairs)


def forward_operations(shape: ModelShape, num_tokens: int, num_pairs: int) -> float:
    """Two for each matrix element and token; four a layer for each number of a query that looks at a key.

    num_pairs: of a query with a key that it sees. The output layer counts as a matrix, the embedding does not.
    """
    matrices = shape.num_layers * shape.layer_parameters + shape.vocabulary * shape.width
    attention = 4 * shape.num_layers * shape.num_heads * shape.head_width
    return 2.0 * matrices * num_tokens + attention * num_pairs


def learning_passes(model: PreTrainedModel) -> int:
    """What learning costs in forward passes: with gradients of states and weights 3, of states alone (LoRA) 2."""
    return 2 if has_adapter(model) else 3


def throughput(tokens: int, operations: float, seconds: float, device: torch.device) -> dict[str, float]:
    """The metrics of a step, over all processes of the stage. Memory is this process's, at its peak."""
    values = {
        "tokens_per_s": tokens / seconds,
        "mfu": operations / seconds / (team.size() * rate_of(device)),
        "memory_mb": peak_resident_mb(),
    }
    if device.type == "cuda":
        values["device_memory_mb"] = torch.cuda.max_memory_allocated(device) / 2**20
    return values


def rate_of(device: torch.device) -> float:
    """Operations a second that this process can do at most; measured at the first call."""
    return matrix_rate(device.type, torch.get_num_threads())


@lru_cache
@torch.no_grad()
def matrix_rate(device: str, num_threads: int) -> float:
    """Operations a second of one large matrix product in the type that models compute in: the best of a few.

    num_threads: of a CPU; the rate is measured once for each number.
    """
    side = MATRIX_SIDE[device]
    left = torch.ones(side, side, device=device, dtype=torch.bfloat16 if device == "cuda" else torch.float32)
    times = []
    with torch.autocast(device, enabled=False):
        for _ in range(1 + NUM_PRODUCTS):  # the first warms up
            started = time.perf_counter()
            left @ left
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - started)
    return 2.0 * side**3 / min(times[1:])

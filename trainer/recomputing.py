"""Gradient checkpointing: what a layer computed is thrown away and computed again in the backward pass.

A step takes about a third longer and holds one state a layer for each token instead of some twenty (arXiv:1604.06174).
The gradients are the same to the bit: dropout is off for good, and nothing else in a layer is drawn.
"""

from functools import partial

from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from trainer.errors import StageError


class CannotRecompute(StageError):
    """Transformers knows no way to compute this model's layers again."""

    code = "cannot_recompute"

    def __init__(self, architecture: str) -> None:
        super().__init__(
            f"{architecture} does not support gradient checkpointing",
            advice="set gradient_checkpointing=false and lower micro_batch_tokens instead",
        )


def checkpointing(model: PreTrainedModel, on: bool) -> None:
    """Whether the model's layers are computed again in the backward pass. Raises CannotRecompute.

    Layers do it in training mode alone, so the model is put into it or taken out of it: with dropout off that mode
    changes nothing else. Decoding leaves it for as long as it needs its cache.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if on and not layers:
        raise CannotRecompute(type(model).__name__)
    for layer in layers:
        layer.gradient_checkpointing = on
        # Nothing random is computed again, and two models learn side by side over one global generator.
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
    model.train(on)

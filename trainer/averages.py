"""A running average of a policy's weights, which is smoother than the policy of any one update and may be served.

InstructGPT (arXiv:2203.02155, C.4) serves it with a decay of 0.992. Knows no recipe.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from trainer.checkpoints import load_model_tensors, model_tensors
from trainer.parts import divided_like

PREFIX = "average"


class WeightAverage:
    """average <- decay * average + (1 - decay) * weights, of what the model learns; it starts as the model is."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.tensors = {name: tensor.clone() for name, tensor in model_tensors(model, PREFIX).items()}

    @torch.no_grad()
    def update(self) -> None:
        """To be called after each update of the model. In the tensors' own type."""
        for name, tensor in model_tensors(self.model, PREFIX).items():
            self.tensors[name].lerp_(tensor, 1 - self.decay)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a saved average, wherever it was read to."""
        for name, tensor in self.tensors.items():
            tensor.copy_(divided_like(tensor, tensors[name]))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the average's weights inside, and its own again, to the bit, afterwards."""
        own = {name: tensor.clone() for name, tensor in model_tensors(self.model, PREFIX).items()}
        load_model_tensors(self.model, self.tensors, PREFIX)
        try:
            yield
        finally:
            load_model_tensors(self.model, own, PREFIX)

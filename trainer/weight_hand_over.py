"""How a policy's weights come to a completions server (vLLM): files that it reads, and what it is told of them.

Under lora the server gets the adapter, under a name that no other weights ever had: what answers to the name is what
was handed over, and nothing that the server keeps of a prompt (vLLM keys it by the name) is of other weights. Under
full tuning it reads a checkpoint in place of its weights, and forgets what it keeps. Knows nothing of what is sampled.
"""

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel

from trainer import team
from trainer.adapters import has_adapter, plain_state, saving_adapter
from trainer.completions_server import CompletionsServer, ServerRefused, ServerUnreachable
from trainer.errors import StageError
from trainer.round_folder import disk_errors

log = logging.getLogger(__name__)


class WeightsRefused(StageError):
    """The completions server does not take the weights of the policy that learns."""

    code = "weights_refused"

    def __init__(self, refusal: ServerRefused, weights: Path, *, is_adapter: bool) -> None:
        how = (
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and `vllm serve … --enable-lora --max-lora-rank RANK`"
            if is_adapter
            else "VLLM_SERVER_DEV_MODE=1, or set tuning to lora, which asks less of a server"
        )
        super().__init__(refusal.message, advice=f"start it where it can read {weights}, with {how}")


@dataclass(frozen=True)
class HandOver:
    """Gives a server the weights of a model that learns, and takes them back. The folder of weights is their name."""

    server: CompletionsServer
    model: PreTrainedModel
    source: str  # what the policy opens with that the stage starts from: the server was started with it
    folder: Path  # where weights are laid, a folder each; the server reads them there

    @property
    def is_adapter(self) -> bool:
        return has_adapter(self.model)

    def model_of(self, weights: Path) -> str:
        """What requests name to have these weights answer."""
        return weights.name if self.is_adapter else self.source

    def left(self) -> list[Path]:
        """Weights that were never taken back: the process was killed."""
        return sorted(self.folder.glob("*"))

    def give(self, weights: Path) -> None:
        """Lay the model's weights there, as they are, and have the server read them: the first process does, for all.

        All processes call it together. Raises WeightsRefused, ServerUnreachable, ServerRefused, DiskFull.
        """
        write = self._writing()
        if not team.is_first():
            return
        with disk_errors(weights):
            write(weights)
        losses = self.server.num_losses
        try:
            self._tell(weights)
        except ServerRefused as refusal:
            if refusal.status in (401, 403):
                raise
            if self.is_adapter and self.server.num_losses > losses and "already" in refusal.reason:
                return  # it had taken it, and only its answer was lost: nobody else has the name
            raise WeightsRefused(refusal, weights, is_adapter=self.is_adapter) from refusal

    def _writing(self) -> Callable[[Path], None]:
        """What writes an adapter as PEFT does, or all weights in what they would be decoded in here: bf16 on a GPU."""
        if self.is_adapter:
            return saving_adapter(self.model, trunk=self.source)
        state = whole_state(self.model, torch.bfloat16 if self.model.device.type == "cuda" else torch.float32)
        served = AutoConfig.from_pretrained(self.source, trust_remote_code=False)
        num_rows = served.get_text_config().vocab_size
        if num_rows == self.model.get_input_embeddings().weight.shape[0]:
            return lambda weights: self.model.save_pretrained(str(weights), state_dict=state)
        own_rows = cut_vocabulary(state, self.model, num_rows)

        def write(weights: Path) -> None:
            self.model.save_pretrained(str(weights), state_dict=own_rows)
            served.save_pretrained(str(weights))  # the policy's names a pad beyond these rows

        return write

    def _tell(self, weights: Path) -> None:
        if self.is_adapter:
            adapter = {"lora_name": weights.name, "lora_path": str(weights)}
            self.server.tell("/v1/load_lora_adapter", adapter, "the adapter")
        else:
            checkpoint = {"method": "reload_weights", "kwargs": {"weights_path": str(weights)}}
            self.server.tell("/collective_rpc", checkpoint, "the checkpoint")
            self.server.tell("/reset_prefix_cache", {}, "to forget what other weights made of prompts")

    def take_back(self, weights: Path, *, is_patient: bool = True) -> None:
        """Have the server forget an adapter, and delete the files. A server that started again knows of none.

        is_patient: whether a server that is away is waited for. Raises ServerUnreachable then.
        """
        if self.is_adapter:
            try:
                adapter = {"lora_name": weights.name}
                self.server.tell("/v1/unload_lora_adapter", adapter, "to forget an adapter", is_patient=is_patient)
            except ServerRefused as refusal:
                log.info("%s", refusal.message)
            except ServerUnreachable as problem:
                if is_patient:
                    raise
                log.warning("%s; it keeps the adapter %s", problem.message, weights.name)
        shutil.rmtree(weights)


def whole_state(model: PreTrainedModel, dtype: torch.dtype) -> dict[str, Tensor]:
    """The model's state in one piece, in another type; tied tensors stay one. Of sharded weights the first has it."""
    state = plain_state(model, keep=team.is_first())
    if state is None:
        state = model.state_dict(keep_vars=True)
    converted = {
        id(value): value.detach().to(dtype) if value.is_floating_point() else value for value in state.values()
    }
    return {name: converted[id(value)] for name, value in state.items()}


def cut_vocabulary(state: dict[str, Tensor], model: PreTrainedModel, num_rows: int) -> dict[str, Tensor]:
    """The state without the row of a pad token that the source lacks: the server's embeddings have no room for it."""
    of_vocabulary = {id(model.get_input_embeddings()), id(model.get_output_embeddings())}
    prefixes = tuple(f"{name}." for name, module in model.named_modules() if id(module) in of_vocabulary)
    cut = {id(value): value[:num_rows].clone() for name, value in state.items() if name.startswith(prefixes)}
    return {name: cut.get(id(value), value) for name, value in state.items()}

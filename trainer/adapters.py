"""Low-rank adapters (LoRA, arXiv:2106.09685) by PEFT, several on one frozen trunk.

A model with an adapter is a Transformers model like any other, in a tree of modules of its own; its leaves (matrices,
embeddings, norms) are the very modules of the trunk. So policy, value model and reward models each have their own
adapter, the bare trunk is the reference, and all hold the trunk's weights once. Nothing is switched on or off: they may
be computed side by side, and a backward pass that computes a forward again finds what it found.
"""

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer.errors import StageError
from trainer.parts import is_part, whole

NAME = "default"  # PEFT's name of a tree's only adapter
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # PEFT's names
PEFT_PREFIX = "base_model.model."  # of every name in PEFT's files
SAMPLED_VALUES = 64  # of each tensor that a fingerprint reads


class AdapterMismatch(StageError):
    """An adapter was made for another trunk."""

    code = "adapter_mismatch"

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"the adapter in {path} belongs to another trunk: {reason}",
            advice="use it with the policy it was fitted on, or fit a reward model on this policy first",
        )


class AdapterMissing(StageError):
    """A file of an adapter is not there."""

    code = "adapter_missing"

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"the adapter in {path} is not whole: {CONFIG} or {WEIGHTS} is missing",
            advice="bring the reward stage's result folder back, or fit a reward model again",
        )


@dataclass(frozen=True)
class LoRA:
    """The size of an adapter. Every matrix of the trunk gets alpha / rank times a product of two of that rank."""

    rank: int
    alpha: int


def with_adapter(model: PreTrainedModel, lora: LoRA, *, seed: int) -> PreTrainedModel:
    """The model with a new adapter that changes nothing yet; its trunk is the given one, and frozen from now on.

    A classifier's head is copied and learns too. seed: of the first of the two matrices; the second is zero.
    """
    tree = own_tree(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject(tree, lora)
    return tree


def own_tree(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of the model's structure around the same leaf modules; a classifier's head is copied with its weights."""
    head = getattr(model, "score", None)
    leaves = [module for module in model.modules() if not any(module.children()) and module is not head]
    shared = [*leaves, *(parameter for name, parameter in model.named_parameters() if not name.startswith("score."))]
    tree: PreTrainedModel = copy.deepcopy(model, {id(thing): thing for thing in shared})
    return tree


def inject(tree: PreTrainedModel, lora: LoRA) -> None:
    """Put an adapter on every matrix of the tree's trunk; the trunk is frozen. In fp32 whatever the trunk is in."""
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.tuners_utils import cast_adapter_dtype
    from transformers.pytorch_utils import Conv1D

    trunk = tree.base_model
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules="all-linear",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in trunk.modules()),  # GPT-2 keeps them transposed
    )
    inject_adapter_in_model(config, trunk, NAME)
    cast_adapter_dtype(trunk, NAME)
    for name, parameter in tree.named_parameters():
        parameter.requires_grad_(is_adapted(name))


def is_adapted(name: str) -> bool:
    """Whether a parameter is the adapter's or the head's."""
    return ".lora_" in name or name.startswith("score.")


def has_adapter(model: nn.Module) -> bool:
    return any(".lora_" in name for name, _ in model.named_parameters())


@torch.no_grad()
def plain_state(model: PreTrainedModel, *, keep: bool = True) -> dict[str, Tensor] | None:
    """The state of an equal model without adapters and in one piece, in the host's memory. None: it is that already.

    Each adapter is added into its matrix, in fp32, whatever the trunk is in: what it learned is mostly less than a step
    of bf16. All processes call it together; keep: whether this one wants the state.
    """
    values = model.state_dict(keep_vars=True)
    adapters = adapted_matrices(model) if has_adapter(model) else {}
    if not adapters and not any(is_part(value) for value in values.values()):
        return None
    values = {name: value for name, value in values.items() if ".lora_" not in name}
    first_names = {id(value): name for name, value in reversed(values.items())}  # tied tensors are read once
    plain: dict[int, Tensor] = {}
    for identity, name in first_names.items():
        value = whole(values[name].detach())
        if adapters and value.is_floating_point():
            value = value.float()
        if name in adapters:
            value = value + whole(adapters[name].get_delta_weight(NAME)).float()
        if keep:
            plain[identity] = value.cpu()
    return {name.replace(".base_layer.", "."): plain[id(value)] for name, value in values.items()} if keep else {}


def adapted_matrices(model: PreTrainedModel) -> dict[str, Any]:
    """PEFT's layers, by the name of the matrix in each."""
    from peft.tuners.lora import Linear

    return {f"{name}.base_layer.weight": layer for name, layer in model.named_modules() if isinstance(layer, Linear)}


def save_adapter(model: PreTrainedModel, folder: Path, *, trunk: str) -> None:
    """The adapter, and a classifier's head, as PEFT saves and opens them. trunk: what PEFT would load below it."""
    saving_adapter(model, trunk=trunk)(folder)


def saving_adapter(model: PreTrainedModel, *, trunk: str) -> Callable[[Path], None]:
    """What writes the adapter as it is now. All processes call this together, and one what it returns."""
    layer_config = model.base_model.peft_config[NAME]
    head = ["score"] if hasattr(model, "score") else None
    saved = copy.copy(layer_config)
    saved.base_model_name_or_path, saved.modules_to_save, saved.inference_mode = trunk, head, True
    saved.task_type = "SEQ_CLS" if head else "CAUSAL_LM"
    tensors = {peft_name(name): whole(parameter.detach()).contiguous() for name, parameter in adapted(model)}

    def write(folder: Path) -> None:
        folder.mkdir(parents=True)
        saved.save_pretrained(str(folder))
        save_file(tensors, folder / WEIGHTS)

    return write


def load_adapter(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The model with a saved adapter and, of a classifier, its head. Raises AdapterMissing, AdapterMismatch."""
    from peft import LoraConfig

    if not ((folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()):
        raise AdapterMissing(folder)

    config = LoraConfig.from_pretrained(str(folder))
    tree = with_adapter(model, LoRA(config.r, config.lora_alpha), seed=0)
    tensors = load_file(folder / WEIGHTS)
    wanted = {peft_name(name): parameter for name, parameter in adapted(tree)}
    for name, parameter in wanted.items():
        if name not in tensors or tensors[name].shape != parameter.shape:
            raise AdapterMismatch(folder, f"{name} does not fit")
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(tensors[name])
    return tree


def adapted(model: PreTrainedModel) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if is_adapted(name))


def peft_name(name: str) -> str:
    return PEFT_PREFIX + name.replace(f".{NAME}.", ".")


def fingerprint(model: PreTrainedModel) -> str:
    """SHA-256 of the trunk's names, shapes and some values of each tensor, in bf16: the same in every precision.

    It tells checkpoints apart that were trained apart. It is no proof against somebody who wants to deceive. All
    processes call it together.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(trunk_state(model).items()):
        values = whole(tensor.detach()).flatten()
        step = max(1, len(values) // SAMPLED_VALUES)
        sample = values[::step].to(torch.bfloat16).cpu().view(torch.int16).numpy().tobytes()
        digest.update(f"{name} {tuple(tensor.shape)}".encode() + sample)
    return digest.hexdigest()


def trunk_state(model: PreTrainedModel) -> Mapping[str, Any]:
    """The trunk's own parameters, whatever sits on it."""
    return {
        name.replace(".base_layer.", "."): parameter
        for name, parameter in model.base_model.named_parameters()
        if ".lora_" not in name
    }

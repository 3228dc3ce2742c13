"""Opening and saving models: policies, reward models, tokenizers. Weights come from safetensors alone.

Every model is opened with dropout off and with our attention (trainer.shared_prompt); no code comes with a model.
What is saved is plain Hugging Face.
"""

import copy
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from trainer import team
from trainer.adapters import has_adapter, plain_state
from trainer.errors import StageError
from trainer.fused_norms import fuse_norms
from trainer.fused_rotation import fuse_rotation
from trainer.last_layer import compute_what_is_read
from trainer.parts import divided_like, whole
from trainer.prompting import PLAIN_CHAT_TEMPLATE
from trainer.shared_prompt import ATTENTION

PAD_TOKEN = "<|pad|>"  # noqa: S105 (a token of text)

FINAL_NORMS = ("norm", "ln_f", "final_layer_norm")  # in Llama and Qwen, GPT-2, OPT
DROPOUT_ATTRIBUTES = ("attention_dropout", "activation_dropout", "dropout", "layerdrop")


class ModelNotFound(StageError):
    """There is no model at this path, or no such name on the hub."""

    code = "model_not_found"

    def __init__(self, path: str) -> None:
        super().__init__(
            f"no model was found at {path}",
            advice="give a folder with config.json and model.safetensors, or a Hugging Face name that is reachable",
        )


class UnsafeWeights(StageError):
    """The weights are pickled: opening them could run any code."""

    code = "unsafe_weights"

    def __init__(self, path: str) -> None:
        super().__init__(
            f"the weights at {path} are not in the safetensors format",
            advice="save them again with save_pretrained, which writes safetensors",
        )


class UnsupportedModel(StageError):
    """The model cannot be opened by Transformers alone as what it should be."""

    code = "unsupported_model"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(
            f"the model at {path} cannot be used: {reason}",
            advice="choose a decoder model that Transformers supports without code of its own",
        )


@dataclass(frozen=True)
class Policy:
    """A causal LM and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True)
class RewardModel:
    """A sequence classifier with one label, and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load_policy(path: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Policy:
    """Open a policy. Raises ModelNotFound, UnsafeWeights, UnsupportedModel."""
    tokenizer = load_tokenizer(path)
    with model_errors(path):
        model = AutoModelForCausalLM.from_pretrained(str(path), **loading_options(dtype))
    add_pad_row(model, tokenizer)
    return Policy(prepare(model, tokenizer, device), tokenizer)


def load_reward_model(path: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> RewardModel:
    """Open a reward model. Raises ModelNotFound, UnsafeWeights, UnsupportedModel."""
    tokenizer = load_tokenizer(path)
    with model_errors(path):
        model = AutoModelForSequenceClassification.from_pretrained(str(path), num_labels=1, **loading_options(dtype))
    return RewardModel(prepare(model, tokenizer, device), tokenizer)


def reward_model_from_policy(path: str | Path, seed: int, device: str = "cpu") -> RewardModel:
    """The policy's trunk with a new head of standard deviation 1/sqrt(d + 1) (arXiv:2009.01325), in fp32.

    Raises ModelNotFound, UnsafeWeights, UnsupportedModel.
    """
    tokenizer = load_tokenizer(path)
    with model_errors(path), quiet_loading():  # a missing head is what we expect
        model = AutoModelForSequenceClassification.from_pretrained(
            str(path), num_labels=1, **loading_options(torch.float32)
        )
    add_pad_row(model, tokenizer)
    draw_head(model, seed)
    return RewardModel(prepare(model, tokenizer, device), tokenizer)


def classifier_on(policy: Policy) -> PreTrainedModel:
    """A classifier whose trunk is the policy's own, not a copy; its head is 0 and in fp32."""
    model = policy.model
    config = copy.deepcopy(model.config)
    config.num_labels = 1
    with torch.device("meta"):  # a trunk of its own would be thrown away at once
        classifier = AutoModelForSequenceClassification.from_config(config, attn_implementation=ATTENTION)
    setattr(classifier, classifier.base_model_prefix, model.base_model)
    width = score_weight(classifier).shape[1]
    classifier.score = nn.Linear(width, 1, bias=False, device=model.device)
    nn.init.zeros_(classifier.score.weight)
    return prepare(classifier, policy.tokenizer, model.device.type)


def draw_head(model: PreTrainedModel, seed: int) -> None:
    """A new head of standard deviation 1/sqrt(d + 1) (arXiv:2009.01325)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        width = score_weight(model).shape[1]
        score_weight(model).copy_(torch.randn(1, width, generator=generator) / math.sqrt(width + 1))


def loading_options(dtype: torch.dtype) -> dict[str, Any]:
    return {
        "dtype": dtype,
        "attn_implementation": ATTENTION,
        "use_safetensors": True,
        "trust_remote_code": False,
    }


@contextmanager
def model_errors(path: str | Path) -> Iterator[None]:
    """Look before opening, and turn what Transformers raises into our three errors."""
    folder = Path(path)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelNotFound(str(path))
        if not any(folder.glob("*.safetensors")):
            pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt")) or any(folder.glob("*.pth"))
            raise UnsafeWeights(str(path)) if pickled else ModelNotFound(str(path))
    elif folder.is_absolute():
        raise ModelNotFound(str(path))
    try:
        yield
    except OSError as error:
        pickled = "safetensors" in str(error)
        raise (UnsafeWeights(str(path)) if pickled else ModelNotFound(str(path))) from error
    except SafetensorError as error:
        raise UnsupportedModel(str(path), f"its weights are damaged ({error})") from error
    except ValueError as error:
        raise UnsupportedModel(str(path), str(error).splitlines()[0]) from error


@contextmanager
def quiet_loading() -> Iterator[None]:
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def prepare(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, device: str) -> PreTrainedModel:
    """Dropout off, last layer, norms and rotations our way, the tokenizer's pad in the configuration, on the device."""
    disable_dropout(model)
    compute_what_is_read(model)
    fuse_norms(model)
    fuse_rotation(model)
    model.config.pad_token_id = tokenizer.pad_token_id  # a plain Hugging Face classifier finds the last token by it
    model.eval()
    return model.to(device)


def disable_dropout(model: nn.Module) -> None:
    """For good, also in training mode: PPO's ratio would otherwise not start at 1."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in DROPOUT_ATTRIBUTES:
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer, with a pad token of its own and a chat template.

    With pad == eos Hugging Face's classifiers would read the score before EOS; a tokenizer without a pad gets one.
    Raises ModelNotFound, UnsupportedModel.
    """
    if Path(path).is_dir() and not (Path(path) / "config.json").is_file():
        raise ModelNotFound(str(path))
    with tokenizer_errors(path):
        tokenizer = AutoTokenizer.from_pretrained(str(path), trust_remote_code=False)
    if tokenizer.eos_token_id is None:
        raise UnsupportedModel(str(path), "its tokenizer has no end-of-sequence token")
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    if tokenizer.chat_template is None:
        tokenizer.chat_template = PLAIN_CHAT_TEMPLATE
    loaded: PreTrainedTokenizerBase = tokenizer
    return loaded


@contextmanager
def tokenizer_errors(path: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ModelNotFound(str(path)) from error
    except (ValueError, KeyError) as error:
        raise UnsupportedModel(str(path), f"its tokenizer does not open ({error})") from error


def add_pad_row(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Room in the embeddings for a pad token that the tokenizer was given.

    The new row is the mean of the others: its logit is then their mean, which has at most 1/V of the probability, and
    log probabilities hardly move. A row of zeros would take nearly all of it in GPT-2, whose logits are near -100.
    """
    old_size = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) <= old_size:
        return
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    with torch.no_grad():
        for layer in layers:
            if layer is not None:
                layer.weight[old_size:] = layer.weight[:old_size].mean(dim=0)


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of what decides which ids stand for which text: vocabulary, merges, normalisation, added tokens."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    del state["truncation"], state["padding"]  # how it was last called, not what it is
    return hashlib.sha256(json.dumps(state, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def trunk_dtype(device: str) -> torch.dtype:
    """What a frozen trunk is held in: bf16 on a GPU. Weights that learn are in fp32 everywhere."""
    return torch.bfloat16 if device == "cuda" else torch.float32


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def output_layer(model: PreTrainedModel) -> tuple[Tensor, Tensor | None]:
    """A policy's output weight (V, D) and bias (V,) or None."""
    layer = model.get_output_embeddings()
    return layer.weight, getattr(layer, "bias", None)


def score_weight(model: PreTrainedModel) -> Tensor:
    """(1, D) a reward model's head. It has no bias in any decoder of Transformers; shift_scores says what we do."""
    weight: Tensor = model.score.weight
    return weight


def final_norm_bias(model: PreTrainedModel) -> Tensor | None:
    """(D,) the bias of the trunk's last layer norm, which the head reads; None in families without one (Llama)."""
    norms = {name: norm for name, norm in model.base_model.named_modules() if name.split(".")[-1] in FINAL_NORMS}
    outermost = min(norms, key=lambda name: name.count("."), default="")  # OPT's layers have one of that name each
    bias = getattr(norms.get(outermost), "bias", None)
    projected = getattr(model.config, "word_embed_proj_dim", None) not in (None, model.config.hidden_size)  # OPT-350m
    return None if projected else bias


@torch.no_grad()
def shift_scores(model: PreTrainedModel, anchors: Tensor, seen: Tensor) -> tuple[float, float]:
    """Change a reward model so that the mean score of the anchors is 0, and differences of scores stay.

    anchors: (A, D) hidden states that scores are read from; their mean score goes to 0.
    seen: (S, D) hidden states over which differences are to stay; S may be less than D.
    Returns what was taken off, and the standard deviation over `seen` of what was done to the scores beyond that.

    Transformers' heads have no bias, and a plain checkpoint can hold none. Where the final norm has a bias (GPT-2, OPT)
    the shift goes there, along the head, and is exact. Elsewhere (RMSNorm: Llama, Qwen) it goes into the head, along
    the direction in which hidden states are most nearly constant: v = C^-1 m / (m' C^-1 m), with m their mean and C
    their covariance, is the vector of least variance with mean 1. The mean is exactly 0 then, the rest is measured.
    """
    weight = score_weight(model)
    anchors, seen, head = anchors.double(), seen.double(), whole(weight)[0].double()
    mean = anchors.mean(dim=0)
    shift = head @ mean
    bias = final_norm_bias(model)
    if bias is not None and bias.requires_grad:  # a frozen one is that of a trunk which others read too
        bias -= divided_like(bias, (shift / (head @ head) * head).to(bias.dtype))
        return shift.item(), 0.0
    centred = seen - seen.mean(dim=0)
    covariance = centred.T @ centred / len(seen)
    ridge = 1e-4 * covariance.diagonal().mean() * torch.eye(len(mean), dtype=mean.dtype, device=mean.device)
    direction = torch.linalg.solve(covariance + ridge, mean)
    direction = direction / (direction @ mean)
    weight -= divided_like(weight, (shift * direction).to(weight.dtype)[None])
    return shift.item(), (shift.abs() * (seen @ direction).std()).item()


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """A standard Hugging Face checkpoint: safetensors, configuration, tokenizer. An adapter is added into its trunk."""
    saving(model, tokenizer)(folder)


def saving(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Callable[[Path], None]:
    """What writes a checkpoint of the model. All processes call this together, and the first what it returns.

    Until then the model must stay as it is.
    """
    state = plain_state(model, keep=team.is_first())
    is_adapted = has_adapter(model)

    def write(folder: Path) -> None:
        model.save_pretrained(str(folder), state_dict=state)
        if is_adapted:  # save_pretrained names the precision of the model, not of its state
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            (folder / "config.json").write_text(json.dumps({**config, "dtype": "float32"}, indent=2), encoding="utf-8")
        tokenizer.save_pretrained(str(folder))

    return write

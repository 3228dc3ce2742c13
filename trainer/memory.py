"""What a stage needs of memory, estimated from the model's shape and the settings. Standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelShape:
    """The numbers of a decoder's configuration that its memory and its operations follow from."""

    width: int  # of the hidden state
    num_layers: int
    num_heads: int
    num_kv_heads: int  # fewer than heads where queries are grouped
    head_width: int
    inner_width: int  # of the feed-forward layer
    num_inner_matrices: int  # 3 where it is gated (Llama, Qwen), else 2
    vocabulary: int
    is_tied: bool  # whether the output layer is the embedding

    @property
    def layer_parameters(self) -> int:
        attention = self.width * self.head_width * (2 * self.num_heads + 2 * self.num_kv_heads)
        return attention + self.num_inner_matrices * self.width * self.inner_width + 2 * self.width

    @property
    def num_parameters(self) -> int:
        """Of a causal LM. Biases and learned positions are left out: less than one in a hundred of a real model."""
        embeddings = self.vocabulary * self.width * (1 if self.is_tied else 2)
        return embeddings + self.num_layers * self.layer_parameters + self.width

    def cache_bytes_a_token(self, bytes_a_number: int) -> int:
        """Keys and values of one token in all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_width * bytes_a_number


GATED = ("silu", "swish", "gelu_pytorch_tanh")  # activations of gated feed-forward layers (Llama, Qwen, Gemma)


def shape_of(config: Any) -> ModelShape:
    """The shape that a Transformers configuration, or what was read from config.json, describes.

    Raises KeyError where it has no such numbers.
    """

    def first(*names: str) -> Any:
        values = (config.get(n) if isinstance(config, Mapping) else getattr(config, n, None) for n in names)
        return next((value for value in values if value is not None), None)

    width, num_heads, num_layers = (
        first("hidden_size", "n_embd"),
        first("num_attention_heads", "n_head"),
        first("num_hidden_layers", "n_layer"),
    )
    vocabulary = first("vocab_size")
    if None in (width, num_heads, num_layers, vocabulary):
        raise KeyError("hidden_size, num_attention_heads, num_hidden_layers or vocab_size")
    is_tied = first("tie_word_embeddings")
    return ModelShape(
        width=width,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=first("num_key_value_heads") or num_heads,
        head_width=first("head_dim") or width // num_heads,
        inner_width=first("intermediate_size", "ffn_dim", "n_inner") or 4 * width,
        num_inner_matrices=3 if first("hidden_act") in GATED else 2,
        vocabulary=vocabulary,
        is_tied=True if is_tied is None else is_tied,
    )


GB = 1e9
PROCESS_GB = 0.6  # Python, torch and Transformers, before any model
LOGITS_BYTES = {"cpu": 3 * 16 * 2**20, "cuda": 3 * 256 * 2**20}  # three chunks of trainer.losses
LANES = {
    "cpu": 256,
    "cuda": 64,
}  # completions decoded together; a GPU takes more where a quarter of what is free allows

# Models of a stage: (those that learn, those that are frozen beside them). trainer.stage_models opens them. Not here:
# the reward model of sft where its score chooses, and the reference that a reward stage samples from after the fit.
MODELS = {
    "sft": (1, 0),
    "reward": (1, 0),
    "ppo": (2, 2),
    "grpo": (1, 2),
    "rejection": (1, 2),
    "evaluate": (0, 3),
    "score": (0, 1),
}
SAMPLING = ("ppo", "grpo", "rejection", "evaluate")


@dataclass(frozen=True)
class Estimate:
    """What a stage holds at its peak, in GB (10^9 bytes) a device."""

    weights: float
    gradients: float
    optimizer: float  # AdamW's two moments, and the copy of the best parameters so far
    activations: float  # of one micro-batch
    logits: float
    cache: float  # keys and values while decoding
    in_flight: float  # of weights that are sharded: those gathered for the layers at work, and their gradients

    @property
    def states(self) -> float:
        """What the number of parameters decides."""
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self) -> float:
        """Of all parts: a GPU keeps the cache while it learns."""
        return PROCESS_GB + self.states + self.logits + self.activations + self.cache + self.in_flight


def estimate(
    recipe: str, shape: ModelShape, settings: Mapping[str, Any], *, device: str, by_ensemble: bool = False
) -> Estimate:
    """A stage's memory on each of its devices. They hold all weights (trainer.team) or parts (trainer.sharding).

    settings: of its configuration. Prompts are taken to be as long as completions may be.  by_ensemble: whether its
    reward model is one; where a stage's weights are divided, an ensemble's are not.
    """
    on_gpu = device == "cuda"
    is_sharded = bool(settings.get("shard_weights"))
    is_chosen_by_score = settings.get("select_by") == "score"
    learning, frozen = MODELS[recipe]
    if by_ensemble and is_sharded and recipe in SAMPLING:
        frozen -= 1
    learning = max(learning, settings.get("num_members", 1)) if learning else 0
    is_lora = settings.get("tuning") == "lora"
    own = adapter_parameters(shape, settings["lora_rank"]) if is_lora else shape.num_parameters
    if is_lora:  # one trunk, in bf16 on a GPU, under everything
        weights = shape.num_parameters * (2 if on_gpu else 4) + own * 4 * (learning + frozen)
    else:
        weights = shape.num_parameters * 4 * (learning + frozen)
    if is_chosen_by_score and not (by_ensemble and is_sharded):
        weights += shape.num_parameters * 4  # of the reward model, which shares no trunk here
    best = 1 if learning else 0
    num_parts = settings["num_processes"] if is_sharded else 1
    samples = recipe in SAMPLING or is_chosen_by_score
    undivided = ensemble_bytes(shape, on_gpu) if by_ensemble and is_sharded and samples else 0
    if recipe == "reward" and (is_sharded or not is_lora):  # else the trunk is the reference
        undivided += reference_bytes(shape, on_gpu)
    elif samples and (is_sharded or not is_lora):
        undivided += copy_to_decode_from(shape, on_gpu, is_sharded)
    tokens = settings.get("micro_batch_tokens", 0)
    at_once = 2 if recipe == "ppo" and not on_gpu else 1  # policy and value model learn side by side on a CPU
    activations = tokens * activation_numbers(shape, bool(settings.get("gradient_checkpointing"))) * at_once
    if not learning:
        activations = tokens * 2 * layer_numbers(shape)
    columns = 2 * settings.get("max_completion_tokens", 0)
    cache = LANES[device] * columns * shape.cache_bytes_a_token(2 if on_gpu else 4) if samples else 0
    return Estimate(
        weights=(weights / num_parts + undivided) / GB,
        gradients=4 * own * learning / num_parts / GB,
        optimizer=own * (8 * learning + 4 * best) / num_parts / GB,
        activations=activations * (2.6 if on_gpu else 4) / GB,  # under autocast norms stay in fp32, the rest is bf16
        logits=LOGITS_BYTES[device] / GB,
        cache=cache / GB,
        in_flight=gathered_bytes(shape, is_lora, on_gpu) / GB if is_sharded else 0,
    )


def copy_to_decode_from(shape: ModelShape, on_gpu: bool, is_sharded: bool) -> int:
    """Bytes of a policy's copy: in bf16 on a GPU, and where its weights are sharded on a CPU too, in fp32."""
    return shape.num_parameters * (2 if on_gpu else 4 if is_sharded else 0)


def reference_bytes(shape: ModelShape, on_gpu: bool) -> int:
    """Of the reference that a reward stage opens after its fit, to sample what sets the unit of its scores.

    It counts as if the optimiser were still there, whose memory it may get.
    """
    return shape.num_parameters * (2 if on_gpu else 4)


def ensemble_bytes(shape: ModelShape, on_gpu: bool) -> int:
    """Of an ensemble's trunk; its adapters are small beside that."""
    return shape.num_parameters * (2 if on_gpu else 4)


def gathered_bytes(shape: ModelShape, is_lora: bool, on_gpu: bool) -> int:
    """What is whole at a time of sharded weights: embedding and output layer, the layer at work, and the next.

    Of weights that learn there are the gradients too, and the buffer that these are sent from; of others the buffer
    that they arrive in.
    """
    numbers = shape.num_parameters - shape.num_layers * shape.layer_parameters + 2 * shape.layer_parameters
    return numbers * (2 * (2 if on_gpu else 4) if is_lora else 3 * 4)


def adapter_parameters(shape: ModelShape, rank: int) -> int:
    """Of one adapter on every matrix of the trunk: rank times (rows + columns)."""
    queries, keys = shape.num_heads * shape.head_width, shape.num_kv_heads * shape.head_width
    sides = 2 * (shape.width + queries) + 2 * (shape.width + keys)
    sides += shape.num_inner_matrices * (shape.width + shape.inner_width)
    return rank * sides * shape.num_layers


def layer_numbers(shape: ModelShape) -> float:
    """Numbers that one layer keeps for the backward pass of one token.

    Counted in Transformers' Llama and GPT-2 with our attention: those of the norms, of queries, keys, values and their
    rotation, and of the feed-forward layer's inner state before, in and after its activation.
    """
    return 10.5 * shape.width + (4 if shape.num_inner_matrices == 3 else 4.5) * shape.inner_width


def activation_numbers(shape: ModelShape, recomputed: bool) -> float:
    """Numbers kept for one token. recomputed: a state a layer, and all of one layer while its gradient is computed.

    The gradients of the layer that the backward pass is in take about as much as one layer keeps.
    """
    in_flight = layer_numbers(shape) + 8 * shape.width  # the latter around the output layer
    if recomputed:
        return shape.num_layers * shape.width + layer_numbers(shape) + in_flight
    return shape.num_layers * layer_numbers(shape) + in_flight


def advice_on(recipe: str, settings: Mapping[str, Any], needed: Estimate) -> str:
    """Which setting to change when the memory does not suffice: that of the largest part."""
    states = needed.states + needed.in_flight
    parts = {"weights": states, "activations": needed.activations, "cache": needed.cache}
    largest = max(parts, key=lambda part: parts[part])
    share = f"{parts[largest]:.1f} of about {needed.total:.1f} GB"
    tokens = settings.get("micro_batch_tokens")
    if largest == "activations" and settings.get("gradient_checkpointing") is False:
        return (
            f"lower {recipe}.micro_batch_tokens={tokens} or set {recipe}.gradient_checkpointing=true, which change"
            f" nothing else (activations take {share})"
        )
    if largest == "activations":
        return f"lower {recipe}.micro_batch_tokens={tokens}, which changes nothing else (activations take {share})"
    if largest == "cache":
        return f"lower {recipe}.max_completion_tokens={settings['max_completion_tokens']} (the cache takes {share})"
    taken = f"weights, gradients and optimiser take {share}"
    if settings.get("shard_weights"):
        return f"raise {recipe}.num_processes={settings['num_processes']} ({taken}), or use a smaller model"
    if settings.get("tuning") == "full":
        return f"set {recipe}.tuning=lora, or {recipe}.shard_weights=true on several GPUs ({taken}), or a smaller model"
    return f"use a smaller model or a larger device ({taken})"

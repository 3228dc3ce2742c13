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


def shape_of(config: Mapping[str, Any]) -> ModelShape:
    """The shape that a Transformers configuration (config.json) describes. Raises KeyError where it has no such."""

    def first(*names: str) -> Any:
        return next((config[name] for name in names if config.get(name) is not None), None)

    width, num_heads = first("hidden_size", "n_embd"), first("num_attention_heads", "n_head")
    if width is None or num_heads is None:
        raise KeyError("hidden_size")
    return ModelShape(
        width=width,
        num_layers=first("num_hidden_layers", "n_layer"),
        num_heads=num_heads,
        num_kv_heads=first("num_key_value_heads") or num_heads,
        head_width=first("head_dim") or width // num_heads,
        inner_width=first("intermediate_size", "ffn_dim", "n_inner") or 4 * width,
        num_inner_matrices=3 if config.get("hidden_act") in GATED else 2,
        vocabulary=config["vocab_size"],
        is_tied=config.get("tie_word_embeddings", True),
    )

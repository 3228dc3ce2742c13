"""Tiny real models with random weights, and rows that can be learned from."""

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from trainer.round_folder import DemonstrationRow, RankingRow

WORDS = ["good", "bad", *(f"w{i}" for i in range(26))]
VOCABULARY = {"<pad>": 0, "<eos>": 1, "<unk>": 2, **{word: 3 + i for i, word in enumerate(WORDS)}}
PAD, EOS, GOOD, BAD = 0, 1, 3, 4


def tiny_tokenizer(pad_token: str | None = "<pad>") -> PreTrainedTokenizerFast:
    """One token a word, with a pad of its own unless told otherwise."""
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad_token, eos_token="<eos>", unk_token="<unk>"
    )


def tiny_config(family: str, context: int = 64) -> PreTrainedConfig:
    size = len(VOCABULARY)
    special = {"pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": None}
    layers = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": context}
    if family == "llama":  # grouped queries, tied embeddings
        return LlamaConfig(
            vocab_size=size,
            intermediate_size=32,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            **layers,
            **special,
        )
    if family == "qwen2":
        return Qwen2Config(
            vocab_size=size, intermediate_size=32, num_key_value_heads=2, use_sliding_window=False, **layers, **special
        )
    if family == "opt":
        return OPTConfig(vocab_size=size, ffn_dim=32, word_embed_proj_dim=16, **layers, **special)
    return GPT2Config(vocab_size=size, n_embd=16, n_layer=2, n_head=4, n_positions=context, **special)


def save_tiny_policy(family: str, folder: Path, *, pad_token: str | None = "<pad>") -> Path:
    """A policy with random weights, large enough that its logits differ from token to token."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(family))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(8.0)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)
    model.save_pretrained(folder)
    tiny_tokenizer(pad_token).save_pretrained(folder)
    return folder


def text_of(ids: list[int]) -> str:
    words = {number: word for word, number in VOCABULARY.items()}
    return " ".join(words[i] for i in ids if i != EOS)


def some_prompt(rng: random.Random) -> list[int]:
    return [rng.randrange(5, len(VOCABULARY)) for _ in range(rng.randrange(2, 7))]


def some_completion(rng: random.Random) -> list[int]:
    return [rng.randrange(3, len(VOCABULARY)) for _ in range(rng.randrange(2, 6))] + [EOS]


def some_ranking(number: int, rng: random.Random, *, split: str = "train", k: int = 4) -> RankingRow:
    """A ranking by a labeler who likes the word "good" and dislikes "bad"; what is equal to them is tied."""
    completions = [some_completion(rng) for _ in range(k)]
    completions[0][0], completions[1][0] = GOOD, BAD  # so that no ranking is all ties
    liking = [ids.count(GOOD) - ids.count(BAD) for ids in completions]
    if len(set(liking)) == 1:
        completions[1][:-1] = [BAD]
        liking = [ids.count(GOOD) - ids.count(BAD) for ids in completions]
    levels = sorted(set(liking), reverse=True)
    return RankingRow(
        ranking_id=f"ranking-{number}",
        prompt_id=number,
        group=f"group-{number}",
        split=split,  # type: ignore[arg-type]
        labeler=f"labeler-{number % 3}",
        held_out_labeler=False,
        prompt_ids=some_prompt(rng),
        completion_ids=completions,
        completion_texts=[text_of(ids) for ids in completions],
        ranks=[levels.index(value) + 1 for value in liking],
    )


def some_demonstration(number: int, rng: random.Random, *, split: str = "train") -> DemonstrationRow:
    """A demonstration by a person whose every completion is "good good"."""
    return DemonstrationRow(
        prompt_id=number,
        group=f"group-{number}",
        split=split,  # type: ignore[arg-type]
        prompt_ids=some_prompt(rng),
        completion_ids=[GOOD, GOOD, EOS],
        text="good good",
    )

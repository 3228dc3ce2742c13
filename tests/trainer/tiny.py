"""Tiny real models with random weights, and rows that can be learned from."""

import json
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

from trainer.models import reward_model_from_policy, save_model
from trainer.round_folder import DemonstrationRow, PromptRow, RankingRow, RoundFolder, Stage
from trainer.settings import Value, recipe_config

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


def save_tiny_reward_model(policy: Path, folder: Path) -> Path:
    """A reward model on the policy's trunk; its result.json says how far its scores spread."""
    reward = reward_model_from_policy(policy, seed=3)
    save_model(reward.model, reward.tokenizer, folder)
    (folder / "result.json").write_text(json.dumps({"score_std": 0.8}))
    return folder


def write_tiny_stage(path: Path, recipe: str, settings: dict[str, Value], models: dict[str, str]) -> RoundFolder:
    """stage.json of a new round folder."""
    folder = RoundFolder(path)
    folder.path.mkdir()
    config = recipe_config(recipe, "small", settings)
    stage = Stage(recipe=recipe, config=config, preset="small", seed=7, num_threads=1, device="cpu", models=models)
    folder.write_stage(stage)
    return folder


def write_tiny_rankings(folder: RoundFolder, num_rankings: int) -> None:
    """What a reward stage reads: rankings that can be learned, no demonstrations, prompts to normalise on."""
    rng = random.Random(0)
    rows = [some_ranking(i, rng, split="validation" if i % 4 == 0 else "train") for i in range(num_rankings)]
    folder.write_rankings(rows)
    folder.write_demonstrations([])
    folder.write_prompts(
        PromptRow(prompt_id=i, split="validation", prompt_ids=some_prompt(rng), text="") for i in range(4)
    )


def write_tiny_prompts(folder: RoundFolder) -> None:
    """What the other stages read: prompts and demonstrations of two splits."""
    rng = random.Random(0)
    folder.write_prompts(
        PromptRow(prompt_id=i, split=split, prompt_ids=some_prompt(rng), text="")  # type: ignore[arg-type]
        for i, split in enumerate(["train"] * 9 + ["validation"] * 5)
    )
    folder.write_demonstrations(
        some_demonstration(i, rng, split=split) for i, split in enumerate(["train"] * 20 + ["validation"] * 4)
    )


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

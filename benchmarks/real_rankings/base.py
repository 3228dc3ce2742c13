"""What the reward models start from: tiny policies of our own, since no model of a hub is used.

Either a GPT-2 that has read prose, in tokens of a few letters, or a Llama with random weights that reads letters: there
the length of a text is that in characters, capitals and punctuation are tokens of their own, and nothing is known.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from benchmarks.simulation.stages import StageInputs, run_stage
from trainer.round_folder import DemonstrationRow, Split
from trainer.starter.tokenizer import train_tokenizer

VALIDATION_EVERY = 40  # pieces


@dataclass(frozen=True)
class Shape:
    """How large the model is, and what it reads from."""

    vocabulary: int = 2048  # tokens; the 256 bytes are among them
    width: int = 128
    layers: int = 2
    heads: int = 4
    context: int = 512  # tokens
    piece: int = 256  # tokens of prose that are read at once
    batch: int = 10  # pieces a step
    epochs: int = 3


def make_reader(work: Path, prose: Sequence[tuple[str, str]], shape: Shape, seed: int) -> str:
    """The folder of a policy that has read the prose, from random weights, by the recipe `sft`. Made once."""
    untrained = work / f"untrained-{digest(json.dumps([asdict(shape), seed, prose]))}" / "result"
    if not (untrained / "config.json").exists():
        tokenizer = train_tokenizer((text for pair in prose for text in pair), shape.vocabulary, shape.context)
        torch.manual_seed(seed)
        save(untrained, GPT2LMHeadModel(gpt2(tokenizer, shape)), tokenizer)
    tokenizer = AutoTokenizer.from_pretrained(untrained)
    read = StageInputs(
        recipe="sft",
        settings={
            "num_epochs": shape.epochs,
            "learning_rate": 3e-3,
            "warmup": 0.05,
            "weight_decay": 0.05,
            "batch_size": shape.batch,
        },
        seed=seed,
        models={"policy": str(untrained)},
        prompts=(),
        demonstrations=list(pieces(tokenizer, prose, shape.piece)),
    )
    return str(run_stage(work, read))


def make_speller(work: Path, shape: Shape, seed: int) -> str:
    """The folder of a policy with random weights that reads bytes: nothing is learned before the judgements are."""
    folder = work / f"speller-{digest(json.dumps([asdict(shape), seed]))}" / "result"
    if not (folder / "config.json").exists():
        tokenizer = train_tokenizer([], shape.vocabulary, shape.context)  # of no text: no merges, every byte a token
        torch.manual_seed(seed)
        save(folder, LlamaForCausalLM(llama(tokenizer, shape)), tokenizer)
    return str(folder)


def save(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    folder.mkdir(parents=True)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def gpt2(tokenizer: PreTrainedTokenizerFast, shape: Shape) -> GPT2Config:
    return GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=shape.context,
        n_embd=shape.width,
        n_layer=shape.layers,
        n_head=shape.heads,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def llama(tokenizer: PreTrainedTokenizerFast, shape: Shape) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.width,
        intermediate_size=shape.width * 11 // 4,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        initializer_range=0.1,  # nobody trains it before: heads that start at 0.02 attend to all alike for many steps
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )


def pieces(
    tokenizer: PreTrainedTokenizerFast, prose: Sequence[tuple[str, str]], length: int
) -> Iterator[DemonstrationRow]:
    """Every token but the first of a piece is learned, what is asked as well as what is said."""
    number = 0
    for asked, said in prose:
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
        text = tokenizer.apply_chat_template(turns, tokenize=False) if asked else said
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
        for start in range(0, len(ids) - 1, length):
            piece = ids[start : start + length]
            if len(piece) > 1:
                split: Split = "validation" if number % VALIDATION_EVERY == 0 else "train"
                yield DemonstrationRow(
                    prompt_id=number,
                    group=str(number),
                    split=split,
                    prompt_ids=piece[:1],
                    completion_ids=piece[1:],
                    text="",
                )
                number += 1


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]

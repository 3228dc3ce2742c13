"""The estimate of trainer.memory: its tables for docs/hardware.md, and how far it is off what a step really takes here.

    python -m benchmarks.memory            the tables, then steps that are measured: on the starter policy, and on a
                                           larger model whose weights two processes hold whole, and divide; a minute

Each measurement is a fresh process that takes two steps of supervised fine-tuning and reports by how much its peak rose
above what it held before it opened the model.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.resident import resident_mb
from trainer.memory import GB, PROCESS_GB, ModelShape, estimate, shape_of
from trainer.settings import STARTER, recipe_config

SHAPES = {  # Qwen2.5 0.5 B, 1.5 B, 7 B; Llama 2 13 B, 70 B
    "0.5 B": ModelShape(896, 24, 14, 2, 64, 4864, 3, 151_936, True),
    "1.5 B": ModelShape(1536, 28, 12, 2, 128, 8960, 3, 151_936, True),
    "7 B": ModelShape(3584, 28, 28, 4, 128, 18_944, 3, 152_064, False),
    "13 B": ModelShape(5120, 40, 40, 40, 128, 13_824, 3, 32_000, False),
    "70 B": ModelShape(8192, 80, 64, 8, 128, 28_672, 3, 32_000, False),
}
MICRO_BATCH_TOKENS = 4096
DIVIDED = ModelShape(768, 12, 12, 12, 64, 2048, 3, 4096, True)  # large enough that its weights are most of the memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(f"{measure(json.loads(arguments.child))}\n", end="", flush=True)  # in one piece: others print too
        return
    print(table())
    print(table_of_shards())
    for settings in ({}, {"gradient_checkpointing": True}, {"micro_batch_tokens": 8192}):
        print(compare(settings), flush=True)
    for shard_weights in (False, True):
        print(compare_together(shard_weights), flush=True)


def table() -> str:
    """GB a device, a row a model; micro-batches of 4,096 tokens, layers recomputed, completions of 256 tokens."""
    columns = [(recipe, tuning) for recipe in ("ppo", "grpo", "sft") for tuning in ("full", "lora")]
    lines = [
        "| model | " + " | ".join(f"{recipe}, {tuning}" for recipe, tuning in columns) + " |",
        "| --- " * (1 + len(columns)) + "|",
    ]
    for name, shape in SHAPES.items():
        cells = [gb(recipe, shape, tuning) for recipe, tuning in columns]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def table_of_shards() -> str:
    """GB a GPU with weights divided over so many, a row a model; other settings as above."""
    stages = [("ppo", "full"), ("grpo", "full"), ("sft", "full"), ("sft", "lora")]
    columns = [(recipe, tuning, number) for number in (8, 32) for recipe, tuning in stages]
    lines = [
        "| model | " + " | ".join(f"{recipe}, {tuning}, {number}" for recipe, tuning, number in columns) + " |",
        "| --- " * (1 + len(columns)) + "|",
    ]
    for name, shape in SHAPES.items():
        cells = [
            gb(recipe, shape, tuning, num_processes=number, shard_weights=True) for recipe, tuning, number in columns
        ]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def gb(recipe: str, shape: ModelShape, tuning: str, **others: Any) -> str:
    settings = settings_of(
        recipe, {"tuning": tuning, "micro_batch_tokens": MICRO_BATCH_TOKENS, "gradient_checkpointing": True, **others}
    )
    return f"{estimate(recipe, shape, settings, device='cuda').total:.0f}"


def settings_of(recipe: str, overrides: dict[str, Any]) -> dict[str, Any]:
    return dataclasses.asdict(recipe_config(recipe, "paper", overrides))


def compare(overrides: dict[str, Any]) -> str:
    """What is estimated for a step on the starter policy beside what its process's memory rose by."""
    shape = shape_of(json.loads((STARTER / "policy" / "config.json").read_text()))
    needed = estimate("sft", shape, settings_of("sft", overrides), device="cpu")
    measured = max(run_child([sys.executable], overrides))
    estimated = (needed.total - PROCESS_GB) * 1e3
    return f"{overrides or 'as set'}: estimated {estimated:.0f} MB, measured {measured:.0f} MB"


def compare_together(shard_weights: bool) -> str:
    """The same of two processes that each hold all weights of a model, or parts."""
    overrides = {"num_processes": 2, "shard_weights": shard_weights, "micro_batch_tokens": 512}
    needed = estimate("sft", DIVIDED, settings_of("sft", overrides), device="cpu")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    measured = max(run_child(launcher, overrides))
    estimated = (needed.total - PROCESS_GB) * 1e3
    return f"{overrides}: estimated {estimated:.0f} MB, measured {measured:.0f} MB in each process"


def run_child(launcher: list[str], overrides: dict[str, Any]) -> list[float]:
    """What each process measured."""
    command = [*launcher, "-m", "benchmarks.memory", "--child", json.dumps(overrides)]
    # Otherwise the C library keeps what is let go, gathered layers too, where a GPU's allocator uses it again.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"} if overrides.get("num_processes") else None
    finished = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(__file__).resolve().parents[1], env=environment
    )
    return [float(line) for line in finished.stdout.split()]


def measure(overrides: dict[str, Any]) -> float:
    """MB that two steps of supervised fine-tuning rise above what the process held before the model."""
    import random

    import torch

    from trainer import team
    from trainer.fitting import adamw, update
    from trainer.imitation import Example, add_gradients
    from trainer.models import load_policy
    from trainer.recomputing import checkpointing
    from trainer.sharding import shard

    torch.set_num_threads(1)
    settings = settings_of("sft", overrides)
    team.join("cpu")
    before = resident_mb("VmRSS")
    model = load_policy(STARTER / "policy").model if team.size() == 1 else random_model()
    if settings["shard_weights"]:
        shard(model, "cpu")
    checkpointing(model, settings["gradient_checkpointing"])
    rng, vocabulary = random.Random(0), model.config.vocab_size

    def tokens(count: int) -> list[int]:
        return [rng.randrange(3, vocabulary) for _ in range(count)]

    num_examples = team.size() * settings["micro_batch_tokens"] // 128
    examples = [Example(prompt_ids=tokens(64), completion_ids=tokens(64)) for _ in range(num_examples)]
    optimizer = adamw(model, 0.0)
    for _ in range(2):
        add_gradients(model, examples, settings["micro_batch_tokens"])
        update(model, optimizer, 1e-5, 1.0)
    return round((resident_mb("VmHWM") - before) * 2**20 / GB * 1e3)


def random_model() -> Any:
    """Of the shape DIVIDED, with our attention."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    from trainer.shared_prompt import ATTENTION

    config = LlamaConfig(
        vocab_size=DIVIDED.vocabulary,
        hidden_size=DIVIDED.width,
        intermediate_size=DIVIDED.inner_width,
        num_hidden_layers=DIVIDED.num_layers,
        num_attention_heads=DIVIDED.num_heads,
        tie_word_embeddings=DIVIDED.is_tied,
    )
    return AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION)


if __name__ == "__main__":
    main()

"""The estimate of trainer.memory: its table for docs/hardware.md, and how far it is off what a step really takes here.

    python -m benchmarks.memory            the table, then steps on the starter policy, measured; half a minute

Each measurement is a fresh process that takes two steps of supervised fine-tuning and reports by how much its peak rose
above what it held before it opened the model.
"""

import argparse
import dataclasses
import json
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(measure(json.loads(arguments.child)))
        return
    print(table())
    for settings in ({}, {"gradient_checkpointing": True}, {"micro_batch_tokens": 8192}):
        print(compare(settings), flush=True)


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


def gb(recipe: str, shape: ModelShape, tuning: str) -> str:
    settings = settings_of(
        recipe, {"tuning": tuning, "micro_batch_tokens": MICRO_BATCH_TOKENS, "gradient_checkpointing": True}
    )
    return f"{estimate(recipe, shape, settings, device='cuda').total:.0f}"


def settings_of(recipe: str, overrides: dict[str, Any]) -> dict[str, Any]:
    return dataclasses.asdict(recipe_config(recipe, "paper", overrides))


def compare(overrides: dict[str, Any]) -> str:
    """What is estimated for a step on the starter policy beside what its process's memory rose by."""
    shape = shape_of(json.loads((STARTER / "policy" / "config.json").read_text()))
    needed = estimate("sft", shape, settings_of("sft", overrides), device="cpu")
    command = [sys.executable, "-m", "benchmarks.memory", "--child", json.dumps(overrides)]
    finished = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(__file__).resolve().parents[1]
    )
    measured = float(finished.stdout.strip().splitlines()[-1])
    estimated = (needed.total - PROCESS_GB) * 1e3
    return f"{overrides or 'as set'}: estimated {estimated:.0f} MB, measured {measured:.0f} MB"


def measure(overrides: dict[str, Any]) -> float:
    """MB that two steps of supervised fine-tuning rise above what the process held before the model."""
    import random

    import torch

    from trainer.fitting import adamw, update
    from trainer.imitation import Example, add_gradients
    from trainer.models import load_policy
    from trainer.recomputing import checkpointing

    torch.set_num_threads(1)
    settings = settings_of("sft", overrides)
    before = resident_mb("VmRSS")
    policy = load_policy(STARTER / "policy")
    checkpointing(policy.model, settings["gradient_checkpointing"])
    rng, vocabulary = random.Random(0), policy.model.config.vocab_size

    def tokens(count: int) -> list[int]:
        return [rng.randrange(3, vocabulary) for _ in range(count)]

    examples = [
        Example(prompt_ids=tokens(64), completion_ids=tokens(64)) for _ in range(settings["micro_batch_tokens"] // 128)
    ]
    optimizer = adamw(policy.model, 0.0)
    for _ in range(2):
        add_gradients(policy.model, examples, settings["micro_batch_tokens"])
        update(policy.model, optimizer, 1e-5, 1.0)
    return round((resident_mb("VmHWM") - before) * 2**20 / GB * 1e3)


if __name__ == "__main__":
    main()

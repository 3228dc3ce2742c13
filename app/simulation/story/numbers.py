"""The curves of a story's stages: what a recipe would have reported, drawn and not computed.

Shapes are those of real runs on the starter policy: a loss falls and flattens, a score rises while the KL grows.
"""

import math
from random import Random
from typing import Any

LOOK_EVERY = 5  # steps between two looks at the validation prompts


def rise(step: int, num_steps: int) -> float:
    """From 0 to 1, fast first."""
    return 1 - math.exp(-3 * step / num_steps)


def fitting_rows(
    rng: Random, num_steps: int, *, start: float, end: float, accuracy: float | None
) -> list[dict[str, Any]]:
    """The steps of a stage that fits data. accuracy: the validation accuracy it ends with, of a reward model."""
    rows = []
    for step in range(1, num_steps + 1):
        done = rise(step, num_steps)
        row = {"step": step, "loss": start + (end - start) * done + rng.gauss(0, 0.02), "learning_rate": 3e-4}
        if accuracy is not None:
            row["train_accuracy"] = min(0.99, 0.5 + (accuracy - 0.42) * done + rng.gauss(0, 0.03))
        if step % LOOK_EVERY == 0 or step == num_steps:
            row["validation_loss"] = start + (end + 0.05 - start) * done
            if accuracy is not None:
                row["validation_accuracy"] = 0.5 + (accuracy - 0.5) * rise(step, num_steps) / rise(num_steps, num_steps)
        rows.append(row)
    return rows


def improving_rows(rng: Random, num_steps: int, *, score: float, kl: float, tokens: float) -> list[dict[str, Any]]:
    """The steps of PPO that ends with this held-out score, KL in nats and tokens a completion."""
    rows = []
    for step in range(1, num_steps + 1):
        done = rise(step, num_steps)
        row = {
            "step": step,
            "score": score * done + rng.gauss(0, 0.08),
            "kl": kl * step / num_steps + abs(rng.gauss(0, 0.05)),
            "entropy": 1.4 - 0.5 * done + rng.gauss(0, 0.02),
            "completion_tokens": 26 + (tokens - 26) * done,
            "eos_rate": 0.92 + 0.06 * done,
            "clip_fraction": 0.05 + 0.03 * rng.random(),
            "policy_loss": -0.01 + rng.gauss(0, 0.004),
            "value_loss": 0.6 * math.exp(-2 * done),
            "explained_variance": 0.7 * done,
            "tokens_per_s": 140 + rng.gauss(0, 5),
        }
        if step % LOOK_EVERY == 0 or step == num_steps:
            row["held_out_score"] = score * done / rise(num_steps, num_steps)
            row["held_out_kl"] = kl * step / num_steps
        rows.append(row)
    return rows

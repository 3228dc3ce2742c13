"""Made-up metrics of a policy stage: healthy ones, and what may go wrong with them."""

import random
from collections.abc import Callable

Points = list[tuple[int, float]]
STEPS, EVERY = 60, 5


def noisy(rng: random.Random, curve: Callable[[int], float], sd: float, every: int = 1) -> Points:
    """The curve at every n-th step, with independent noise as of a batch of completions."""
    return [(step, curve(step) + rng.gauss(0, sd)) for step in range(0 if every > 1 else 1, STEPS + 1, every)]


def healthy(seed: int) -> dict[str, Points]:
    """The score rises and saturates, on validation prompts too; nothing else moves. Noise as of the starter's PPO."""
    rng = random.Random(seed)
    return {
        "score": noisy(rng, lambda step: 1.2 * (1 - 0.95**step), 0.1),
        "held_out_reward": noisy(rng, lambda step: 1.1 * (1 - 0.95**step), 0.09, EVERY),
        "completion_tokens": noisy(rng, lambda step: 27.0, 2.5),
        "eos_rate": [(step, min(1.0, rate)) for step, rate in noisy(rng, lambda step: 0.9, 0.04)],
        "disagreement": noisy(rng, lambda step: 0.3, 0.03),
    }

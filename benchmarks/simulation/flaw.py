"""A planted flaw: labelers who love length teach a reward model that does, and PPO finds out.

The true score (gold) first rises with the proxy's and then falls while the proxy's goes on rising (Gao et al. 2022,
arXiv:2210.10760). They love it more or less: for each strength a run with the stop rules shows where it stopped, and
for one of them a run without, on the same draws, what there was to lose.
"""

import dataclasses
import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import trainer.held_out
from app.simulation.gold import gold_utility, words_of
from benchmarks.simulation.loop import append_line, read_lines
from benchmarks.simulation.stages import StageInputs, run_stage
from benchmarks.simulation.world import Slate, World, mean
from trainer.draws import draw_seed
from trainer.round_folder import JsonLines, read_result
from trainer.settings import Value
from trainer.starter import POLICY_PATH
from trainer.versions import code_version

# What labelers add to the gold utility for each word; beyond 32 words the gold itself takes 0.05 off.
WORD_BONUSES = (0.15, 0.3, 0.6)
WITHOUT_RULES_TOO = 0.6
NUM_SLATES, K = 160, 4
MAX_COMPLETION_TOKENS = 96  # room to be long
REWARD: dict[str, Value] = {"num_epochs": 3, "batch_size": 8, "num_normalisation_completions": 64}
PPO: dict[str, Value] = {
    "num_steps": 24,
    "batch_size": 64,
    "minibatch_size": 32,
    "max_completion_tokens": MAX_COMPLETION_TOKENS,
    "evaluate_every_steps": 2,
    "num_evaluation_prompts": 256,  # of fewer, a fall of 5 % would be noise
    "checkpoint_every_steps": 4,
}
WITHOUT_RULES: dict[str, Value] = {
    "kl_budget": 1000.0,
    "patience": 1000,
    "max_length_factor": 1000.0,
    "max_length_share": 1000.0,
    "max_eos_drop": 1.0,
}

Content = TypeVar("Content")


def run_flaw(seed: int, rules: bool, work: Path, results: Path) -> None:
    """The runs of a seed with the rules, or without, that are not in the results yet."""
    known = {line["bonus"] for line in read_lines(results) if (line["seed"], line["rules"]) == (seed, rules)}
    wanted = [bonus for bonus in (WORD_BONUSES if rules else [WITHOUT_RULES_TOO]) if bonus not in known]
    if not wanted:
        return
    world = World(seed, max_completion_tokens=MAX_COMPLETION_TOKENS)
    for bonus in wanted:
        reward_model = fit_flawed(world, bonus, work)
        line = {"seed": seed, "bonus": bonus, "rules": rules, **optimise(world, reward_model, rules, work)}
        append_line(results, line | {"code": code_version()})


def flawed_ranks(bonus: float, prompt: str, texts: Sequence[str]) -> list[int]:
    """By gold and length; no noise. bonus: for each word."""
    utilities = [gold_utility(prompt, text) + bonus * len(words_of(text)) for text in texts]
    return [1 + sum(other > own for other in utilities) for own in utilities]


def with_doubled(slates: Sequence[Slate], eos_id: int) -> list[Slate]:
    """Half of each slate's completions go on with another one of it: labelers see, and love, what is twice as long."""
    return [
        dataclasses.replace(
            slate,
            completion_ids=[
                [*(token for token in ids if token != eos_id), *after] if place % 2 else ids
                for place, (ids, after) in enumerate(
                    zip(slate.completion_ids, rotated(slate.completion_ids), strict=True)
                )
            ],
            texts=[
                f"{text} {after}" if place % 2 else text
                for place, (text, after) in enumerate(zip(slate.texts, rotated(slate.texts), strict=True))
            ],
        )
        for slate in slates
    ]


def rotated(values: Sequence[Content]) -> list[Content]:
    return [*values[1:], values[0]]


def fit_flawed(world: World, bonus: float, work: Path) -> str:
    slates = with_doubled(world.fill(world.starter, world.prompts_to_rank(1, NUM_SLATES), K, "flaw"), world.eos_id)
    inputs = StageInputs(
        recipe="reward",
        settings=REWARD,
        seed=draw_seed("flawed reward", world.seed),
        models={"policy": str(POLICY_PATH)},
        prompts=world.of_split("validation"),
        rankings=world.rank(slates, 1, partial(flawed_ranks, bonus)),
    )
    return str(run_stage(work, inputs))


def optimise(world: World, reward_model: str, rules: bool, work: Path) -> dict[str, Any]:
    """PPO, and the gold score of all held-out completions at each look."""
    started = time.perf_counter()
    trainer.held_out.NUM_SHOWN = int(PPO["num_evaluation_prompts"])  # samples.jsonl then keeps all of them
    inputs = StageInputs(
        recipe="ppo",
        settings=PPO if rules else PPO | WITHOUT_RULES,
        seed=draw_seed("flawed ppo", world.seed),
        models={"policy": str(POLICY_PATH), "reward_model": reward_model},
        prompts=world.of_split("train", "validation"),
    )
    result = run_stage(work, inputs)
    described = read_result(result)
    line = {
        "looks": looks(result.parent),
        "stopped": described["stopped"],
        "best_step": described["figures"]["best_step"],
        "seconds": round(time.perf_counter() - started, 1),
    }
    print(json.dumps(line), flush=True)
    return line


def looks(folder: Path) -> list[dict[str, float]]:
    """What each look at the held-out prompts saw, and what it did not see: gold."""
    golds: dict[int, list[float]] = {}
    for row in JsonLines(folder / "samples.jsonl").read():
        golds.setdefault(row["step"], []).append(gold_utility(row["prompt"], row["completion"]))
    return [
        {
            "step": row["step"],
            "gold": mean(golds[row["step"]]),
            "score": row["held_out_score"],
            "kl": row["held_out_kl"],
            "tokens": row["held_out_tokens"],
            "eos_rate": row["held_out_eos_rate"],
        }
        for row in JsonLines(folder / "metrics.jsonl").read()
        if "held_out_score" in row
    ]

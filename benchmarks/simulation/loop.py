"""One run of the loop: an arm, a seed, rounds of rank, fit, improve, measure.

Each finished round is a line of JSON, so that hours of work are never lost.
"""

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.simulation.stages import StageInputs, run_stage
from benchmarks.simulation.world import Slate, World
from trainer.asking import choose, disagreement
from trainer.draws import draw_seed
from trainer.models import load_policy
from trainer.reward_store import load_scorer
from trainer.round_folder import RankingRow, read_result
from trainer.settings import Value
from trainer.starter import POLICY_PATH
from trainer.versions import code_version

Settings = Mapping[str, Value]

# Much the same number of sampled completions for each way to improve a policy.
POLICY_SETTINGS: Mapping[str, Settings] = {
    "ppo": {"num_steps": 12, "evaluate_every_steps": 6, "num_evaluation_prompts": 64},
    "grpo": {"num_steps": 12, "evaluate_every_steps": 6, "num_evaluation_prompts": 64},
    "rejection": {"num_prompts": 192, "num_evaluation_prompts": 64, "evaluations_per_epoch": 2},
}
KL_BUDGET = 4.5  # nats a completion, of the preset small


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large a round is: chosen so that one takes about a minute on one core, and gold has room to rise."""

    rounds: int = 4
    rankings: int = 16  # a round; too few for a validation split to choose a step by, so all are fitted
    k: int = 4
    candidates: int = 4  # slates to choose each one from, where labelers are asked by disagreement
    disagreement_share: float = 0.75  # of those then asked; the rest at random
    reward: Settings = field(
        default_factory=lambda: {"num_epochs": 3, "batch_size": 8, "num_normalisation_completions": 64}
    )
    policy: Mapping[str, Settings] = field(default_factory=lambda: POLICY_SETTINGS)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to run the loop."""

    name: str
    recipe: str = "ppo"
    labels: str = "all"  # or latest: those of this round alone
    start_from: str = "sft"  # or current: where the last round's policy ended, with as much KL again to spend
    num_members: int = 1
    asking: str = "random"  # or disagreement


ARMS = (
    Arm(name="ppo"),
    Arm(name="latest labels", labels="latest"),
    Arm(name="continued", start_from="current"),
    Arm(name="grpo", recipe="grpo"),
    Arm(name="rejection", recipe="rejection"),
    Arm(name="ensemble", num_members=4),
    Arm(name="ensemble asked by disagreement", num_members=4, asking="disagreement"),
)


STARTER = "starter"  # whose line of each seed stands for what no round has touched


@dataclass
class Run:
    """A run of the loop: what does not change, and what the rounds leave to each other."""

    arm: Arm
    sizes: Sizes
    world: World
    work: Path
    current: str = str(POLICY_PATH)  # the policy that slates are sampled from
    reward_model: str = ""  # of the last round
    rankings: list[RankingRow] = field(default_factory=list)

    def round(self, number: int) -> dict[str, Any]:
        """Rank, fit, improve, measure."""
        started = time.perf_counter()
        latest = self.world.rank(self.slates_to_ask(number), number)
        self.rankings = latest if self.arm.labels == "latest" else self.rankings + latest
        self.reward_model = self.fit(number)
        self.current = self.improve(number)
        return {
            "arm": self.arm.name,
            "seed": self.world.seed,
            "round": number,
            "num_rankings": len(self.rankings),
            **self.measure(number),
            "seconds": round(time.perf_counter() - started, 1),
            "code": code_version(),
        }

    def slates_to_ask(self, number: int) -> list[Slate]:
        """Slates of the current policy. The first round has no reward model yet that could disagree."""
        count, policy = self.sizes.rankings, load_policy(self.current)
        if self.arm.asking == "random":
            return self.world.fill(policy, self.world.prompts_to_rank(number, count), self.sizes.k, number)
        prompts = self.world.prompts_to_rank(number, count * self.sizes.candidates)
        if number == 1:
            return self.world.fill(policy, prompts[:count], self.sizes.k, number)
        slates = self.world.fill(policy, prompts, self.sizes.k, number)
        scorer = load_scorer(self.reward_model)
        scores = scorer.member_scores([s.prompt.prompt_ids for s in slates], [s.completion_ids for s in slates])
        log_odds = scores * scores.new_tensor(scorer.score_stds)[:, None]  # as they were fitted
        chosen = choose(
            [disagreement(own) for own in log_odds.split(self.sizes.k, dim=1)],
            count,
            disagreement_share=self.sizes.disagreement_share,
            rng=Random(draw_seed("ask", self.world.seed, number)),
        )
        return [slates[index] for index in sorted(chosen)]

    def fit(self, number: int) -> str:
        ensemble: Settings = {"num_members": self.arm.num_members, "tuning": "lora"} if self.arm.num_members > 1 else {}
        return self.stage(
            "reward",
            number,
            {**self.sizes.reward, **ensemble},
            {"policy": str(POLICY_PATH)},
            rankings=self.rankings,
        )

    def improve(self, number: int) -> str:
        settings, start = dict(self.sizes.policy[self.arm.recipe]), str(POLICY_PATH)
        if self.arm.start_from == "current":
            settings |= {"kl_budget": KL_BUDGET * number}
            start = self.current
        models = {"policy": start, "reference": str(POLICY_PATH), "reward_model": self.reward_model}
        return self.stage(self.arm.recipe, number, settings, models)

    def stage(
        self,
        recipe: str,
        number: int,
        settings: Settings,
        models: Mapping[str, str],
        rankings: Sequence[RankingRow] = (),
    ) -> str:
        inputs = StageInputs(
            recipe=recipe,
            settings=settings,
            seed=draw_seed(recipe, self.world.seed, number),
            models=models,
            prompts=self.world.of_split("train", "validation"),
            rankings=rankings,
        )
        return str(run_stage(self.work, inputs))

    def measure(self, number: int) -> dict[str, Any]:
        improved = read_result(Path(self.current))
        return {
            **vars(self.world.gold(load_policy(self.current), f"round {number}")),
            **self.world.reward_by_gold(load_scorer(self.reward_model)),
            **{
                name: improved["figures"].get(name)
                for name in ("held_out_score", "held_out_kl", "best_step", "num_steps")
            },
            "stopped": improved["stopped"],
        }


def run_arm(arm: Arm, seed: int, sizes: Sizes, work: Path, results: Path) -> None:
    """Every round that is not in the results yet. Stages that are finished are found and not run again."""
    ours = [line for line in read_lines(results) if line["seed"] == seed]
    known = {line["round"] for line in ours if line["arm"] == arm.name}
    has_starter = any(line["arm"] == STARTER for line in ours)
    if has_starter and known >= set(range(1, sizes.rounds + 1)):
        return
    run = Run(arm, sizes, World(seed), work)
    if not has_starter:
        starter = run.world.gold(run.world.starter, "starter again")
        append_line(results, {"arm": STARTER, "seed": seed, "round": 0, **vars(starter)})
    for number in range(1, sizes.rounds + 1):
        line = run.round(number)
        if number not in known:
            append_line(results, line)
            print(json.dumps(line), flush=True)


def read_lines(results: Path) -> list[dict[str, Any]]:
    """All whole lines; one that a killed run left half written is passed over."""
    found = []
    for line in results.read_text(encoding="utf-8").splitlines() if results.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


def append_line(results: Path, line: Mapping[str, Any]) -> None:
    """Add a line. What a killed run had written of another is closed first, and never read."""
    half = results.exists() and not results.read_bytes().endswith(b"\n")
    with results.open("a", encoding="utf-8") as file:
        file.write(("\n" if half else "") + json.dumps(line) + "\n")

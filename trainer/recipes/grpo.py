"""GRPO: improve the policy by comparing completions of one prompt with each other (DeepSeekMath, arXiv:2402.03300).

Reads data/prompts.parquet (train and validation) and two models, a policy and a reward model; the reference is the
policy it starts from unless the stage names another. The result is the policy with the best held-out score within all
limits. The loop around a step is trainer.improvement.
"""

from dataclasses import dataclass
from typing import cast

from trainer.grpo import Models, update_policy, weigh
from trainer.improvement import Phases, improve, is_look, open_models, policy_learner, read_task
from trainer.kl import KLController
from trainer.policy_run import Run
from trainer.policy_updates import Learner, Minibatch, learn_policy, plan_epoch
from trainer.recipes.program import Interrupt, run_recipe
from trainer.rollouts import Rollouts
from trainer.round_folder import RoundFolder, Stage
from trainer.settings import GRPOConfig


def run_grpo(folder: RoundFolder, stage: Stage, interrupt: Interrupt) -> None:
    config = cast(GRPOConfig, stage.config)
    opened = open_models(stage, config)
    grpo = GRPO(
        models=Models(opened.policy.model, opened.reference.model, opened.rewards.scorer),
        policy=policy_learner(opened.policy, config),
        config=config,
        seed=stage.seed,
    )
    run = Run({"policy": grpo.policy}, KLController("fixed", config.kl_coef, target=config.kl_budget))
    improve(run, read_task(folder, stage, config, opened), grpo.learn_from, interrupt)


@dataclass(frozen=True, kw_only=True)
class GRPO:
    """What a step of GRPO needs beside the completions it learns from."""

    models: Models
    policy: Learner
    config: GRPOConfig
    seed: int

    def learn_from(self, rollouts: Rollouts, step: int, phases: Phases) -> dict[str, float]:
        """One step: the rollouts are weighed and learned from. Raises RatioNotOne, NotFinite."""
        config = self.config
        plans = [plan_epoch(rollouts, config, self.seed, step, epoch) for epoch in range(config.num_epochs)]
        with phases.phase("score"):
            experience = weigh(self.models, rollouts, plans[0], config)

        def update(minibatch: Minibatch, number: int) -> dict[str, float]:
            return update_policy(self.policy, experience, minibatch, config)

        with phases.phase("update"):
            values = learn_policy(
                self.policy,
                experience,
                plans,
                update,
                config,
                step=step,
                checks_whole_batch=step == 1 or is_look(step, config),
            )
        return values | experience.describe()


if __name__ == "__main__":
    run_recipe(run_grpo)
